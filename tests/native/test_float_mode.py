"""The floating-point mode of the caller, which other libraries set on load, and of threads changes no result."""

import contextlib
import importlib

import pytest
import torch
from support.op_matrix import first_differentiable

import genfast
from genfast import models, testing
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
                a, b = a.contiguous(), b.contiguous()
                assert a.view(torch.uint8).equal(b.view(torch.uint8)) if a.ndim else a == b, (i, dtype)


def delicate(kind):
    """A model whose feature maps are subnormal before the last layer, and half of the weights there."""
    torch.manual_seed(0)
    model = getattr(models, kind)(getattr(models, f"{kind}Config")(height=5, width=5, layers=1, levels=2)).eval()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    with torch.no_grad():
        for p in model.parameters():
            p.normal_() if p.ndim > 1 else p.zero_()
        for p, scale in zip(matrices[-3:], (1e-20, 1e-19, 1e37)):
            p.mul_(scale)
        matrices[-2].view(-1)[::2] *= 1e-20
    return model


@pytest.mark.parametrize("backend", ["cpp", "torch", "full_forward"])
@pytest.mark.parametrize("kind", ["PixelCNN", "PixelRNN"])
def test_models_are_compiled_and_run_alike(kind, backend):
    images = torch.randint(2, (4, 1, 5, 5), dtype=torch.uint8)
    results = []
    for count, flush in ((1, False), (1, True), (2, True)):
        with testing.threads(count):
            engine = genfast.Engine(delicate(kind), backend=backend)
            with flushed() if flush else contextlib.nullcontext():
                results.append(engine.log_prob(images))
                assert (torch.tensor(1e-40) * 1 == 0) == flush
    for log_probs in results[1:]:
        # What torch adds up, it adds up in an order of its own.
        testing.assert_matches(log_probs, results[0], rtol=0 if backend == "cpp" else 1e-4)
    assert results[0].std() > 0.01
