"""Compile what the Triton launchers would launch, without a GPU, and read what it needs of one."""

import contextlib
import importlib
import pkgutil
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
import triton
from torch._subclasses import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from genfast import kernels, testing
from genfast._native import backends

OPTIONS = ("num_warps", "num_stages", "maxnreg")
TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
TYPES |= {torch.uint8: "*u8", torch.int32: "*i32", torch.int64: "*i64", torch.float64: "*fp64"}


@contextlib.contextmanager
def record_launches():
    """Collect `(kernel, bound arguments, options)` of every launch inside instead of launching it."""
    launches = []

    def run(self, *args, grid, warmup, **kwargs):
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        launches.append((self, self.signature.bind(*args, **kwargs).arguments, options))

    with mock.patch.object(JITFunction, "run", run):
        yield launches


def compile_launch(kernel, arguments, options, capability):
    """One recorded launch compiled for `sm_<capability>`, with the alignment facts a launch would find."""
    signature, constants, attributes = {}, {}, {}
    for position, (parameter, value) in enumerate(zip(kernel.params, arguments.values(), strict=True)):
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[(position,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        elif value == 1 and not parameter.do_not_specialize:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = 1
        else:
            signature[parameter.name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


class Needs(NamedTuple):
    """What one compiled kernel needs: registers and bytes of stack a thread, which hold what spilled; bytes of shared
    memory a program."""

    warps: int
    registers: int
    stack: int
    shared: int


def needs(compiled):
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", listing))
    return Needs(compiled.metadata.num_warps, int(usage["REG"]), int(usage["STACK"]), compiled.metadata.shared)


def empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def arguments(spec, sizes, dtype):
    """The sample arguments of an op as tensors without memory: those of benchmarks take gigabytes."""
    with FakeTensorMode():
        sample = spec.inputs(sizes, dtype=dtype)
    return testing.each_tensor(lambda tensor: empty(tensor.shape, tensor.dtype), sample)


def launches_of(function, inputs, **constants):
    """The launches of `function` and of its gradient for arguments without memory; `constants` have no gradient."""
    leaves = {name: tensor.requires_grad_() for name, tensor in testing.differentiable(inputs).items()}
    with (
        record_launches() as launches,
        mock.patch.object(backends, "_selected", lambda *_: "triton"),
        mock.patch.multiple(torch.Tensor, __int__=lambda _: 0, __float__=lambda _: 0.0),  # for checks of values
    ):
        outputs = testing.outputs_of(function(**inputs | constants, backend="triton"))
        smooth = [output for output in outputs if output.requires_grad]
        if smooth:
            torch.autograd.grad(smooth, tuple(leaves.values()), [torch.empty_like(output) for output in smooth])
    return launches


@contextlib.contextmanager
def lent(shared):
    """Inside, the launchers find a GPU that lends a program `shared` bytes."""
    names = [f"genfast.kernels.{module.name}" for module in pkgutil.iter_modules(kernels.__path__)]
    with contextlib.ExitStack() as stack:
        for module in map(importlib.import_module, names):
            if hasattr(module, "shared_memory"):
                stack.enter_context(mock.patch.object(module, "shared_memory", lambda _: shared))
        yield
