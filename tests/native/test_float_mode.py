"""The floating-point mode of the caller, which other libraries set on load, and of torch's threads changes no result."""

import contextlib
import importlib

import pytest
import torch
from support.op_matrix import first_differentiable

import genfast
from genfast import testing
from genfast._native import backends
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

EVERY = SPECS | SAMPLERS | NON_DIFFERENTIABLE


@contextlib.contextmanager
def flushed():
    """Inside, subnormal numbers are zeros to this thread."""
    assert torch.set_flush_denormal(True)
    try:
        assert torch.tensor(1e-40) * 1 == 0
        yield
    finally:
        torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def without():
    yield
    torch.set_flush_denormal(False)


def results_of(op, inputs):
    """Outputs, and gradients for incoming ones, of the native functions alone: the rest is torch's."""
    function = getattr(genfast, op)
    if op == "minibatch_discrimination":  # the product before it is torch's
        function = importlib.import_module("genfast.ops.minibatch_discrimination")._closeness
    if op not in SPECS:
        return testing.outputs_of(function(**inputs, backend="cpp"))
    first, _ = first_differentiable(inputs)
    inputs = {**inputs, first: inputs[first].detach().requires_grad_()}
    outputs = testing.outputs_of(function(**inputs, backend="cpp"))
    smooth = [output for output in outputs if output.is_floating_point()]
    gradients = torch.autograd.grad(smooth, inputs[first], [torch.ones_like(output) for output in smooth])
    return *(output.detach() for output in outputs), *gradients


@pytest.mark.parametrize("scale", [1e-20, 1e-39])
@pytest.mark.parametrize("op", EVERY)
def test_subnormal_numbers_count(op, scale):
    """With inputs whose products, or which themselves, are subnormal."""
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU has no such mode")
    for dtype in backends.dtypes(op, "cpp"):
        inputs = EVERY[op].inputs(EVERY[op].shapes[3], dtype=dtype)
        inputs = {n: v * scale if torch.is_tensor(v) and v.is_floating_point() else v for n, v in inputs.items()}
        if op == "minibatch_discrimination":
            features = inputs["features"]
            inputs = {"projected": features[:, :, None].repeat(1, 1, 3), "rows": len(features)}
        with testing.threads(1):
            expected = results_of(op, inputs)
            with flushed():
                got = [results_of(op, inputs)]
        with testing.threads(2), flushed():
            got.append(results_of(op, inputs))
        for results in got:
            for i, (a, b) in enumerate(zip(results, expected, strict=True)):
                assert a.view(torch.uint8).equal(b.view(torch.uint8)) if a.ndim else a == b, (i, dtype)
