"""Denoising: the exact posterior, estimates from it, and the noise itself."""

import math

import pytest
import torch
from scipy import stats
from support.sampled import BACKENDS, TINY, chi_square, every_image, exact, label_of, tiny

import genfast
from genfast import metrics
from genfast.models import build
from genfast.tasks.chains.pixels import KINDS

COUNTS = {"full_forward": 400, "torch": 400, "cpp": 3000}
NOISES = [genfast.BitFlipNoise(0.3), genfast.GaussianNoise(0.5)]
MATRIX = [(name, BACKENDS[-1]) for name in TINY] + [("pixelcnn colour", backend) for backend in BACKENDS[:-1]]


def noisy_image(model, noise):
    """A noisy image, the likeliest one upside down: what is seen and what the model expects differ."""
    every = every_image(model)
    return noise.corrupt((model.config.levels - 1 - every[exact(model).argmax()])[None], model.config.levels, seed=4)


def posterior(model, noise, noisy):
    every = every_image(model)
    log_likelihood = noise.log_likelihood(noisy, model.config.levels).expand(len(every), -1, -1, -1, -1)
    seen = log_likelihood.gather(-1, every[..., None].long()).flatten(1).sum(1)
    p = exact(model) * seen.double().exp()
    return p / p.sum()


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("name, backend", MATRIX)
def test_the_exact_posterior(name, backend, noise):
    model, n = tiny(name), COUNTS[backend]
    noisy = noisy_image(model, noise)
    # A mixture proposes from the prior, which takes longer to forget the noisy image that it begins with.
    steps = 100 if name == "pixelcnn++" else 40
    options = {"labels": label_of(model), "seed": 8, "backend": backend}
    denoised = genfast.denoise(model, noisy.expand(n, -1, -1, -1), noise, steps=steps, **options)
    assert torch.equal(denoised.images, denoised.samples[0]) and len(denoised.samples) == 1
    assert set(denoised.acceptance) == set(KINDS) and all(0.02 < rate < 1 for rate in denoised.acceptance.values())
    assert chi_square(denoised.images, posterior(model, noise, noisy), model.config.levels) > 1e-4
    assert chi_square(denoised.images, exact(model), model.config.levels) < 1e-9, "the prior would do as well"


def test_a_draw_that_sees_the_past_alone_is_not_the_posterior():
    model, noise = tiny("pixelcnn colour"), NOISES[0]
    noisy = noisy_image(model, noise)
    denoised = genfast.denoise(model, noisy.expand(6000, -1, -1, -1), noise, steps=0)
    assert chi_square(denoised.images, posterior(model, noise, noisy), 3) < 1e-9


@pytest.mark.parametrize("name", ["pixelcnn colour", "pixelcnn++"])
def test_mean_and_map_are_those_of_the_posterior(name):
    model, noise, levels = tiny(name), genfast.GaussianNoise(0.4), 3
    noisy = noisy_image(model, noise)
    p, every = posterior(model, noise, noisy), every_image(model)
    one_hot = torch.nn.functional.one_hot(every.long(), levels).double()
    marginals = (p.view(-1, 1, 1, 1, 1) * one_hot).sum(0)
    mean = (marginals * torch.arange(levels)).sum(-1)
    options = {"samples": 3, "steps": 250, "seed": 1}
    results = {m: genfast.denoise(model, noisy, noise, method=m, **options) for m in ("sample", "mean", "map")}
    top = marginals.topk(2, -1)
    clear = top.values[..., 0] - top.values[..., 1] > 0.15
    assert clear.any() and torch.equal(results["map"].images[0][clear].long(), top.indices[..., 0][clear])
    clear = (mean - mean.floor() - 0.5).abs() > 0.12
    assert clear.any() and torch.equal(results["mean"].images[0][clear].long(), mean.round()[clear].long())
    assert all(torch.equal(other.samples, results["sample"].samples) for other in results.values())
    assert (
        results["map"].samples.shape == (3, 1, *every.shape[1:])
        and results["sample"].acceptance == results["map"].acceptance
    )


def test_an_image_depends_on_its_number_alone():
    for name in ("pixelcnn colour", "pixelcnn++"):
        model, noise = tiny(name), genfast.BitFlipNoise(0.2)
        noisy = noise.corrupt(genfast.sample(model, 20, seed=3), 3, seed=5)
        options = {"steps": 6, "samples": 2, "seed": 2**64 - 1, "method": "mean"}
        whole = genfast.denoise(model, noisy, noise, first=7, **options)
        for size in (1, 13):
            parts = genfast.denoise(model, noisy, noise, first=7, batch_size=size, **options)
            assert torch.equal(parts.images, whole.images) and torch.equal(parts.samples, whole.samples)
        halves = [genfast.denoise(model, noisy[at : at + 10], noise, first=7 + at, **options).images for at in (0, 10)]
        assert torch.equal(torch.cat(halves), whole.images)


def test_denoising_brings_images_closer_to_the_truth():
    """With a model of stripes, which knows what a noisy value must have been."""
    torch.manual_seed(0)
    model = build("pixelcnn", height=6, width=6, levels=4, hidden=6, layers=1, head=8)
    truth = torch.arange(36).view(1, 1, 6, 6).remainder(6).div(2, rounding_mode="floor").to(torch.uint8)
    truth = torch.cat((truth, truth.mT, 2 - truth, 3 - truth)).repeat(4, 1, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (-model.log_prob(truth[:4]).mean()).backward()
        optimizer.step()
    for noise, low in ((genfast.BitFlipNoise(0.15), 3), (genfast.GaussianNoise(0.3), 3)):
        noisy = noise.corrupt(truth, 4, seed=1)
        before = metrics.psnr(noise.picture(noisy, 4) * 3, truth, 4)
        for method in ("sample", "mean", "map"):
            denoised = genfast.denoise(model, noisy, noise, method=method, steps=60)
            assert metrics.psnr(denoised.images, truth, 4) > before + low


def test_bit_flips():
    images = torch.randint(5, (60, 2, 9, 11), dtype=torch.uint8)
    noise = genfast.BitFlipNoise(0.3)
    noisy = noise.corrupt(images, 5, seed=2, first=3)
    assert noisy.dtype == torch.uint8 and noisy.max() == 4
    assert torch.equal(noise.corrupt(images[10:], 5, seed=2, first=13), noisy[10:])
    shifts = ((noisy.int() - images.int()) % 5).flatten().bincount(minlength=5)
    expected = torch.tensor([0.7, *[0.075] * 4], dtype=torch.float64) * images.numel()
    assert stats.chisquare(shifts.double(), expected).pvalue > 1e-4
    ll = noise.log_likelihood(noisy, 5)
    assert ll.shape == (60, 2, 9, 11, 5) and ll.dtype == torch.float32
    same = ll.gather(-1, noisy[..., None].long())
    torch.testing.assert_close(same, torch.full_like(same, math.log(0.7)))
    torch.testing.assert_close(ll.exp().sum(-1), torch.ones(60, 2, 9, 11))


def test_gaussian_noise():
    images = torch.randint(5, (60, 2, 9, 11), dtype=torch.uint8)
    noise = genfast.GaussianNoise(0.2)
    noisy = noise.corrupt(images, 5, seed=2)
    assert noisy.dtype == torch.float32
    residual = (noisy - images / 4).flatten() / 0.2
    assert stats.kstest(residual.numpy(), "norm").pvalue > 1e-4
    log_likelihood = noise.log_likelihood(noisy[:3], 5)
    expected = stats.norm(torch.arange(5).numpy() / 4, 0.2).logpdf(noisy[:3, ..., None].double().numpy())
    torch.testing.assert_close(log_likelihood.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_psnr():
    truth = torch.tensor([[0, 10, 20, 255]], dtype=torch.uint8).view(1, 1, 2, 2)
    assert metrics.psnr(truth, truth, 256) == math.inf
    assert metrics.psnr(truth.float() + 2, truth, 256) == pytest.approx(20 * math.log10(255 / 2))
    assert metrics.psnr(torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1, dtype=torch.uint8), 2) == 0
    for images in (truth[:0], truth[..., :1]):
        with pytest.raises(ValueError, match="^psnr: images must have the shape of truth, not empty"):
            metrics.psnr(images, truth[: len(images)], 256)


def test_no_images_no_steps_and_progress():
    model, noise, ticks = tiny("pixelrnn"), genfast.BitFlipNoise(0.2), []
    none = genfast.denoise(model, torch.zeros(0, 1, 2, 2, dtype=torch.uint8), noise, samples=2)
    assert none.images.shape == (0, 1, 2, 2) and none.samples.shape == (2, 0, 1, 2, 2) and none.acceptance == {}
    noisy = torch.ones(6, 1, 2, 2, dtype=torch.uint8)
    for method in ("sample", "mean", "map"):
        denoised = genfast.denoise(model, noisy, noise, method=method, samples=1, steps=0)
        assert torch.equal(denoised.images, denoised.samples[0]) and denoised.acceptance == {}
    genfast.denoise(model, noisy, noise, steps=5, samples=2, batch_size=3, progress=ticks.append)
    assert ticks == [1] * 20


LEVELS = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"method": "best"}, ValueError, "^denoise: method must be one of sample, mean, map; got 'best'"),
        ({"steps": -1}, ValueError, "^denoise: steps must lie in 0"),
        ({"samples": 0}, ValueError, r"^denoise: samples must lie in 1 \.\. 64; got 0"),
        ({"noisy": LEVELS[0]}, ValueError, r"^denoise: noisy must have shape .* got \(1, 2, 2\)"),
        ({"noisy": [0]}, ValueError, "^denoise: noisy must have shape .* got list"),
        ({"noisy": LEVELS + 3}, ValueError, r"^BitFlipNoise: images must lie in 0\.\.2; got 3"),
        ({"noisy": LEVELS.float()}, TypeError, "^BitFlipNoise: images must hold levels as integers; got torch.float32"),
        (
            {"noise_model": genfast.GaussianNoise(1)},
            TypeError,
            r"^GaussianNoise: noisy must be a float tensor .* got torch\.uint8",
        ),
        (
            {"noise_model": genfast.GaussianNoise(1), "noisy": LEVELS / 0.0},
            ValueError,
            "^GaussianNoise: noisy must be finite; got values that are not",
        ),
        ({"labels": 1}, ValueError, "^denoise: labels must be None for a model without classes"),
        ({"seed": 2**64}, ValueError, "^denoise: seed must lie in"),
        ({"first": 2**63 - 1}, ValueError, r"^denoise: first \+ n must be at most"),
        ({"batch_size": 0}, ValueError, "^denoise: batch_size must lie in 1"),
    ],
)
def test_bad_arguments_get_one_error(change, error, message):
    arguments = {"noisy": LEVELS, "noise_model": genfast.BitFlipNoise(0.1)} | change
    with pytest.raises(error, match=message):
        genfast.denoise(tiny("pixelrnn"), arguments.pop("noisy"), arguments.pop("noise_model"), **arguments)


def test_bad_noise():
    for p in (0, 1, -0.5, float("nan"), "x"):
        with pytest.raises(ValueError, match="^BitFlipNoise: p must lie between 0 and 1"):
            genfast.BitFlipNoise(p)
    for sigma in (0, -1, float("inf"), float("nan"), None):
        with pytest.raises(ValueError, match="^GaussianNoise: sigma must be positive and finite"):
            genfast.GaussianNoise(sigma)
