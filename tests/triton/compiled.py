"""Every Triton kernel as the launchers launch it, compiled ahead of time without a GPU, within a budget.

Run by test_triton.py in processes of its own, where TRITON_INTERPRET is not set. Alone it prints what they need.
"""

import ast
import re
import sys
from pathlib import Path

import pytest
import torch
import triton
from support import triton_aot
from support.op_matrix import innermost
from support.pixel_programs import CASES, fields_of, images_of, known_of, labels_of

import genfast
from genfast import testing
from genfast._native import backends
from genfast.engine.request import SampleRequest
from genfast.kernels import pixel_program
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

EVERY = {op: spec for op, spec in (SPECS | SAMPLERS | NON_DIFFERENTIABLE).items() if backends.dtypes(op, "triton")}
DTYPES = (torch.bfloat16, torch.float32)
CAPABILITIES = (80, 90, 100)
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
REGISTERS_OF_A_PROCESSOR = 64 * 1024
# Bytes that one thread may spill to its stack: of the state of a scan; a few addresses, of a program outside products.
STACK = {"diagonal_lstm": 128, "diagonal_block": 128, "row_lstm": 128, "pixel_program": 32}
STACK |= dict.fromkeys(("gaussian_nll", "gaussian_latent", "bernoulli_nll", "importance_bound", "vector_quantize"), 16)
STACK |= dict.fromkeys(("codebook_statistics", "nearest_neighbors", "kernel_sum", "aggregate_posterior"), 16)
# Of these, bytes of the launches that a speed target is set for. What Triton 3.9 makes needs more registers: the
# forward scans at C = 128 write 8 to 12 numbers before their first step, a weight gradient 3, and read them in each.
TARGETED = dict.fromkeys(("diagonal_lstm", "diagonal_block", "row_lstm"), 0)
VERSION = tuple(map(int, triton.__version__.split(".")[:2]))
if VERSION >= (3, 9):
    TARGETED |= {"diagonal_lstm": 48, "row_lstm": 32}
if VERSION <= (3, 6):  # two numbers more, for sm_100
    STACK |= dict.fromkeys(("bias_act", "categorical_nll"), 8)
# Bytes of shared memory in which programs exchange sums, where no tile passes through it.
EXCHANGED = dict.fromkeys(("minibatch_discrimination", "minibatch_stddev", "bias_act", "upfirdn2d"), 16 * 1024)
EXCHANGED |= {"spectral_norm": 16 * 1024, "power_iteration": 16 * 1024}
# Kernels that read pixels wherever they lie.
LAYOUTS = ("categorical_nll", "categorical_sample", "gated_activation", "bias_act")
LAYOUTS += ("logistic_mixture_nll", "logistic_mixture_sample")


def launches(op, dtype):
    """(launch, whether a speed target is set for it) of all sizes that the op's SPEC has for GPUs."""
    spec, function = EVERY[op], getattr(genfast.ops, op)
    for sizes in (*spec.bench.values(), *spec.compiled):
        inputs = triton_aot.arguments(spec, sizes, dtype)
        recorded = triton_aot.launches_of(function, inputs)
        if op in LAYOUTS:
            recorded += triton_aot.launches_of(function, testing.each_tensor(innermost, inputs))
        if inputs.get("weight") is not None and "weight" not in testing.differentiable(inputs):
            # One that is not of bits.
            recorded += triton_aot.launches_of(function, inputs, weight=triton_aot.empty(inputs["x"].shape, dtype))
        for launch in recorded:
            yield launch, sizes in spec.bench.values() and dtype == torch.bfloat16


def compiled_launches(op, dtype, capability):
    """(kernel, what it needs, PTX, whether a speed target is set for it) of each launch that is not another's."""
    seen = set()
    with triton_aot.lent(SHARED[capability]):
        for launch, targeted in [*launches(op, dtype)]:
            compiled = triton_aot.compile_launch(*launch, capability)
            if compiled.hash not in seen:
                seen.add(compiled.hash)
                yield compiled.name, triton_aot.needs(compiled), compiled.asm["ptx"], targeted


def assert_within_budget(op, needs, capability, stack):
    assert needs.registers * needs.warps * 32 <= REGISTERS_OF_A_PROCESSOR
    assert needs.shared <= min(SHARED[capability], EXCHANGED.get(op, SHARED[capability]))
    assert needs.stack <= stack


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", EVERY)
def test_compiles_within_budget(op, dtype, capability):
    """Of no kernel is a sum in the order of chance."""
    for kernel, needs, ptx, targeted in compiled_launches(op, dtype, capability):
        budgets = STACK | TARGETED if targeted and capability == 90 else STACK
        assert_within_budget(op, needs, capability, budgets.get(op, 0))
        assert not re.search(r"\b(atom|red)\.", ptx), kernel
        if op == "gaussian_latent":
            # The noise is within 4 ulp: no instruction of the GPU's that is coarser.
            assert ".approx" not in ptx.replace("rcp.approx", ""), kernel


def launch_of_program(case, full):
    """The launch for the program, alone or with all that may be given and wanted."""
    p, n, options = case.program, 3, {}
    if full:
        options = {"given": images_of(p, n), "known": known_of(p, n), "want": ("parameters",)}
        if p.likelihood.takes_evidence:
            options["evidence"] = torch.zeros(n, *p.spec.shape, p.spec.levels)
    with triton_aot.record_launches() as recorded:
        labels = labels_of(p, n)
        request = SampleRequest(n, seed=2**64 - 1, labels=labels, fields=fields_of(p, labels), **options)
        pixel_program.pixel_program(p, request, torch.device("cpu"))
    (launch,) = recorded
    return launch


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("full, count", [(False, 16), (True, 64)], ids=["alone", "full"])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[5], CASES[6]], ids=str)
def test_pixel_program(case, full, count, capability):
    kernel, arguments, options = launch_of_program(case, full)
    width = pixel_program.width_of(count)
    options = {name: width[name] for name in options}
    compiled = triton_aot.compile_launch(kernel, {**arguments, "BLOCK_N": width["BLOCK_N"]}, options, capability)
    assert_within_budget("pixel_program", triton_aot.needs(compiled), capability, STACK["pixel_program"])
    # The cache of constant data would not see what other threads of the program have written.
    assert "ld.global.nc" not in compiled.asm["ptx"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_kernel_is_launched(dtype):
    """What is compiled above leaves no kernel of the package out."""
    launched = {launch[0].__name__ for op in EVERY for launch, _ in launches(op, dtype)}
    launched.add(launch_of_program(CASES[0], full=False)[0].__name__)
    trees = [ast.parse(path.read_text()) for path in Path(pixel_program.__file__).parent.glob("*.py")]
    functions = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert launched == {name for name in functions if name.endswith("_kernel")}


def main():
    for op in EVERY:
        for dtype in DTYPES:
            for capability in CAPABILITIES:
                for kernel, needs, *_ in compiled_launches(op, dtype, capability):
                    print(op, kernel, str(dtype).removeprefix("torch."), capability, needs, sep=" | ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
