"""The Triton kernels of likelihoods, samplers and the gate in Triton's interpreter, with guards around every tensor.
Run by test_triton.py in a process of its own, as triton_interpreted.py is."""

import importlib

import pytest
import torch
from triton_interpreted import _addresses, guarded_outputs  # noqa: F401

from genfast import testing
from genfast._native import backends
from genfast.reference import SAMPLERS, SPECS

OPS = ("categorical_nll", "gated_activation", "logistic_mixture_nll")
DRAWS = ("categorical_sample", "bernoulli_sample", "logistic_mixture_sample")
CASES = [(op, shape) for op in OPS for shape in range(len(SPECS[op].shapes))]
DRAW_CASES = [(op, shape) for op in DRAWS for shape in range(len(SAMPLERS[op].shapes))]


def module(op):
    return importlib.import_module(f"genfast.kernels.{backends.stem(op)}")


def pixels_first(tensor, op):
    """How the public functions hand over channels-last memory: [B, H W C(, L)], for the gate [B H W, C], and for the
    mixture as it is."""
    last = tensor.movedim((-2, -1), (1, 2))
    if op.startswith("logistic_mixture"):
        return testing.embedded(last).movedim((1, 2), (-2, -1))
    return testing.embedded(last.flatten(0, 2) if op == "gated_activation" else last.flatten(1, 3))


def arranged(spec, sizes, dtype, first):
    sizes = {**sizes, "B": min(sizes["B"], 3)}
    inputs = spec.inputs(sizes, dtype=dtype)
    return testing.each_tensor(lambda t: pixels_first(t, spec.name) if first else testing.embedded(t), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("op, shape, first", [(*case, first) for case in CASES for first in (False, True)])
def test_likelihood_and_gate(op, shape, first, dtype):
    spec = SPECS[op]
    inputs = arranged(spec, spec.shapes[shape], dtype, first)
    with guarded_outputs():
        output = getattr(module(op), f"{op}_forward")(*inputs.values(), False)
    incoming = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    with guarded_outputs():
        grad = getattr(module(op), f"{op}_backward")(testing.embedded(incoming), *inputs.values())
    name = list(testing.learned(inputs))[0]
    truth = testing.evaluate(spec.reference, testing.doubled(inputs))
    rival = testing.evaluate(spec.reference, inputs)
    for part, value in {"output": output, f"grad_{name}": grad}.items():
        assert value.dtype == dtype
        if dtype == torch.float16:
            testing.assert_no_worse(value, rival[part], truth[part], name=part)
        else:
            testing.assert_matches(value, truth[part], name=part)


@pytest.mark.parametrize("first", [False, True], ids=["contiguous", "pixels first"])
@pytest.mark.parametrize("op, shape", DRAW_CASES)
def test_sampler(op, shape, first):
    spec = SAMPLERS[op]
    inputs = arranged(spec, spec.shapes[shape], torch.float32, first)
    with guarded_outputs():
        got = getattr(module(op), op)(*inputs.values())
    assert torch.equal(got, spec.reference(**inputs))


def test_infinite_logits():
    """-inf is probability 0: no cost, no gradient, never drawn; and a level out of range is a NaN, not a wild read."""
    logits = torch.randn(2, 3, 5, 4)
    logits[:, :, ::2] = -torch.inf
    x = torch.randint(2, (2, 3, 4), dtype=torch.uint8) * 2 + 1
    categorical = module("categorical_nll")
    nll = categorical.categorical_nll_forward(x, logits, False)
    grad = categorical.categorical_nll_backward(torch.ones(2), x, logits)
    assert nll.isfinite().all() and (grad[:, :, ::2] == 0).all() and grad.isfinite().all()
    draw = categorical.categorical_sample(logits, 0, 0, 1.0, 0)
    assert (draw % 2 == 1).all()
    x[0, 0, 0], x[1, 2, 3] = 5, 200
    assert categorical.categorical_nll_forward(x, logits, False).isnan().all()
