"""Compile what the Triton launchers would launch, without a GPU, and read what it needs of one."""

import contextlib
import re
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

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


def resources(compiled):
    """`(registers, stack bytes, shared bytes)` of one compiled kernel; the stack holds what spilled."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        listing = subprocess.run(
            [tool, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    usage = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", listing))
    return int(usage["REG"]), int(usage["STACK"]), compiled.metadata.shared


def measure(launch, count, capability):
    """Yields (kernel's name, warps, registers, stack bytes, shared bytes, PTX) of each of the `count` launches that
    `launch()` makes whose kernel is not another's."""
    with record_launches() as recorded:
        launch()
    assert len(recorded) == count
    seen = set()
    for kernel, arguments, options in recorded:
        compiled = compile_launch(kernel, arguments, options, capability)
        if compiled.hash not in seen:
            seen.add(compiled.hash)
            yield kernel.__name__, compiled.metadata.num_warps, *resources(compiled), compiled.asm["ptx"]
