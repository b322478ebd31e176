"""What is special to `gaussian_latent`: the distribution of its noise, its judges, clamping, half precision, errors."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch.distributions import Normal, kl_divergence

import genfast
from genfast import gaussian_latent, testing
from genfast.random.philox import normal, philox4x32

BACKENDS = ("reference", "cpp")
SEED = 2**63 + 12345


def gaussians(*shape, dtype=torch.float64, count=2, seed=0):
    """Means and log-variances in turn."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).to(dtype) for _ in range(count)]


def distribution(mean, log_variance):
    return Normal(mean, (0.5 * log_variance).exp())


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_divergence_of_torch(backend, prior):
    """Value and gradients, summed and of each latent."""
    names = ("mean", "log_variance", "prior_mean", "prior_log_variance")[: 4 if prior else 2]
    inputs = dict(zip(names, gaussians(3, 2, 5, count=4)))

    def ours(per_latent, **tensors):
        return gaussian_latent(**tensors, seed=1, per_latent=per_latent, backend=backend)[1]

    def judge(per_latent, mean, log_variance, prior_mean=None, prior_log_variance=None):
        standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
        to = standard if prior_mean is None else distribution(prior_mean, prior_log_variance)
        kl = kl_divergence(distribution(mean, log_variance), to)
        return kl if per_latent else kl.flatten(1).sum(1)

    for per_latent in (False, True):
        got, expected = (testing.evaluate(f, inputs, per_latent=per_latent) for f in (ours, judge))
        for name in expected:
            testing.assert_matches(got[name], expected[name], name=name, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("m, v, pm, pv", [(0.3, -2, -1, 1), (2, 1.5, 0, 0), (0, -6, 0.5, -5), (-1, 3, 0, 4)])
def test_is_the_integral_of_the_divergence(m, v, pm, pv, backend):
    q, p = scipy.stats.norm(m, math.exp(v / 2)), scipy.stats.norm(pm, math.exp(pv / 2))
    width = 12 * math.exp(v / 2)
    expected, _ = scipy.integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), m - width, m + width)
    tensors = (torch.tensor([[value]], dtype=torch.float64) for value in (m, v, pm, pv))
    mean, log_variance, *prior = tensors
    _, kl = gaussian_latent(mean, log_variance, 0, 0, 1, *prior, backend=backend)
    assert kl.item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_noise_is_that_of_textbook_philox(backend):
    """The integers can be read off the draws: a pair of them is a radius and an angle."""
    batch, size, samples, first_index, first_sample = 3, 22, 4, 2**40 - 1, 2**32 - 5
    zero = torch.zeros(batch, size, dtype=torch.float64)
    z, kl = gaussian_latent(zero, zero, SEED, first_index, samples, first_sample=first_sample, backend=backend)
    pairs = z.view(batch, samples, size // 2, 2)
    radius = (torch.exp(-0.5 * pairs.square().sum(-1)) * 2**24).round().long() - 1
    angle = (torch.atan2(pairs[..., 1], pairs[..., 0]) / (2 * math.pi) * 2**24).round().long() % 2**24
    image = (first_index + torch.arange(batch)).view(-1, 1, 1)
    draw, element = first_sample + torch.arange(samples).view(-1, 1), torch.arange((size + 3) // 4)
    key = SEED & 0xFFFFFFFF, SEED >> 32
    words = torch.stack(philox4x32((draw, element, image & 0xFFFFFFFF, image >> 32), key), -1) >> 8
    words = words.view(batch, samples, -1, 2)[:, :, : size // 2]
    assert torch.equal(radius, words[..., 0]) and torch.equal(angle, words[..., 1])
    assert (kl == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_million_draws_are_normal(dtype):
    """Kolmogorov-Smirnov, moments, and no correlation of neighbours, of samples or of images."""
    zero = torch.zeros(200, 50, dtype=dtype)
    z = gaussian_latent(zero, zero, 3, samples=100, backend="cpp")[0].double().numpy()
    grid = 0 if dtype != torch.bfloat16 else 2**-8
    # What was rounded to a grid is spread over its cells again.
    spread = z * (1 + grid * np.random.default_rng(0).uniform(-0.5, 0.5, z.shape)) if grid else z
    assert scipy.stats.kstest(spread.ravel()[::4] if grid else z.ravel(), "norm").pvalue > 1e-3
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        values = z**power
        assert abs(values.mean() - moment) < 4 * values.std() / 1000 + moment * grid**2, power
    z = z.reshape(200, 100, 50)
    for a, b in ((z[..., 1:], z[..., :-1]), (z[:, 1:], z[:, :-1]), (z[1:], z[:-1]), (z[..., 2:], z[..., :-2])):
        assert abs((a * b).mean()) < 4 / math.sqrt(a.size)
        assert abs((a**2 * b**2).mean() - 1) < 4 * 3 / math.sqrt(a.size)


@pytest.mark.parametrize("seed", [0, 1, SEED])
def test_draws_are_within_four_units(seed):
    """Of the reference in float64, in units of the last place of the larger of mean and deviation times noise."""
    mean, log_variance = gaussians(400, 100, dtype=torch.float32)
    log_variance = log_variance.mul(8).clamp(-30, 20)
    got = gaussian_latent(mean, log_variance, seed, samples=5, backend="cpp")[0]
    truth = gaussian_latent(mean.double(), log_variance.double(), seed, samples=5, backend="reference")[0]
    mean, deviation = (t.double().repeat_interleave(5, 0) for t in (mean, (0.5 * log_variance.double()).exp()))
    largest = torch.maximum(mean.abs(), (truth - mean).abs()).float().numpy()
    # The cosine of a quarter turn is 0, but not in float64.
    error = ((got.double() - truth).abs() - 1e-15 * deviation).numpy() / np.spacing(largest)
    assert error.max() <= 4, error.max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_split_draws_the_same(backend):
    """By image, by sample, and both: the same bits, and sample s of image i is what it is alone."""
    mean, log_variance = gaussians(6, 19, dtype=torch.float32)
    z, kl = gaussian_latent(mean, log_variance, SEED, 100, 7, first_sample=3, backend=backend)
    z = z.view(6, 7, 19)
    for images, samples in itertools.product((1, 4, 6), (1, 3, 7)):
        for i, s in itertools.product(range(0, 6, images), range(0, 7, samples)):
            part = mean[i : i + images], log_variance[i : i + images]
            count = min(samples, 7 - s)
            got, got_kl = gaussian_latent(*part, SEED, 100 + i, count, first_sample=3 + s, backend=backend)
            testing.assert_identical(got.view(-1, count, 19), z[i : i + images, s : s + count])
            testing.assert_identical(got_kl, kl[i : i + images])


@pytest.mark.parametrize("backend", BACKENDS)
def test_seed_image_and_sample_matter(backend):
    zero = torch.zeros(1, 64)
    draws = [
        gaussian_latent(zero, zero, seed, image, first_sample=sample, backend=backend)[0]
        for seed, image, sample in ((0, 0, 0), (2**32, 0, 0), (1, 0, 0), (0, 1, 0), (0, 2**32, 0), (0, 0, 1))
    ]
    for a, b in itertools.combinations(draws, 2):
        assert (a != b).all()


ENDS = [(-40.0, -30.0), (-torch.inf, -30.0), (-30.0001, -30.0), (20.5, 20.0), (1e30, 20.0), (torch.inf, 20.0)]


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_clamping(backend, dtype, prior):
    """A log-variance out of range counts as the nearer end and has gradient 0; on the end it has one."""
    outside = torch.tensor([[value for value, _ in ENDS]], dtype=dtype)
    ends = torch.tensor([[end for _, end in ENDS]], dtype=dtype)
    mean, other = gaussians(1, 6, dtype=dtype)

    def of(log_variance):
        if prior:
            kwargs = {"mean": mean, "log_variance": other, "prior_mean": mean, "prior_log_variance": log_variance}
        else:
            kwargs = {"mean": mean, "log_variance": log_variance}
        return testing.evaluate(gaussian_latent, {**kwargs, "seed": 1}, backend=backend)

    name = "grad_prior_log_variance" if prior else "grad_log_variance"
    got, expected = of(outside), of(ends)
    for key in expected.keys() - {name}:
        testing.assert_identical(got[key], expected[key], name=key)
    assert (got[name] == 0).all() and (expected[name] != 0).all()
    assert all(value.isfinite().all() for value in got.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("value", [-30.0, -20.0, 10.0, 20.0, 40.0])
def test_half_precision_neither_overflows_nor_cancels(dtype, value):
    """The divergence of wide and of narrow latents: in float16 exp(20) would be infinite, and 1 + x - 1 zero."""
    mean, log_variance = torch.full((2, 64), 3.0, dtype=dtype), torch.full((2, 64), value, dtype=dtype)
    clamped = min(value, 20.0)
    expected = 64 * 0.5 * (math.expm1(clamped) - clamped + 9)
    for backend in ["reference", "cpp"] if dtype != torch.float16 else ["reference", "auto"]:
        for per_latent in (False, True):
            _, kl = gaussian_latent(mean, log_variance, 0, per_latent=per_latent, backend=backend)
            assert kl.dtype == torch.float32
            total = kl.sum(1) if per_latent else kl
            testing.assert_matches(total, torch.full((2,), expected), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_divergence_of_what_is_nearly_the_prior(backend):
    """exp(v) - 1 - v is v^2 / 2 for a small v, where differences of floats would leave nothing."""
    for value in (1e-2, 1e-3, 3e-4):
        log_variance = torch.full((1, 1), value)
        _, kl = gaussian_latent(torch.zeros(1, 1), log_variance, 0, backend=backend)
        exact = 0.5 * (math.expm1(float(log_variance)) - float(log_variance))
        assert kl.item() == pytest.approx(exact, rel=3e-4, abs=3e-11)
        assert kl.item() >= 0


@pytest.mark.parametrize("samples", [1, 3])
def test_nothing_is_saved_but_the_inputs(samples):
    """The noise is drawn again in the backward pass."""
    mean, log_variance, *prior = (t.requires_grad_() for t in gaussians(64, 32, dtype=torch.float32, count=4))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        for priors in ([], prior):
            saved.clear()
            z, kl = gaussian_latent(mean, log_variance, 0, 0, samples, *priors, backend="cpp")
            inputs = {t.data_ptr() for t in (mean, log_variance, *prior)}
            assert {t.data_ptr() for t in saved if t.numel()} <= inputs
    (z.sum() + kl.sum()).backward()
    assert mean.grad.shape == mean.shape


@pytest.mark.parametrize("backend", BACKENDS)
def test_priors_broadcast(backend):
    mean, log_variance, prior_mean, prior_log_variance = gaussians(4, 3, 5, count=4)
    whole = testing.evaluate(
        lambda a, b: gaussian_latent(
            mean, log_variance, 0, 0, 2, a.expand(4, 3, 5), b.expand(4, 3, 5).contiguous(), backend=backend
        ),
        {"a": prior_mean[0], "b": prior_log_variance[:1, :1]},
    )
    broadcast = testing.evaluate(
        lambda a, b: gaussian_latent(mean, log_variance, 0, 0, 2, a, b, backend=backend),
        {"a": prior_mean[0], "b": prior_log_variance[:1, :1]},
    )
    for name in whole:
        testing.assert_identical(broadcast[name], whole[name], name=name)
    assert broadcast["grad_a"].shape == (3, 5) and broadcast["grad_b"].shape == (1, 1, 5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 2, 1), (0, 4), (3, 0)])
def test_shapes(shape, backend):
    mean, log_variance = gaussians(*shape)
    z, kl = gaussian_latent(mean, log_variance, 0, samples=2, backend=backend)
    assert z.shape == (2 * shape[0], *shape[1:]) and kl.shape == shape[:1] and kl.dtype == torch.float64
    assert gaussian_latent(mean, log_variance, 0, per_latent=True, backend=backend)[1].shape == shape
    flat = (t.reshape(shape[0], math.prod(shape[1:])) for t in (mean, log_variance))
    testing.assert_identical(z, gaussian_latent(*flat, 0, samples=2, backend=backend)[0].view(z.shape))


@pytest.mark.parametrize("name", ["mean", "log_variance"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_shows(backend, name):
    inputs = dict(zip(("mean", "log_variance"), gaussians(3, 9, dtype=torch.float32)))
    inputs[name][1, 4] = torch.nan
    z, kl = gaussian_latent(**inputs, seed=0, samples=2, backend=backend)
    assert kl.isnan().tolist() == [False, True, False]
    assert z.isnan().any(1).tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_the_draw_is_pathwise(backend):
    """dz/dmean = 1 and dz/dlog_variance = deviation * noise / 2, with the noise that was drawn."""
    mean, log_variance = (t.requires_grad_() for t in gaussians(5, 6))
    z, _ = gaussian_latent(mean, log_variance, 9, 4, backend=backend)
    of_mean, of_variance = torch.autograd.grad(z.sum(), (mean, log_variance))
    image = torch.arange(4, 9).view(-1, 1)
    noise = normal(9, image, torch.arange(2)).flatten(1)[:, :6]
    testing.assert_matches(of_mean, torch.ones_like(mean))
    testing.assert_matches(of_variance, 0.5 * (0.5 * log_variance).exp() * noise)


M = torch.zeros(2, 3)
BAD = [
    ({"mean": M.tolist()}, TypeError, "mean must be a torch.Tensor; got list"),
    ({"mean": M.long()}, TypeError, "mean must have dtype float32, float64, bfloat16 or float16; got torch.int64"),
    ({"log_variance": M.double()}, TypeError, "log_variance must have the dtype of mean, torch.float32; got torch.f"),
    ({"log_variance": M[:, :2]}, ValueError, "log_variance must have shape [B, ...] with B=2; got (2, 2)"),
    ({"mean": M.sum()}, ValueError, "mean must have shape [B, ...]; got ()"),
    ({"log_variance": M.to("meta")}, ValueError, "log_variance must be on the device of mean, cpu; got meta"),
    ({"seed": -1}, ValueError, "seed must lie in [0, 2**64); got -1"),
    ({"seed": 2**64}, ValueError, f"seed must lie in [0, 2**64); got {2**64}"),
    ({"seed": 1.0}, TypeError, "seed must be an int; got float"),
    ({"first_index": -1}, ValueError, "first_index must lie in [0, 2**63); got -1"),
    ({"samples": 0}, ValueError, "samples must lie in [1, 2**31); got 0"),
    ({"samples": True}, TypeError, "samples must be an int; got bool"),
    ({"first_sample": 2**32}, ValueError, f"first_sample must lie in [0, 2**32); got {2**32}"),
    ({"prior_mean": M}, ValueError, "prior_mean and prior_log_variance must be given together; got prior_mean alone"),
    ({"prior_mean": M[:, :2], "prior_log_variance": M}, ValueError, "prior_mean must broadcast to (2, 3); got (2, 2)"),
    ({"prior_mean": M, "prior_log_variance": M.half()}, TypeError, "prior_log_variance must have the dtype of mean, "),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("changed, error, text", BAD, ids=[text for *_, text in BAD])
def test_bad_arguments(changed, error, text, backend):
    with pytest.raises(error) as raised:
        gaussian_latent(**{"mean": M, "log_variance": M, "seed": 0, **changed}, backend=backend)
    assert str(raised.value).startswith(f"gaussian_latent: {text}")


def test_explain():
    assert genfast.explain("gaussian_latent", M, M).backend == "cpp"
    assert genfast.explain(gaussian_latent, M.half(), M.half()).backend == "reference"
