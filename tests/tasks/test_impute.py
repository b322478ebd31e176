"""Missing and noisy pixels under models with latents: the exact conditional distributions, by integration over z."""

import math

import pytest
import torch
from support.latents import (
    KINDS,
    TinyConfig,
    TinyLatent,
    conditional,
    every_image,
    grid,
    integrated,
    label_of,
    likelihoods,
    posterior,
    tiny,
)
from support.sampled import chi_square
from support.sampled import tiny as autoregressive

import genfast
from genfast import metrics, models, tasks
from genfast.models import build
from genfast.tasks.chains.latents import PURPOSES, step_seeds

N, STEPS = 1500, 60


def likely(kind):
    return every_image(tiny(kind))[integrated(kind).argmax()][None]


def partly_known(kind):
    """A mask that leaves several pixels unknown, the one at the end known."""
    c = tiny(kind).config
    known = torch.zeros(1, 1, c.height, c.width, dtype=torch.bool)
    known.view(-1)[-1] = True
    if known.numel() > 2:
        known.view(-1)[1] = True
    return known


def test_the_judge_itself():
    """The grid integrates: a finer one of another reach gives the same, and probabilities add up to 1."""
    for kind in ("bernoulli", "conditional", "mixture", "colour", "coupled"):
        assert integrated(kind).sum() == pytest.approx(1, abs=1e-5)
    model, truth = tiny("conditional"), every_image(tiny("conditional"))[6]
    z = torch.linspace(-8, 8, 4001)[:, None]
    parameters = model.decode(z, torch.ones(4001, dtype=torch.int64)).detach().double()
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0]).double().exp()
    bits = torch.distributions.Bernoulli(logits=parameters).log_prob(truth.double()).flatten(1).sum(1).exp()
    assert float((density * bits).sum() * 0.004) == pytest.approx(float(integrated("conditional")[6]), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_conditional_distribution(kind):
    model, truth, known = tiny(kind), likely(kind), partly_known(kind)
    expected, levels = conditional(kind, known[0], truth[0]), model.config.levels
    anything = torch.where(known, truth, 255).expand(N, -1, -1, -1)
    options = {"steps": STEPS, "seed": 3, "labels": label_of(model)}
    inpainted = genfast.inpaint(model, anything, known, **options)
    assert torch.equal(torch.where(known, inpainted.images, 0), torch.where(known, truth, 0).expand(N, -1, -1, -1))
    assert chi_square(inpainted.images, expected, levels) > 1e-4
    assert set(inpainted.acceptance) == {"posterior", "walk"} and all(
        0.03 < r < 1 for r in inpainted.acceptance.values()
    )
    approximate = genfast.inpaint(model, anything, known, order="pseudo-gibbs", **options)
    assert approximate.acceptance == {}
    assert chi_square(approximate.images, expected, levels) < 1e-4, "pseudo-Gibbs would do as well"
    unconditional = torch.where(((every_image(model) == truth) | ~known).flatten(1).all(1), 1.0, 0.0).double()
    assert chi_square(inpainted.images, unconditional / unconditional.sum(), levels) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [genfast.BitFlipNoise(0.3), genfast.GaussianNoise(0.5)], ids=str)
def test_the_exact_posterior_of_noisy_images(kind, noise):
    model, levels = tiny(kind), tiny(kind).config.levels
    noisy = noise.corrupt(levels - 1 - likely(kind), levels, seed=4)  # what is seen and what is expected differ
    expected, prior = posterior(kind, noise, noisy), integrated(kind) / integrated(kind).sum()
    # Where the channels of a pixel are coupled, the values hold the latents back: that takes more steps.
    options = {"steps": 4 * STEPS if kind == "coupled" else STEPS, "seed": 2, "labels": label_of(model)}
    denoised = genfast.denoise(model, noisy.expand(1000, -1, -1, -1), noise, **options)
    assert torch.equal(denoised.images, denoised.samples[0]) and denoised.images.dtype == torch.uint8
    assert chi_square(denoised.images, expected, levels) > 1e-4
    assert chi_square(denoised.images, prior, levels) < 1e-9, "the prior would do as well"
    assert set(denoised.acceptance) == {"posterior", "walk"} and all(0.03 < r < 1 for r in denoised.acceptance.values())


@pytest.mark.parametrize("kind", ["bernoulli", "mixture", "coupled"])
def test_means_and_maps_are_those_of_the_posterior(kind):
    model, levels, noise = tiny(kind), tiny(kind).config.levels, genfast.GaussianNoise(0.4)
    noisy = noise.corrupt(levels - 1 - likely(kind), levels, seed=4).expand(3, -1, -1, -1)
    one_hot = torch.nn.functional.one_hot(every_image(model).long(), levels).double()
    marginals = (posterior(kind, noise, noisy[:1]).view(-1, 1, 1, 1, 1) * one_hot).sum(0)
    mean = (marginals * torch.arange(levels)).sum(-1)
    options = {"samples": 2, "steps": 200, "seed": 1}
    results = {m: genfast.denoise(model, noisy, noise, method=m, **options) for m in ("mean", "map")}
    assert torch.equal(results["mean"].samples, results["map"].samples)
    top = marginals.topk(2, -1)
    clear = top.values[..., 0] - top.values[..., 1] > 0.25
    assert clear.any() and (results["map"].images[:, clear].long() == top.indices[..., 0][clear]).all()
    clear = (mean - mean.floor() - 0.5).abs() > 0.15
    assert clear.any() and (results["mean"].images[:, clear].long() == mean.round()[clear].long()).all()


@pytest.mark.parametrize("kind", ["bernoulli", "mixture"])
def test_the_mean_of_missing_values(kind):
    model, truth, known = tiny(kind), likely(kind), partly_known(kind)
    expected = (conditional(kind, known[0], truth[0]).view(-1, 1, 1, 1) * every_image(model)).sum(0)
    truth = truth.expand(60, -1, -1, -1)
    means = genfast.inpaint(model, truth, known, steps=100).mean
    assert means.dtype == torch.float32 and means.shape == truth.shape
    there = known.expand_as(means)
    assert torch.equal(means[there], truth[there].float())
    torch.testing.assert_close(means.mean(0), expected.float(), atol=0.06, rtol=0)


@pytest.mark.parametrize("kind", ["bernoulli", "mixture", "gaussian", "colour"])
def test_levels_are_those_of_the_likelihood(kind):
    """Every level of every value, from images that differ in that value alone."""
    model, truth = tiny(kind), likely(kind)[0]
    c, (parameters, _) = model.config, grid(kind)
    log_levels = model.likelihood.log_levels(parameters)
    assert log_levels.shape == (len(parameters), c.channels, c.height, c.width, c.levels)
    weight = torch.zeros_like(truth, dtype=torch.bool)
    weight.view(-1)[1] = True
    for level in range(c.levels):
        image = truth.clone()
        image.view(-1)[1] = level
        expected = likelihoods(kind, image, weight).log()
        torch.testing.assert_close(log_levels.flatten(1, 3)[:, 1, level].double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bernoulli", "coupled", "gaussian"])
def test_an_image_depends_on_its_number_alone(kind):
    model, levels = tiny(kind), tiny(kind).config.levels
    images = every_image(model)[torch.arange(20) * 3]
    known = torch.rand(20, 1, *images.shape[2:]) < 0.5
    options = {"steps": 8, "seed": 2**64 - 1}
    noise = genfast.BitFlipNoise(0.2)
    noisy = noise.corrupt(images, levels, seed=5)
    calls = [
        lambda part, **more: genfast.inpaint(model, images[part], known[part], **options, **more),
        lambda part, **more: genfast.denoise(model, noisy[part], noise, samples=2, method="map", **options, **more),
    ]
    for call in calls:
        whole = call(slice(None), first=2**63 - 20).images
        for size in (1, 13):
            assert torch.equal(call(slice(None), first=2**63 - 20, batch_size=size).images, whole)
        halves = [call(slice(at, at + 10), first=2**63 - 20 + at).images for at in (0, 10)]
        assert torch.equal(torch.cat(halves), whole)
        assert not torch.equal(call(slice(None), first=2**63 - 21).images, whole)


def test_no_seed_comes_twice():
    seeds = [seed for chain in range(4) for step in step_seeds(3, chain, 7, 50) for seed in step]
    assert len(set(seeds)) == len(seeds) == 4 * 50 * len(PURPOSES) and all(0 <= seed < 2**64 for seed in seeds)
    assert step_seeds(3, 1, 9, 2) == step_seeds(3, 1, 7, 50)[2:4] != step_seeds(4, 1, 9, 2)


def test_nothing_missing_no_images_no_steps_and_progress():
    model, ticks = tiny("bernoulli"), []
    images = every_image(model)[:6]
    whole = genfast.inpaint(model, images, torch.ones(1, 1, 2, 3, dtype=torch.bool), steps=4, progress=ticks.append)
    assert torch.equal(whole.images, images) and torch.equal(whole.mean, images.float()) and whole.acceptance == {}
    assert sum(ticks) == 4
    none = genfast.inpaint(model, images[:0], torch.ones(1, 1, 2, 3, dtype=torch.bool))
    assert none.images.shape == none.mean.shape == (0, 1, 2, 3) and none.acceptance == {}
    none = genfast.denoise(model, images[:0], genfast.BitFlipNoise(0.1), samples=3)
    assert none.images.shape == (0, 1, 2, 3) and none.samples.shape == (3, 0, 1, 2, 3)
    ticks.clear()
    genfast.denoise(model, images, genfast.BitFlipNoise(0.1), steps=5, samples=2, batch_size=3, progress=ticks.append)
    assert ticks == [1] * 20
    assert genfast.inpaint(model, images, torch.zeros(1, 1, 2, 3, dtype=torch.bool), steps=0).images.shape[0] == 6


def test_imputation_error():
    truth = torch.tensor([0, 3, 1, 2], dtype=torch.uint8).view(1, 1, 2, 2)
    mask = torch.tensor([True, False, False, True]).view(1, 1, 2, 2)
    images = torch.tensor([3, 3, 3, 0], dtype=torch.uint8).view(1, 1, 2, 2)
    errors = metrics.imputation_error(images, truth, mask, 4)
    assert errors == {"wrong": 0.5, "psnr": pytest.approx(10 * math.log10(9 / 2))}
    assert metrics.imputation_error(truth + 0.4, truth, mask, 4)["wrong"] == 0
    with pytest.raises(ValueError, match="^imputation_error: mask must leave a value unknown; got none"):
        metrics.imputation_error(images, truth, mask | True, 4)


def test_a_trained_model_restores_stripes():
    """Columns that are black or white: a third of an image tells the rest, and noise is seen through."""
    torch.manual_seed(0)
    model = build("vae", height=6, width=6, levels=2, latent=6, network="mlp", hidden=64, layers=1)
    bars = torch.randint(2, (512, 6), dtype=torch.uint8)
    stripes = bars[:, None, None, :].expand(-1, 1, 6, 6).contiguous()
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(400):
        optimizer.zero_grad()
        model.loss(stripes[torch.randint(512, (64,))]).mean().backward()
        optimizer.step()
    truth, known = stripes[:40], torch.ones(1, 1, 6, 6, dtype=torch.bool)
    known[:, :, 2:] = False
    for order in ("exact", "pseudo-gibbs"):
        inpainted = genfast.inpaint(model, truth, known, order=order, steps=60)
        assert metrics.imputation_error(inpainted.images, truth, known, 2)["wrong"] < 0.15, order
    for noise in (genfast.BitFlipNoise(0.15), genfast.GaussianNoise(0.5)):
        noisy = noise.corrupt(truth, 2, seed=1)
        before = metrics.psnr(noise.picture(noisy, 2), truth, 2)
        for method in ("sample", "mean", "map"):
            denoised = genfast.denoise(model, noisy, noise, method=method, steps=60)
            assert metrics.psnr(denoised.images, truth, 2) > before + 3, (noise, method)


IMAGES = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
MASK = torch.ones(1, 1, 2, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (
            {"order": "raster"},
            ValueError,
            "order must be one of exact, pseudo-gibbs for a model with latents; got",
        ),
        ({"backend": "cpp"}, RuntimeError, "backend must be able to serve this model; got 'cpp' .*can serve: torch"),
        ({"levels": 2}, ValueError, "levels must be None for a TinyLatent, whose config has it; got a value"),
        ({"head": "bernoulli"}, ValueError, "head must be None for a TinyLatent"),
        ({"steps": -1}, ValueError, r"steps must lie in 0 \.\."),
        ({"steps": 1.5}, TypeError, "steps must be an int; got float"),
        ({"mask": MASK.float()}, TypeError, "mask must be torch.bool"),
        ({"mask": MASK[..., :1]}, ValueError, "mask must have shape"),
        ({"images": IMAGES.float()}, TypeError, "images must hold levels as integers; got torch.float32"),
        ({"images": IMAGES + 2}, ValueError, r"images must lie in 0\.\.1; got 2"),
        ({"labels": 1}, ValueError, "labels must be None for a model without classes .*; got int"),
        ({"seed": -1}, ValueError, r"seed must lie in \[0, 2\*\*64\); got -1"),
        ({"first": 2**63 - 1}, ValueError, r"first \+ n must be at most"),
        ({"batch_size": 0}, ValueError, r"batch_size must lie in 1 \.\."),
    ],
)
def test_bad_arguments_get_one_error(change, error, message):
    model = TinyLatent(TinyConfig())
    with pytest.raises(error, match=f"^inpaint: {message}"):
        genfast.inpaint(model, **({"images": IMAGES, "mask": MASK} | change))
    if not change.keys() & {"order", "mask", "images"}:
        with pytest.raises(error, match=f"^denoise: {message}"):
            genfast.denoise(model, IMAGES, genfast.BitFlipNoise(0.1), **change)


def test_more_that_is_refused():
    model = TinyLatent(TinyConfig())
    with pytest.raises(ValueError, match="^denoise: method must be one of sample, mean, map; got 'best'"):
        genfast.denoise(model, IMAGES, genfast.BitFlipNoise(0.1), method="best")
    with pytest.raises(ValueError, match=r"^denoise: noisy must have shape .* got \(1, 2, 2\)"):
        genfast.denoise(model, IMAGES[0], genfast.BitFlipNoise(0.1))
    with pytest.raises(TypeError, match="^GaussianNoise: noisy must be a float tensor"):
        genfast.denoise(model, IMAGES, genfast.GaussianNoise(0.1))
    with pytest.raises(ValueError, match=r"^denoise: samples must lie in 1 \.\. 64; got 0"):
        genfast.denoise(model, IMAGES, genfast.BitFlipNoise(0.1), samples=0)
    with pytest.raises(ValueError, match="^inpaint: method must be one of metropolis, pseudo-gibbs; got 'exact'"):
        tasks.impute(model, IMAGES, MASK, method="exact")
    with pytest.raises(ValueError, match="^inpaint: mask must be equal over the channels of a pixel"):
        mask = torch.tensor([True, True, False]).view(1, 3, 1, 1).expand(-1, -1, 1, 2)
        genfast.inpaint(tiny("coupled"), torch.zeros(1, 3, 1, 2, dtype=torch.uint8), mask)
    with pytest.raises(TypeError, match="^inpaint: model must have Gaussian latents.* got PixelCNN"):
        tasks.impute(autoregressive("pixelcnn binary"), torch.zeros(1, 1, 2, 3, dtype=torch.uint8), MASK)
    codes = models.build("vq-vae", height=2, width=2, levels=2, codes=4, features=2, hidden=2, downsampling=0)
    with pytest.raises(TypeError, match="^inpaint: model must be autoregressive.* or have Gaussian.* got VQVAE"):
        genfast.inpaint(codes, IMAGES, MASK)
    with pytest.raises(TypeError, match="^denoise: model must be autoregressive.* or have Gaussian.* got VQVAE"):
        genfast.denoise(codes, IMAGES, genfast.BitFlipNoise(0.1))
    with pytest.raises(ValueError, match="^inpaint: order must be one of raster, exact; got 'pseudo-gibbs'"):
        images = torch.zeros(1, 1, 2, 3, dtype=torch.uint8)
        genfast.inpaint(autoregressive("pixelcnn binary"), images, images == 0, order="pseudo-gibbs")
