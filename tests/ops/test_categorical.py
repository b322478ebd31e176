"""What is special to `categorical`: its judges, layouts in place, -inf and huge logits, frequencies, and its errors."""

from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional as F

import genfast
from genfast import categorical_nll, categorical_sample, testing
from genfast.random import inverse_cdf, uniform
from genfast.reference import SPECS

BACKENDS = ("reference", "cpp")
SHAPES = SPECS["categorical_nll"].shapes


def sample(sizes=None, dtype=torch.float64, **changed):
    sizes = sizes or {"B": 3, "C": 3, "L": 33, "H": 4, "W": 5}
    return SPECS["categorical_nll"].inputs({**sizes, **changed}, dtype=dtype)


def levels_last(logits):
    """The same values as a convolution in channels_last leaves them: [B, H, W, C, L] in memory."""
    return logits.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, levels_last])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_cross_entropy(backend, layout):
    inputs = sample()
    inputs["logits"] = layout(inputs["logits"])

    def judge(x, logits):
        return F.cross_entropy(logits.transpose(1, 2), x.long(), reduction="none").sum((1, 2, 3))

    got, expected = testing.evaluate(categorical_nll, inputs, backend=backend), testing.evaluate(judge, inputs)
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_levels_last_gives_the_same(shape, dtype):
    """One order of summation over the levels in both layouts: gradients have the same bits; and their memory is that of
    the logits."""
    inputs = sample(SHAPES[shape], dtype)
    expected = testing.evaluate(categorical_nll, inputs, backend="cpp")
    logits = levels_last(inputs["logits"]).requires_grad_()
    nll = categorical_nll(inputs["x"], logits, backend="cpp")
    testing.assert_matches(nll, expected["output"])
    incoming = torch.randn(nll.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (grad,) = torch.autograd.grad(nll, logits, incoming.to(nll.dtype))
    testing.assert_identical(grad, expected["grad_logits"])
    assert grad.permute(0, 3, 4, 1, 2).is_contiguous()


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, levels_last])
def test_logits_are_read_in_place(layout):
    """No copy: what is allocated for forward and backward is the gradient, and nothing else of that size."""
    inputs = sample(B=4, C=3, L=64, H=8, W=8, dtype=torch.float32)
    logits = layout(inputs["logits"]).requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        categorical_nll(inputs["x"], logits, backend="cpp").sum().backward()
    large = [
        event
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.nbytes() >= logits.numel() * 4
    ]
    assert len(large) == 1


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, levels_last])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("levels", [4, 32])
def test_impossible_levels(backend, layout, levels):
    """A logit of -inf is a level of probability 0: as if it were not there, until it occurs."""
    inputs = sample(L=levels)
    x, logits = inputs["x"] // 2 * 2, inputs["logits"].clone()
    logits[:, :, 1::2] = -torch.inf
    got = testing.evaluate(categorical_nll, {"x": x, "logits": layout(logits)}, backend=backend)
    expected = testing.evaluate(categorical_nll, {"x": x // 2, "logits": logits[:, :, ::2]}, backend="reference")
    testing.assert_matches(got["output"], expected["output"])
    testing.assert_matches(got["grad_logits"][:, :, ::2], expected["grad_logits"])
    assert (got["grad_logits"][:, :, 1::2] == 0).all()
    x[1, 2, 3, 4] = 1
    nll = categorical_nll(x, layout(logits), backend=backend)
    assert nll[1] == torch.inf and nll[0].isfinite() and nll[2].isfinite()


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, levels_last])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset, scale", [(3e4, 1.0), (-3e4, 1.0), (0.0, 1e30)])
def test_any_scale(backend, layout, offset, scale):
    """float32 logits with a large common offset, and so far apart that one level has everything."""
    inputs = sample(dtype=torch.float32)
    logits = layout(inputs["logits"] * scale + offset)
    got = testing.evaluate(categorical_nll, {**inputs, "logits": logits}, backend=backend)
    expected = testing.evaluate(categorical_nll, {**inputs, "logits": logits.double()}, backend="reference")
    for name in expected:
        testing.assert_matches(got[name], expected[name], name=name)


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, levels_last])
@pytest.mark.parametrize("levels", [4, 32])
def test_nan_shows(layout, levels):
    inputs = sample(L=levels)
    inputs["logits"][1, 0, 2, 3, 3] = torch.nan
    nll = categorical_nll(inputs["x"], layout(inputs["logits"]), backend="cpp")
    assert nll.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("first", [False, True])
def test_raw_op_reads_no_level_out_of_range(first):
    """Where levels are not checked, in a compiled graph, a wrong one is NaN and no wild read."""
    x, logits = torch.tensor([[[0, 255]], [[1, 2]]], dtype=torch.uint8), torch.randn(2, 1, 3, 2)
    if first:
        x, logits = x.transpose(1, 2).flatten(1), logits.transpose(2, 3).flatten(1, 2)
    nll = torch.ops.genfast.categorical_nll_forward(x, logits, 1, False)
    assert nll.isnan().tolist() == [True, False]
    grad = torch.ops.genfast.categorical_nll_backward(torch.ones(2), x, logits, 1)
    assert grad[0].isnan().any() and grad[1].isfinite().all()


LOGITS = {
    "spread": torch.linspace(-3, 2, 8),
    "peaked": torch.tensor([0.0, 12.0, 0.0, 11.0, 3.0]),
    "with impossible ones": torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, 0.3, -torch.inf]),
    "huge": torch.tensor([1e30, 1e30, -1e30, 1e30]),
}


@pytest.mark.parametrize("temperature", [1.0, 0.6, 3.0])
@pytest.mark.parametrize("name", LOGITS)
def test_frequencies(name, temperature):
    """Chi-square of a million draws against the softmax; a level of probability 0 is never drawn."""
    logits = LOGITS[name]
    drawn = categorical_sample(logits.view(1, 1, -1, 1, 1).expand(1000, 1, -1, 50, 20), 3, temperature=temperature)
    counts = np.bincount(drawn.flatten().numpy(), minlength=len(logits))
    probability = ((logits.double() - logits.max()) / temperature).softmax(0).numpy()
    assert len(counts) == len(logits) and (counts[probability == 0] == 0).all()
    kept = probability > 1e-4
    expected = np.append(probability[kept], probability[~kept].sum()) * 1e6
    observed = np.append(counts[kept], counts[~kept].sum())
    if expected[-1] == 0:
        expected, observed = expected[:-1], observed[:-1]
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


def test_same_number_as_the_model_of_the_levels():
    """By hand: the level is where the distribution function passes the u of its place."""
    logits = torch.randn(2, 3, 7, 4, 5, dtype=torch.float64)
    cdf = logits.softmax(2).cumsum(2).numpy()
    got = categorical_sample(logits, seed=9, first_index=4, backend="cpp").numpy()
    for b, c, h, w in np.ndindex(got.shape):
        u = uniform(9, 4 + b, (h * 5 + w) * 3 + c)
        assert got[b, c, h, w] == np.searchsorted(cdf[b, c, :, h, w], u, side="right")


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256])
def test_inverse_at_the_ends(levels):
    """u next to 0 and 1: never a level of probability 0, never one out of range."""
    u = torch.tensor([0.0, 2**-24, 0.5, 1 - 2**-24], dtype=torch.float64)
    for logits in (torch.zeros(levels), torch.randn(levels), torch.randn(levels) * 1e4, torch.arange(levels) * -1e3):
        logits = logits.float()
        assert int(inverse_cdf(logits.expand(4, -1), u).max()) < levels
        logits[0] = logits[-1] = -torch.inf
        if levels > 2:
            drawn = inverse_cdf(logits.expand(4, -1), u)
            assert drawn.min() > 0 and drawn.max() < levels - 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_place_with_u_next_to_one(backend):
    """The largest number there is, 1 - 2^-24, and the smallest, 0, found by their places: the ends of the levels."""
    pixels = torch.zeros(1, 1, 256, 1, 1)
    places = {u: find(u) for u in (0.0, 1 - 2**-24)}
    for u, expected in ((0.0, 0), (1 - 2**-24, 255)):
        image, element = places[u]
        assert uniform(0, image, element) == u
        settings = {"seed": 0, "first_index": image, "first_element": element, "backend": backend}
        assert categorical_sample(pixels, **settings).item() == expected
        ends = pixels.clone()
        ends[:, :, [0, 255]] = -torch.inf
        assert categorical_sample(ends, **settings).item() == (1 if u == 0 else 254)


@cache
def find(u, images=64, elements=2**20):
    for image in range(images):
        places = np.flatnonzero(uniform(0, image, np.arange(elements)) == u)
        if len(places):
            return image, int(places[0])
    raise AssertionError(f"no place draws {u}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_temperature(backend):
    """A cold sampler takes the likeliest level, at any coldness; equal logits stay equal."""
    logits = torch.randn(2, 3, 9, 4, 4)
    for temperature in (1e-3, 1e-30, 1e-300, 5e-324):
        drawn = categorical_sample(logits, 0, temperature=temperature, backend=backend)
        assert torch.equal(drawn.long(), logits.argmax(2))
    ties = categorical_sample(torch.zeros(1, 1, 2, 64, 64), 0, temperature=5e-324, backend=backend)
    assert 1800 < int(ties.sum()) < 2300


X, Z = torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 7, 4, 5)
BAD = [
    (X.long(), Z, TypeError, "x must have dtype torch.uint8; got torch.int64"),
    (X.numpy(), Z, TypeError, "x must be a torch.Tensor; got ndarray"),
    (X, Z.long(), TypeError, "logits must have dtype float32, float64, bfloat16 or float16; got torch.int64"),
    (X, Z[0], ValueError, "logits must have shape [B, C, L, H, W] with L in 2 .. 256; got (3, 7, 4, 5)"),
    (X, Z[:, :, :1], ValueError, "logits must have shape [B, C, L, H, W] with L in 2 .. 256; got (2, 3, 1, 4, 5)"),
    (X, torch.zeros(1, 1, 257, 1, 1), ValueError, "with L in 2 .. 256; got (1, 1, 257, 1, 1)"),
    (X[:1], Z, ValueError, "x must have shape [B, C, H, W] with B=2, C=3, H=4, W=5; got (1, 3, 4, 5)"),
    (X + 7, Z, ValueError, "x must lie in 0 .. 6; got 7"),
    (X.to("meta"), Z, ValueError, "x must be on the device cpu; got meta"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("x, logits, error, text", BAD)
def test_bad_arguments(x, logits, error, text, backend):
    with pytest.raises(error) as raised:
        categorical_nll(x, logits, backend=backend)
    assert str(raised.value).startswith("categorical_nll: ") and str(raised.value).endswith(text)


def test_bad_logits_of_the_sampler():
    with pytest.raises(ValueError, match=r"categorical_sample: logits must have shape \[B, C, L, H, W\] with L in 2"):
        categorical_sample(torch.zeros(2, 3, 4, 5), 0)
    with pytest.raises(RuntimeError, match="categorical_sample: backend must be able to serve float16"):
        categorical_sample(Z.half(), 0, backend="cpp")


@pytest.mark.parametrize("op", ["categorical_nll", "categorical_sample"])
def test_explain(op):
    assert genfast.explain(op, X, Z).backend == "cpp" and genfast.explain(op, Z.half()).backend == "reference"
