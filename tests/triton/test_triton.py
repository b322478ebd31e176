"""The Triton kernels: interpreted and compiled ahead of time anywhere, run where there is a CUDA device."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.pixel_programs import CASES, fields_of, images_of, known_of, labels_of

import genfast
from genfast import testing
from genfast._native import backends
from genfast.engine import eager
from genfast.engine.request import SampleRequest
from genfast.reference import SPECS

# Where triton must be there, GENFAST_REQUIRE=triton has ended the import of genfast above.
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# C at, below and past the blocks; all launches: resident at 16, 32 and 64 rows, streamed, side tap kept.
SHAPES = [(64, 28, 28, 2, 16), (7, 8, 8, 2, 33), (3, 32, 32, 2, 64), (2, 32, 17, 1, 128), (2, 5, 40, 2, 200)]
SHAPES += [(3, 64, 20, 2, 19), (2, 50, 9, 2, 100), (1, 70, 6, 1, 16), (300, 1, 5, 2, 1)]


def run_tests(*options, **environment):
    """Run tests in a process of its own, from this folder: the installed package is tested."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON_INTERPRET", "GENFAST_REQUIRE", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-2000:]


INTERPRETED = {"TRITON_INTERPRET": "1", "GENFAST_REQUIRE": "cpp,triton"}


@pytest.mark.slow
@needs_triton
def test_every_op_interpreted():
    files = sorted(Path(__file__).parent.glob("../ops/test_every_*.py"))
    run_tests(*map(str, files), "-m", "interpreted", "-k", "triton and not compiles", **INTERPRETED)


@pytest.mark.slow
@needs_triton
def test_interpreted():
    run_tests("interpreted.py", "interpreted_levels.py", **INTERPRETED)


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiled_ahead_of_time(capability):
    run_tests("compiled.py", "-k", f"sm_{capability}" + " or every_kernel" * (capability == 90))


def inputs_on_gpu(op, shape, dtype):
    inputs = SPECS[op].inputs(dict(zip(SPECS[op].gradcheck[0], shape)), dtype=dtype, device="cuda")
    return {name: testing.embedded(tensor) for name, tensor in inputs.items()}


def assert_all_match(got, truth, rival=None):
    for name, value in got.items():
        if rival:
            testing.assert_no_worse(value, rival[name], truth[name], name=name)
        else:
            # Sums over all cells leave small elements from large terms: the error scales with the largest.
            largest = truth[name].abs().max().item() if truth[name].numel() else 0.0
            testing.assert_matches(value, truth[name], name=name, atol=1e-5 * max(1.0, largest))


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gpu_diagonal_lstm(shape, dtype):
    spec, inputs = SPECS["diagonal_lstm"], inputs_on_gpu("diagonal_lstm", shape, dtype)
    with testing.poisoned():
        got = testing.evaluate(genfast.ops.diagonal_lstm, inputs, backend="triton")
    truth = testing.evaluate(spec.reference, {name: tensor.double() for name, tensor in inputs.items()})
    rival = None if dtype == torch.float32 else testing.evaluate(spec.reference, inputs)
    assert_all_match(got, truth, rival)


# C at and past the blocks; several images of one program, images wider than its lanes, one row, one column.
ROW_SHAPES = [(64, 28, 28, 16), (7, 8, 8, 33), (3, 32, 32, 64), (16, 32, 32, 128), (2, 5, 70, 200), (300, 1, 5, 1)]


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [*ROW_SHAPES, (5, 9, 1, 19)], ids=str)
def test_gpu_row_lstm(shape, dtype):
    spec, inputs = SPECS["row_lstm"], inputs_on_gpu("row_lstm", shape, dtype)
    with testing.poisoned():
        got, again = (testing.evaluate(genfast.ops.row_lstm, inputs, backend="triton") for _ in range(2))
    for name, value in got.items():
        testing.assert_identical(again[name], value, name=name)
    truth = testing.evaluate(spec.reference, {name: tensor.double() for name, tensor in inputs.items()})
    rival = None if dtype == torch.float32 else testing.evaluate(spec.reference, inputs)
    assert_all_match(got, truth, rival)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5, 9, 7, 32, 16), (2, 3, 4, 10, 5), (0, 3, 3, 4, 2), (2, 32, 32, 128, 64)], ids=str)
def test_gpu_diagonal_block(shape, dtype):
    spec, inputs = SPECS["diagonal_block"], inputs_on_gpu("diagonal_block", shape, dtype)
    with testing.poisoned():
        got = testing.evaluate(genfast.ops.diagonal_block, inputs, backend="triton")
    truth = testing.evaluate(spec.reference, {name: tensor.double() for name, tensor in inputs.items()})
    rival = None if dtype == torch.float32 else testing.evaluate(spec.reference, inputs)
    assert_all_match(got, truth, rival)


@needs_gpu
@pytest.mark.parametrize("shape", [(64, 28, 28, 2, 16), (16, 32, 32, 2, 128)], ids=str)
def test_gpu_same_bits(shape):
    """Twice the same, without saving, and split by batch: no race, and no image reads another."""
    inputs = inputs_on_gpu("diagonal_lstm", shape, torch.bfloat16)
    first, second = (testing.evaluate(genfast.ops.diagonal_lstm, inputs, backend="triton") for _ in range(2))
    for name, value in first.items():
        testing.assert_identical(second[name], value, name=name)
    gates, *rest = inputs.values()
    parts = [genfast.ops.diagonal_lstm(part, *rest, backend="triton") for part in gates.split(5)]
    testing.assert_identical(torch.cat(parts), first["output"], name="parts of the batch")


@needs_gpu
@pytest.mark.parametrize("op", SPECS)
def test_gpu_registration(op):
    """Compiled; test_every_op.py runs opcheck."""
    inputs = SPECS[op].inputs(SPECS[op].gradcheck[0], dtype=torch.float32, device="cuda")
    compiled = torch.compile(getattr(genfast.ops, op), fullgraph=True)
    got = testing.evaluate(compiled, inputs, backend="triton")
    assert_all_match(got, testing.evaluate(getattr(genfast.ops, op), testing.doubled(inputs), backend="reference"))


@needs_gpu
@pytest.mark.parametrize("op", SPECS)
def test_gpu_second_order(op):
    """The gradient of the gradient's square, which runs the reference's formula on the GPU."""
    inputs = SPECS[op].inputs(SPECS[op].gradcheck[0], dtype=torch.float32, device="cuda")

    def penalty(inputs, backend):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in testing.differentiable(inputs).items()}
        results = testing.outputs_of(getattr(genfast.ops, op)(**{**inputs, **leaves}, backend=backend))
        total = sum(output.square().sum() for output in results if output.requires_grad)
        first = next(iter(leaves.values()))
        (gradient,) = torch.autograd.grad(total, first, create_graph=True)
        gradients = torch.autograd.grad(gradient.square().sum(), tuple(leaves.values()), allow_unused=True)
        return {name: g for name, g in zip(leaves, gradients) if g is not None}

    assert_all_match(penalty(inputs, "triton"), penalty(testing.doubled(inputs), "reference"))


@needs_gpu
@pytest.mark.parametrize("engine", ["graphs of rows", "one launch"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gpu_pixel_program(case, engine):
    """Graphs of the stepped program, and the program in one launch, draw what the CPU draws."""
    run = eager.run if engine == "graphs of rows" else backends.launcher("pixel_program", "pixel_program")
    p, n = case.program, 37
    images, known = images_of(p, n), known_of(p, n)
    settings = {"seed": 2**63 + 5, "first": 3, "labels": labels_of(p, n), "want": ("log_probs", "parameters")}
    settings["fields"] = fields_of(p, settings["labels"])
    for options in ({}, {"temperature": 1.7, "draw": 2}, {"given": images, "known": known}):
        request = SampleRequest(n, **settings, **options)
        expected = eager.run(p, request)
        got = run(p, request.to(torch.device("cuda")), torch.device("cuda"))
        assert got.images.is_cuda and torch.equal(got.images.cpu(), expected.images)
        testing.assert_matches(got.parameters, expected.parameters, atol=1e-5)
        testing.assert_matches(got.log_probs, expected.log_probs, atol=1e-4)
