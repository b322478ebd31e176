"""What is special to the discretised mixture of logistics: independent judges, extremes, draws, errors."""

import itertools
import re
from unittest import mock

import mpmath
import pytest
import torch
from hypothesis import given, settings, strategies
from scipy import integrate, stats

from genfast import logistic_mixture_nll, logistic_mixture_sample, testing
from genfast._native.layout import channels_innermost, in_place_or_copy
from genfast.reference import SPECS, logistic_mixture

BACKENDS = ("reference", "cpp")
on_backends = pytest.mark.parametrize("backend", BACKENDS)
DTYPES = (torch.float32, torch.float64)


def every_level(levels, channels):
    """All images of one pixel, uint8 [L^C, C, 1, 1]."""
    values = list(itertools.product(range(levels), repeat=channels))
    return torch.tensor(values, dtype=torch.uint8)[:, :, None, None]


def probabilities(params, levels, channels, backend):
    """Of every image of one pixel, from params [P]."""
    x = every_level(levels, channels)
    params = params[None, :, None, None].expand(len(x), -1, 1, 1)
    return logistic_mixture_nll(x, params, levels, backend=backend).double().neg().exp()


def random_params(size, channels, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    count = size * (3 if channels == 1 else 10)
    return torch.randn(count, generator=generator, dtype=torch.float64) * scale


@on_backends
@pytest.mark.parametrize("levels", [2, 3, 16])
def test_grey_is_the_integral_of_the_density(levels, backend):
    """Numeric integration of the mixture's density over each bin; the edge bins reach to infinity."""
    weights, means, log_scales = params = random_params(3, 1).view(3, 3)
    weights = weights.softmax(0).tolist()

    def density(y):
        terms = zip(weights, means.tolist(), log_scales.exp().tolist())
        return sum(w * stats.logistic.pdf(y, m, s) for w, m, s in terms)

    edges = [-torch.inf, *((2 * v - levels) / (levels - 1) for v in range(1, levels)), torch.inf]
    expected = [integrate.quad(density, a, b, epsabs=1e-13)[0] for a, b in itertools.pairwise(edges)]
    got = probabilities(params.flatten(), levels, 1, backend)
    testing.assert_matches(got, torch.tensor(expected, dtype=torch.float64), atol=1e-11)


@on_backends
@pytest.mark.parametrize("levels", [2, 4])
def test_colour_is_a_product_of_shifted_logistics(levels, backend):
    """The means of G and B move with the true values of the channels before them."""
    params = random_params(2, 3)
    weights, rest = params[:2].softmax(0), params[2:].view(3, 3, 2)
    means, scales, (a, b, c) = rest[0], rest[1].exp(), rest[2].tanh()
    expected = []
    for r, g, blue in itertools.product(range(levels), repeat=3):
        red, green = (2 * v / (levels - 1) - 1 for v in (r, g))
        centres = torch.stack((means[0], means[1] + a * red, means[2] + b * red + c * green))
        mass = weights.clone()
        for v, centre, scale in zip((r, g, blue), centres, scales):
            y, h = 2 * v / (levels - 1) - 1, 1 / (levels - 1)
            upper = stats.logistic.cdf((y + h - centre) / scale) if v < levels - 1 else 1.0
            lower = stats.logistic.cdf((y - h - centre) / scale) if v > 0 else 0.0
            mass *= torch.as_tensor(upper - lower)
        expected.append(mass.sum())
    testing.assert_matches(probabilities(params, levels, 3, backend), torch.stack(expected), atol=1e-14)


@on_backends
def test_two_levels_are_a_bernoulli(backend):
    weights, means, log_scales = random_params(3, 1).view(3, 3)
    one = (weights.softmax(0) * torch.sigmoid(means / log_scales.exp())).sum()
    got = probabilities(torch.cat((weights, means, log_scales)), 2, 1, backend)
    testing.assert_matches(got, torch.stack((1 - one, one)))


@on_backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_to_one_for_any_parameters(dtype, backend):
    for seed, (channels, levels) in enumerate(itertools.product((1, 3), (2, 3, 4, 255, 256))):
        if channels == 3 and levels > 4:
            continue
        for scale in (0.1, 1, 5, 30, 1000):
            params = random_params(1 + seed % 3, channels, seed, scale).to(dtype)
            total = probabilities(params, levels, channels, backend).sum().item()
            assert abs(total - 1) < 1e-6, (channels, levels, scale, total)


@on_backends
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(levels=strategies.integers(2, 256), mean=strategies.floats(-3, 3), log_scale=strategies.floats(-9, 60))
def test_sums_to_one_at_any_scale(backend, levels, mean, log_scale):
    """From a thousandth of a bin to far wider than the range, a mean on an edge of a bin or off it."""
    for mu in (mean, round(mean * (levels - 1)) / (levels - 1)):
        params = torch.tensor([0.0, mu, log_scale], dtype=torch.float32)
        assert abs(probabilities(params, levels, 1, backend).sum().item() - 1) < 1e-6


@on_backends
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 3.0, 12.0, 35.0])
def test_mass_of_a_bin_in_many_digits(log_scale, backend):
    """Where the difference of two sigmoids has no digit left, and where the tail is beyond float64's range of exp."""
    with mpmath.workdps(2000):
        for level, mean in itertools.product((0, 1, 100, 254, 255), (-2.5, -1.0, 0.1, 1.5)):
            y, half, scale = mpmath.mpf(2 * level) / 255 - 1, mpmath.mpf(1) / 255, mpmath.exp(log_scale)
            upper, lower = ((y + sign * half - mpmath.mpf(mean)) / scale for sign in (1, -1))
            mass = 1 / (1 + mpmath.exp(-upper)) if level < 255 else mpmath.mpf(1)
            mass -= 1 / (1 + mpmath.exp(-lower)) if level > 0 else 0
            params = torch.tensor([0.0, mean, log_scale], dtype=torch.float64)[None, :, None, None]
            x = torch.tensor([level], dtype=torch.uint8)[:, None, None, None]
            got = logistic_mixture_nll(x, params, 256, backend=backend)
            testing.assert_matches(got, torch.tensor([float(-mpmath.log(mass))], dtype=torch.float64))


@on_backends
@pytest.mark.parametrize("magnitude", [1e2, 1e5, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("levels", [2, 256])
def test_finite_for_any_finite_parameters(levels, magnitude, backend):
    inputs = SPECS["logistic_mixture_nll"].inputs({"B": 40, "C": 3, "K": 3, "L": levels, "H": 2, "W": 2})
    generator = torch.Generator().manual_seed(0)
    inputs["params"] = torch.randn(inputs["params"].shape, generator=generator) * magnitude
    for name, value in testing.evaluate(logistic_mixture_nll, inputs, backend=backend).items():
        assert value.isfinite().all(), name


@on_backends
def test_gradient_stops_where_the_scale_is_clamped(backend):
    x = torch.tensor([130], dtype=torch.uint8)[:, None, None, None]

    def at(log_scale):
        params = torch.tensor([0.0, 0.03, log_scale], dtype=torch.float64)[None, :, None, None].requires_grad_()
        nll = logistic_mixture_nll(x, params, 256, backend=backend)
        return nll.item(), torch.autograd.grad(nll, params)[0].flatten()[2].item()

    below, clamped, above = at(-7.5), at(-7.0), at(-7 + 1e-6)
    assert below[0] == clamped[0] and below[1] == 0
    assert abs((above[0] - clamped[0]) / 1e-6 - above[1]) < 1e-3 * abs(above[1]) and above[1] != 0


@on_backends
def test_nan_does_not_pass(backend):
    inputs = SPECS["logistic_mixture_nll"].inputs({"B": 2, "C": 3, "K": 2, "L": 5, "H": 2, "W": 2})
    for row in range(20):
        params = inputs["params"].clone()
        params[0, row, 1, 1] = torch.nan
        nll = logistic_mixture_nll(inputs["x"], params, 5, backend=backend)
        assert nll[0].isnan() and nll[1].isfinite(), row


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_read_in_place(channels, dtype):
    sizes = {"B": 2, "C": channels, "K": 4, "L": 256, "H": 17, "W": 19}
    inputs = SPECS["logistic_mixture_nll"].inputs(sizes, dtype=dtype)
    expected = testing.evaluate(logistic_mixture_nll, inputs, backend="cpp")
    innermost = testing.each_tensor(testing.channels_last, inputs)
    assert channels_innermost(innermost["params"]) and in_place_or_copy(innermost["params"]) is innermost["params"]
    got = testing.evaluate(logistic_mixture_nll, innermost, backend="cpp")
    assert got["grad_params"].stride() == innermost["params"].stride()
    for name in expected:
        testing.assert_identical(got[name], expected[name], name=name)


def test_saves_nothing_but_its_arguments():
    inputs = SPECS["logistic_mixture_nll"].inputs({"B": 4, "C": 3, "K": 5, "L": 256, "H": 9, "W": 8})
    saved = {}

    def pack(tensor):
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logistic_mixture_nll(inputs["x"], inputs["params"].requires_grad_(), 256, backend="cpp")
    assert 0 < sum(saved.values()) <= 1.1 * (inputs["params"].numel() * 4 + inputs["x"].numel())


@on_backends
@pytest.mark.parametrize("levels, channels", [(2, 1), (16, 1), (256, 1), (3, 3)])
def test_draws_have_the_probabilities_of_the_likelihood(levels, channels, backend):
    """Chi-square of 200 000 draws; levels that are expected less than five times are taken together."""
    size, side = 3, 100
    params = random_params(size, channels, seed=levels) * 0.5
    params[(1 + channels) * size : (1 + 2 * channels) * size] -= 1
    image = params[None, :, None, None].expand(20, -1, side, side)
    draw = logistic_mixture_sample(image, levels, seed=4, channels=channels, backend=backend)
    codes = sum(draw[:, c].long() * levels ** (channels - 1 - c) for c in range(channels)).flatten()
    expected = probabilities(params, levels, channels, backend) * codes.numel()
    counted = torch.bincount(codes, minlength=levels**channels).double()
    rare = expected < 5
    cells = [torch.cat((n[~rare], n[rare].sum()[None])) for n in (counted, expected)]
    cells = [n[:-1] if cells[1][-1] < 1e-3 else n for n in cells]
    chi2 = ((cells[0] - cells[1]) ** 2 / cells[1]).sum().item()
    assert stats.chi2.sf(chi2, len(cells[0]) - 1) > 1e-3, chi2


def test_draws_at_the_ends_of_the_unit_interval():
    """A number 0 or next to 1 gives a level, also where the scale is very wide: the tails belong to the edges."""
    params = torch.tensor([0.3, -0.2, 0.1, 0.5, 9.0, 9.0], dtype=torch.float64)[None, :, None, None]
    for u, level in ((0.0, 0), (1 - 2**-24, 255)):
        with mock.patch.object(logistic_mixture, "uniform", lambda *_, u=u: torch.full((1, 1, 1, 1), u).double()):
            assert logistic_mixture_sample(params, 256, seed=0, channels=1, backend="reference").item() == level


@on_backends
@pytest.mark.parametrize("channels", [1, 3])
def test_one_pixel_at_a_time(channels, backend):
    params = SPECS["logistic_mixture_nll"].inputs({"B": 3, "C": channels, "K": 2, "L": 16, "H": 4, "W": 5})["params"]
    whole = logistic_mixture_sample(params, 16, 7, first_index=2, channels=channels, backend=backend)
    for i, j in itertools.product(range(4), range(5)):
        settings = {"first_element": (5 * i + j) * channels, "channels": channels, "backend": backend}
        pixel = logistic_mixture_sample(params[:, :, i : i + 1, j : j + 1], 16, 7, first_index=2, **settings)
        assert torch.equal(pixel, whole[:, :, i : i + 1, j : j + 1]), (i, j)


@on_backends
def test_cold_draws_are_the_mode(backend):
    params = torch.tensor([0.0, 5.0, -0.5, 0.6, -1.0, -1.0], dtype=torch.float64)[None, :, None, None]
    draw = logistic_mixture_sample(params.expand(50, -1, 4, 4), 256, 0, temperature=1e-6, channels=1, backend=backend)
    assert (draw == 204).all()  # 0.6 is position 153 of -255 to 255


def shaped(*shape, **options):
    return torch.zeros(*shape, **options)


GOOD = {"x": shaped(2, 3, 4, 5, dtype=torch.uint8), "params": shaped(2, 20, 4, 5), "levels": 16}
BAD = {
    "x must have dtype torch.uint8; got torch.float32": {"x": shaped(2, 3, 4, 5)},
    "x must be a torch.Tensor; got NoneType": {"x": None},
    "x must have shape [B, C, H, W] with B=2, C=1 or 3, H=4, W=5; got (2, 2, 4, 5)": {"x": GOOD["x"][:, :2]},
    "x must have shape [B, C, H, W] with B=2, C=1 or 3, H=4, W=5; got (1, 3, 4, 5)": {"x": GOOD["x"][:1]},
    "x must lie in 0 .. 15; got 16": {"x": GOOD["x"] + 16},
    "params must have shape [B, P, H, W]; got (2, 20, 4)": {"params": shaped(2, 20, 4)},
    "params must have shape [B, P, H, W] with P=10K with K>=1 for C=3; got (2, 21, 4, 5)": {
        "params": shaped(2, 21, 4, 5)
    },
    "params must have shape [B, P, H, W] with P=3K with K>=1 for C=1; got (2, 20, 4, 5)": {"x": GOOD["x"][:, :1]},
    "params must have shape [B, P, H, W] with P=10K with K>=1 for C=3; got (2, 0, 4, 5)": {
        "params": shaped(2, 0, 4, 5)
    },
    "params must have dtype float32, float64, bfloat16 or float16; got torch.int64": {
        "params": shaped(2, 20, 4, 5, dtype=torch.int64)
    },
    "levels must be an int; got float": {"levels": 16.0},
    "levels must lie in 2 to 256; got 257": {"levels": 257},
    "levels must lie in 2 to 256; got 1": {"levels": 1},
}
SAMPLE = {"params": shaped(2, 20, 4, 5), "levels": 16, "seed": 0}
BAD_SAMPLE = {
    "params must have shape [B, P, H, W] with P=3K or 10K, and not both unless channels is given, with K>=1; "
    "got (2, 30, 4, 5)": {"params": shaped(2, 30, 4, 5)},
    "params must have shape [B, P, H, W] with P=3K with K>=1; got (2, 20, 4, 5)": {"channels": 1},
    "channels must be 1 or 3; got 2": {"channels": 2},
    "levels must lie in 2 to 256; got 300": {"levels": 300},
    "seed must lie in [0, 2**64); got -1": {"seed": -1},
    "temperature must be positive and finite; got 0": {"temperature": 0},
    "first_index must lie in [0, 2**63); got -1": {"first_index": -1},
}


@pytest.mark.parametrize("backend", ["auto", "reference", "cpp", "triton"])
@pytest.mark.parametrize("message", BAD)
def test_bad_input(message, backend):
    kind = TypeError if re.search("dtype|torch.Tensor|an int", message) else ValueError
    with pytest.raises(kind) as error:
        logistic_mixture_nll(**{**GOOD, **BAD[message]}, backend=backend)
    assert str(error.value) == f"logistic_mixture_nll: {message}"


@pytest.mark.parametrize("backend", ["auto", "reference", "cpp", "triton"])
@pytest.mark.parametrize("message", BAD_SAMPLE)
def test_bad_settings_of_a_draw(message, backend):
    with pytest.raises(ValueError) as error:
        logistic_mixture_sample(**{**SAMPLE, **BAD_SAMPLE[message]}, backend=backend)
    assert str(error.value) == f"logistic_mixture_sample: {message}"
