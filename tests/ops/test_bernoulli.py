"""What is special to `bernoulli`: its judges, grey targets, infinite logits, frequencies, and its errors."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional as F

import genfast
from genfast import bernoulli_nll, bernoulli_sample, categorical_nll, categorical_sample, testing
from genfast.random import inverse_cdf
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")
SIZES = {"B": 3, "C": 3, "H": 15, "W": 29, "M": 0}


def sample(dtype=torch.float64, **changed):
    return SPECS["bernoulli_nll"].inputs({**SIZES, **changed}, dtype=dtype)


def judge(x, logits):
    return F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none").sum((1, 2, 3))


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, testing.channels_last])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_binary_cross_entropy(backend, grey, layout):
    """Of bits, and of grey values in [0, 1]."""
    inputs = sample()
    x = torch.rand(inputs["x"].shape, dtype=torch.float64) if grey else inputs["x"]

    def of(function, **kwargs):
        return testing.evaluate(lambda logits: function(x, logits, **kwargs), {"logits": layout(inputs["logits"])})

    got, expected = of(bernoulli_nll, backend=backend), of(judge)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_targets_that_are_bits(backend, dtype):
    """0 and 1 as floats are 0 and 1 as bytes: the same bits of the result."""
    inputs = sample(dtype)
    expected = testing.evaluate(bernoulli_nll, inputs, backend=backend)
    logits = inputs["logits"].clone().requires_grad_()
    target = inputs["x"].to(dtype).requires_grad_()
    nll = bernoulli_nll(target, logits, backend=backend)
    testing.assert_identical(nll, expected["output"])
    incoming = torch.randn(nll.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(nll.dtype)
    nll.backward(incoming)
    testing.assert_identical(logits.grad, expected["grad_logits"])
    assert target.grad is None


def test_channels_last_is_read_in_place():
    logits = testing.channels_last(sample(torch.float32, H=64, W=64)["logits"]).requires_grad_()
    x = testing.channels_last(torch.zeros(logits.shape, dtype=torch.uint8))
    with torch.profiler.profile(profile_memory=True) as profile:
        bernoulli_nll(x, logits, backend="cpp").sum().backward()
    large = [
        e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]" and e.nbytes() >= 4 * x.numel()
    ]
    assert len(large) == 1 and logits.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_logits(backend):
    """Certain and right costs nothing and has no gradient; certain and wrong costs infinity."""
    inf = torch.inf
    logits = torch.tensor([[inf, -inf, inf, 3e38], [inf, 0, 0, 0], [-inf, 0, 0, 0]]).view(3, 1, 1, 4)
    x = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 0, 1]], dtype=torch.uint8).view(3, 1, 1, 4)
    for target in (x, x.float()):
        leaf = logits.clone().requires_grad_()
        nll = bernoulli_nll(target, leaf, backend=backend)
        assert nll.tolist() == [0, inf, inf]
        (grad,) = torch.autograd.grad(nll.sum(), leaf)
        assert (grad[0] == 0).all() and grad[1, 0, 0, 0] == 1 and grad[2, 0, 0, 0] == -1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_small_costs_are_exact(backend, dtype):
    """log(1 + e^-l) of large l is e^-l, not the 0 that rounding 1 + e^-l leaves: relative error, at every size."""
    logits = torch.arange(-700, 701, 7).to(dtype).clamp(-85, 85).view(-1, 1, 1, 1) * (
        1 if dtype == torch.float32 else 8
    )
    nll = bernoulli_nll(torch.ones(logits.shape, dtype=torch.uint8), logits, backend=backend)
    expected = np.logaddexp(0, -logits.double().numpy()).reshape(-1)
    assert expected.min() < 1e-36
    testing.assert_matches(nll, torch.from_numpy(expected), atol=0, rtol=4e-7 if dtype == torch.float32 else 4e-15)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_shows(backend):
    inputs = sample(torch.float32)
    inputs["logits"][1, 2, 3, 4] = torch.nan
    assert bernoulli_nll(**inputs, backend=backend).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, testing.channels_last])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float64], ids=str)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_weights(backend, grey, kind, layout):
    """Each pixel counts as often as its weight says."""
    inputs = sample()
    x = torch.rand(inputs["x"].shape, dtype=torch.float64) if grey else inputs["x"]
    weight = (3 * torch.rand(x.shape, dtype=torch.float64)).floor()
    weight = weight if kind == torch.float64 else (weight > 0).to(kind)

    def judged(logits):
        nats = F.binary_cross_entropy_with_logits(logits, x.double(), reduction="none")
        return (nats * weight.double()).sum((1, 2, 3))

    leaf = {"logits": layout(inputs["logits"])}
    got = testing.evaluate(lambda logits: bernoulli_nll(x, logits, layout(weight), backend=backend), leaf)
    expected = testing.evaluate(judged, leaf)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_pixels_may_hold_anything(backend, kind):
    """Under a weight of 0 neither a NaN nor an infinite logit counts, and its gradient is 0."""
    inputs = sample(torch.float32)
    weight = torch.ones(inputs["x"].shape, dtype=kind)
    weight[0, 1, 2, 3] = weight[1, 0, :2] = 0

    def of(logits):
        return testing.evaluate(bernoulli_nll, {**inputs, "logits": logits}, weight=weight, backend=backend)

    del inputs["weight"]
    clean = of(inputs["logits"])
    for value in (torch.nan, torch.inf, -torch.inf):
        got = of(inputs["logits"].masked_fill(weight == 0, value))
        for name in clean:
            testing.assert_identical(got[name], clean[name], name=name)
    assert (clean["grad_logits"][weight == 0] == 0).all()
    assert (bernoulli_nll(**inputs, weight=torch.zeros_like(weight), backend=backend) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_categorical_with_two_levels(backend):
    """Likelihood and draw of the logit l are those of two levels with logits 0 and l, number for number."""
    inputs = sample()
    x, logits = inputs["x"], inputs["logits"]
    pairs = torch.stack((torch.zeros_like(logits), logits), 2)
    testing.assert_matches(bernoulli_nll(x, logits, backend=backend), categorical_nll(x, pairs, backend=backend))
    settings = {"seed": 5, "first_index": 3, "temperature": 0.7, "first_element": 8, "backend": backend}
    assert torch.equal(bernoulli_sample(logits, **settings), categorical_sample(pairs, **settings))


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("logit", [0.0, 1.0, -6.0])
def test_frequencies(logit, temperature):
    """A binomial test of a million draws."""
    drawn = bernoulli_sample(torch.full((1000, 1, 50, 20), logit), 11, temperature=temperature)
    probability = float(torch.tensor(logit / temperature, dtype=torch.float64).sigmoid())
    assert scipy.stats.binomtest(int(drawn.sum()), 10**6, probability).pvalue > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_certain_logits(backend):
    """A value of probability 0 is never drawn, hot or cold."""
    for logit, expected in ((torch.inf, 1), (-torch.inf, 0), (1e30, 1), (-1e30, 0)):
        for temperature in (5e-324, 1.0, 1e9):
            drawn = bernoulli_sample(torch.full((4, 3, 16, 16), logit), 0, temperature=temperature, backend=backend)
            assert (drawn == expected).all()


def test_inverse_at_the_ends():
    """u next to 0 and 1, at what makes either impossible."""
    u = torch.tensor([0.0, 2**-24, 0.5, 1 - 2**-24], dtype=torch.float64)
    assert inverse_cdf(torch.full((4, 1), torch.inf), u).tolist() == [1, 1, 1, 1]
    assert inverse_cdf(torch.full((4, 1), -torch.inf), u).tolist() == [0, 0, 0, 0]
    assert inverse_cdf(torch.zeros(4, 1), u).tolist() == [0, 0, 1, 1]


X, Z = torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 4, 5)
BAD = [
    (X.long(), Z, TypeError, "x must have dtype torch.uint8 or torch.float32; got torch.int64"),
    (X.double(), Z, TypeError, "x must have dtype torch.uint8 or torch.float32; got torch.float64"),
    (X.tolist(), Z, TypeError, "x must be a torch.Tensor; got list"),
    (X, Z.long(), TypeError, "logits must have dtype float32, float64, bfloat16 or float16; got torch.int64"),
    (X, Z[0], ValueError, "logits must have shape [B, C, H, W]; got (3, 4, 5)"),
    (X[:1], Z, ValueError, "x must have shape [B, C, H, W] with B=2, C=3, H=4, W=5; got (1, 3, 4, 5)"),
    (X + 2, Z, ValueError, "x must lie in 0 .. 1; got 2"),
    (X - 0.5, Z, ValueError, "x must lie in [0, 1]; got -0.5"),
    (X + 1.5, Z, ValueError, "x must lie in [0, 1]; got 1.5"),
    (X * torch.nan, Z, ValueError, "x must lie in [0, 1]; got nan"),
    (X.to("meta"), Z, ValueError, "x must be on the device cpu; got meta"),
]


BAD_WEIGHTS = [
    (X[:1], ValueError, "weight must have shape (2, 3, 4, 5); got (1, 3, 4, 5)"),
    (X.long(), TypeError, "weight must have dtype torch.bool or torch.uint8 or torch.float32; got torch.int64"),
    (X + 2, ValueError, "weight must be 0 or 1 as uint8; got 2"),
    (Z - 1, ValueError, "weight must be finite and at least 0; got -1.0"),
    (Z * torch.nan, ValueError, "weight must be finite and at least 0; got nan"),
    (1.0, TypeError, "weight must be a torch.Tensor; got float"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight, error, text", BAD_WEIGHTS)
def test_bad_weights(weight, error, text, backend):
    with pytest.raises(error) as raised:
        bernoulli_nll(X, Z, weight, backend=backend)
    assert str(raised.value) == f"bernoulli_nll: {text}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("x, logits, error, text", BAD)
def test_bad_arguments(x, logits, error, text, backend):
    with pytest.raises(error) as raised:
        bernoulli_nll(x, logits, backend=backend)
    assert str(raised.value) == f"bernoulli_nll: {text}"


def test_bad_logits_of_the_sampler():
    with pytest.raises(ValueError, match=r"bernoulli_sample: logits must have shape \[B, C, H, W\]"):
        bernoulli_sample(torch.zeros(2, 3, 4), 0)


@pytest.mark.parametrize("op", ["bernoulli_nll", "bernoulli_sample"])
def test_explain(op):
    assert genfast.explain(op, X, Z).backend == "cpp" and genfast.explain(op, Z.half()).backend == "reference"
