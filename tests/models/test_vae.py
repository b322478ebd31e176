"""The VAE: its bounds against closed forms, its losses against direct computation, and its use of seeds."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import genfast
from genfast import metrics, models, testing
from genfast.data import ImageData
from genfast.models import VAE, VAEConfig
from genfast.random.streams import NOISE, POSTERIOR, SECOND_NOISE
from genfast.train import TrainConfig, fit
from genfast.train.checkpoint import load_checkpoint

SIZES = {"height": 5, "width": 6, "hidden": 4, "latent": 3}
KINDS = [
    {"network": network, "levels": levels, "channels": channels, "likelihood": likelihood}
    for network in ("conv", "mlp")
    for levels, channels, likelihood in ((2, 1, "auto"), (2, 3, "bernoulli"), (16, 1, "gaussian"), (7, 3, "mixture"))
]


def vae(**config):
    """A model with all its weights at work, as new ones give every image the same posterior."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(**(SIZES | config)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images(model, count=4, seed=0):
    c, generator = model.config, torch.Generator().manual_seed(seed)
    return torch.randint(0, c.levels, (count, c.channels, c.height, c.width), dtype=torch.uint8, generator=generator)


def of_labels(model, count=4):
    return (torch.arange(count) % model.config.classes,) if model.config.classes else ()


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_shapes_and_gradients(kind, classes):
    model = vae(classes=classes, **kind)
    x, labels = images(model), of_labels(model)
    mean, log_variance = model.encode(x, *labels)
    assert mean.shape == log_variance.shape == (4, 3)
    parameters = model.decode(mean, *labels)
    assert parameters.shape == (4, model.likelihood.parameters, 5, 6) == model(x, *labels).shape
    assert model.nll(x, parameters).shape == (4,)
    assert model.expected(parameters).shape == x.shape == model.reconstruct(x, *labels).shape
    top = model.config.levels - 1
    assert 0 <= model.expected(parameters).min() and model.expected(parameters).max() <= top
    drawn = model.draw(parameters, seed=1)
    assert drawn.dtype == torch.uint8 and drawn.shape == x.shape and drawn.max() <= top
    loss = model.loss(x, *labels)
    assert loss.shape == (4,) == model.log_prob(x, *labels, samples=3).shape
    loss.sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def test_no_images_at_all():
    for network in ("conv", "mlp"):
        model = vae(network=network)
        x = images(model, 0)
        assert model.loss(x).shape == model.log_prob(x, samples=3).shape == (0,)
        assert model.reconstruct(x).shape == x.shape and model.sample(0).shape == (0, 1, 5, 6)


# The bounds.


class Line(VAE):
    """x = W z + b + noise, whose likelihood and posterior are known; `encoder` gives the exact posterior if told."""

    def __init__(self, exact):
        super().__init__(VAEConfig(height=2, width=3, latent=2, levels=9, likelihood="gaussian"))
        torch.manual_seed(3)
        self.weight, self.bias = torch.randn(6, 2, dtype=torch.float64), 0.1 * torch.randn(6, dtype=torch.float64)
        # Columns at right angles, as only then the exact posterior has a diagonal covariance.
        self.weight = 0.6 * torch.linalg.qr(self.weight)[0] * torch.tensor([1.0, 0.5])
        self.variance, self.exact = 0.09, exact
        self.double()

    def encode(self, x, labels=None):
        precision = 1 + self.weight.square().sum(0) / self.variance
        mean = (
            (self.likelihood.scaled(x, torch.float64).flatten(1) - self.bias) @ self.weight / self.variance / precision
        )
        if not self.exact:
            return mean + 0.4, (-precision.log() + 0.5).expand_as(mean)
        return mean, (-precision.log()).expand_as(mean)

    def decode(self, z, labels=None):
        mean = (z @ self.weight.T + self.bias).view(-1, 1, 2, 3)
        return torch.cat((mean, torch.full_like(mean, math.log(self.variance))), 1)

    def exact_log_prob(self, x):
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(6, dtype=torch.float64)
        density = torch.distributions.MultivariateNormal(self.bias, covariance)
        return density.log_prob(self.likelihood.scaled(x, torch.float64).flatten(1)) - 6 * math.log(8 / 2)


def test_all_bounds_are_the_likelihood_at_the_optimum():
    model = Line(exact=True)
    x = images(model, 5)
    exact = model.exact_log_prob(x)
    for samples in (1, 7):
        testing.assert_matches(model.log_prob(x, samples=samples), exact, rtol=1e-10)
        testing.assert_matches(model.log_weights(x, samples=samples, seed=2)[:, 0], exact, rtol=1e-10)
    # The KL divergence is exact in the ELBO, so that it is only right on average.
    testing.assert_matches(model.elbo(x, seed=0, samples=200_000), exact, atol=0.02)


def test_bounds_are_in_order_and_tighten():
    model = Line(exact=False)
    x = images(model, 5)
    exact, elbo = model.exact_log_prob(x), model.elbo(x, seed=0, samples=40_000)
    weights = model.log_weights(x, samples=40_000, seed=0)
    two, ten = (genfast.importance_bound(weights.reshape(-1, count)).view(5, -1).mean(1) for count in (2, 10))
    assert (elbo < two - 0.05).all() and (two < ten - 0.05).all() and (ten < exact - 0.01).all()
    testing.assert_matches(model.log_prob(x, samples=200_000), exact, atol=0.02)


def test_log_prob_is_one_sum_however_it_is_split(monkeypatch):
    model = vae(classes=3)
    x, labels = images(model, 7), of_labels(model, 7)
    whole = model.log_weights(x, *labels, samples=11, seed=5, first=2).double().logsumexp(1) - math.log(11)
    for values in (1, 40, 400, 10**6):
        monkeypatch.setattr("genfast.models._importance.CPU_VALUES", values)
        testing.assert_matches(model.log_prob(x, *labels, samples=11, seed=5, first=2), whole, rtol=1e-6)
    assert not torch.equal(model.log_prob(x, *labels, samples=11, seed=6), whole)
    part = model.log_prob(x[3:], labels[0][3:], samples=11, seed=5, first=5)
    testing.assert_matches(part, whole[3:], rtol=1e-6)
    assert torch.equal(genfast.log_prob(model, x[:2], labels[0][:2]), model.log_prob(x[:2], labels[0][:2]))


# The losses.


def test_the_elbo_is_its_formula():
    model = vae(latent=2)
    x = images(model)
    mean, log_variance = model.encode(x)
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    z, _ = genfast.gaussian_latent(mean, log_variance, 9, 3, 2, first_sample=POSTERIOR)
    pixels = torch.distributions.Bernoulli(logits=model.decode(z))
    likelihood = pixels.log_prob(x.repeat_interleave(2, 0).float()).flatten(1).sum(1).view(4, 2).mean(1)
    testing.assert_matches(model.elbo(x, seed=9, first=3, samples=2), likelihood - kl)
    assert torch.equal(model.bound(x), model.elbo(x, seed=0))
    testing.assert_matches(model.elbo(x[1:], seed=9, first=4, samples=2), model.elbo(x, seed=9, first=3, samples=2)[1:])


def noise_of(seed):
    torch.manual_seed(seed)
    return int(torch.randint(2**63 - 1, ()))


def test_beta_and_free_bits():
    x = images(vae())
    parts = {}
    for name, config in (("plain", {}), ("beta", {"beta": 4.0}), ("free", {"free_bits": 0.4})):
        model = vae(**config)
        torch.manual_seed(1)
        parts[name] = model.loss(x)
    mean, log_variance = model.encode(x)
    z, kl = genfast.gaussian_latent(mean, log_variance, noise_of(1), per_latent=True)
    nll = model.nll(x, model.decode(z))
    testing.assert_matches(parts["plain"], nll + kl.sum(1))
    testing.assert_matches(parts["beta"], nll + 4 * kl.sum(1))
    each = kl.mean(0)
    assert (each < 0.4).any() and (each > 0.4).any(), "one latent on either side"
    testing.assert_matches(parts["free"], nll + each.clamp(min=0.4).sum())


def test_free_bits_leave_a_latent_alone():
    """Far below its free bits a latent's posterior learns from the likelihood alone."""
    grads = []
    for config in ({"free_bits": 1e4}, {"beta": 0.0}):
        model = vae(**config)
        torch.manual_seed(1)
        model.loss(images(model)).sum().backward()
        grads.append(model.encoder.output.weight.grad)
    testing.assert_matches(*grads)


def test_beta_tc_is_its_decomposition():
    count, beta = 1000, 6.0
    model, x = vae(objective="beta-tc", beta=beta, examples=count), images(vae(), 5)
    torch.manual_seed(1)
    loss = model.loss(x)
    mean, log_variance = model.encode(x)
    z, _ = genfast.gaussian_latent(mean, log_variance, noise_of(1))
    density = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(z[:, None])  # [i, j, latent]
    joint = (density.sum(2).exp().sum(1) / (count * 5)).log()
    marginals = (density.exp().sum(1) / (count * 5)).log().sum(1)
    inside = torch.stack([density[i, i].sum() for i in range(5)])
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    information, correlation, single = inside - joint, joint - marginals, marginals - prior
    nll = model.nll(x, model.decode(z))
    testing.assert_matches(loss, nll + information + beta * correlation + single, rtol=1e-4)
    loss.sum().backward()
    assert model.encoder.output.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="VAE: examples must be N, at least 1, for beta-tc; got 0"):
        vae(objective="beta-tc").loss(x)


def test_the_seed_of_torch_is_that_of_the_loss():
    model = vae()
    x = images(model)
    torch.manual_seed(4)
    one, other = model.loss(x), model.loss(x)
    torch.manual_seed(4)
    assert torch.equal(model.loss(x), one) and not torch.equal(one, other)


def test_half_precision_is_close_and_finite():
    for network in ("conv", "mlp"):
        model = vae(network=network, height=12, width=12)
        x = images(model)
        torch.manual_seed(2)
        exact = model.loss(x)
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(x)
        assert loss.dtype == torch.float32
        testing.assert_matches(loss, exact, rtol=0.03)
        half = vae(network=network).bfloat16()
        loss = half.loss(images(half))
        loss.sum().backward()
        assert loss.isfinite().all() and loss.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in half.parameters())


def test_a_posterior_far_out_stays_finite():
    model = vae()
    with torch.no_grad():
        model.encoder.output.bias[3:] = torch.tensor([1e4, -1e4, 0.0])
    loss = model.loss(images(model))
    loss.sum().backward()
    assert loss.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


# Samples.


@pytest.mark.parametrize("kind", KINDS[::3], ids=str)
def test_samples_do_not_depend_on_how_they_are_split(kind, tmp_path):
    model = vae(classes=3, **kind)
    labels = torch.arange(150) % 3
    whole = genfast.sample(model, 150, seed=7, labels=labels)
    for first, count, size in ((0, 150, 37), (5, 20, None), (63, 2, 1), (149, 1, None)):
        options = {"seed": 7, "first": first, "batch_size": size, "labels": labels[first : first + count]}
        assert torch.equal(genfast.sample(model, count, **options), whole[first : first + count])
    assert torch.equal(torch.cat(list(genfast.stream(model, 150, seed=7, labels=labels, batch_size=64))), whole)
    assert torch.equal(model.sample(150, seed=7, labels=labels), whole)
    assert not torch.equal(genfast.sample(model, 150, seed=8, labels=labels), whole)
    assert not torch.equal(genfast.sample(model, 150, seed=7, labels=labels.flip(0)), whole)
    assert genfast.explain(genfast.sample, model).backend == "torch"


def test_the_largest_number_of_an_image():
    model = vae()
    assert model.sample(2, first=2**63 - 2).shape == (2, 1, 5, 6)


def test_temperature_scales_the_prior(monkeypatch):
    model, seen = vae(), []
    monkeypatch.setattr(model, "decode", lambda z, labels=None: seen.append(z) or VAE.decode(model, z, labels))
    for temperature in (1.0, 0.25):
        model.sample(3, temperature=temperature)
    assert torch.equal(seen[1], 0.25 * seen[0]) and seen[0].std() == pytest.approx(1, abs=0.25)


def test_samples_and_their_bounds_share_no_numbers(monkeypatch):
    """A level and a latent of one image that came from one number would be dependent: nor may an image that the model
    drew be scored by the numbers that it was made of."""
    model, draws, real = vae(), [], genfast.ops.gaussian_latent

    def seen(mean, log_variance, seed, first_index=0, samples=1, *rest, first_sample=0, **options):
        draws.append(range(first_sample, first_sample + samples))
        return real(mean, log_variance, seed, first_index, samples, *rest, first_sample=first_sample, **options)

    monkeypatch.setattr("genfast.ops.gaussian_latent", seen)
    x = model.sample(2, seed=0)
    model.elbo(x, seed=0, samples=3)
    model.log_weights(x, seed=0, samples=4)
    model.log_prob(x, seed=0, samples=50)
    prior, *posterior = draws
    assert len(posterior) >= 3 and max(max(part) for part in posterior) == posterior[0].start + 49
    assert min(min(part) for part in draws) > 2**30, "pixels count from 0"
    assert all(prior.start not in part and not {NOISE, SECOND_NOISE} & set(part) for part in posterior)


def test_sampling_is_without_dropout_and_leaves_the_mode():
    model = vae(decoder_dropout=0.5).train()
    one, other = model.sample(4), model.sample(4)
    assert torch.equal(one, other) and model.training and model.decoder.training


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"backend": "cpp"}, RuntimeError, "must be able to serve this model; got 'cpp'"),
        (
            {"given": torch.zeros(1, 1, 5, 6, dtype=torch.uint8), "mask": torch.ones(1, 1, 5, 6).bool()},
            ValueError,
            "given and mask must be None for a VAE",
        ),
        ({"shape": (1, 5, 6)}, ValueError, "shape must be None for a VAE"),
        ({"labels": 1}, ValueError, "labels must be None for a model without classes .*; got int"),
        ({"temperature": 0.0}, ValueError, "temperature must be positive"),
        ({"first": 2**63}, ValueError, "first \\+ n must be at most"),
    ],
)
def test_bad_sample_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^sample: .*{message}"):
        genfast.sample(vae(), 1, **arguments)


def test_weights_that_are_not_finite_are_not_drawn_from():
    model = vae()
    model.decoder.output.weight.data[0] = math.nan
    with pytest.raises(ValueError, match="^sample: decoder.output.weight must be finite; got .* values"):
        model.sample(1)


# Errors and files.


@pytest.mark.parametrize(
    "config, message",
    [
        ({"latent": 0}, "latent must be at least 1; got 0"),
        ({"network": "rnn"}, "network must be one of conv, mlp; got 'rnn'"),
        ({"network": "mlp", "layers": 0}, "layers must be at least 1; got 0"),
        ({"likelihood": "poisson"}, "likelihood must be one of auto, bernoulli, gaussian, mixture; got 'poisson'"),
        ({"likelihood": "bernoulli", "levels": 3}, "likelihood bernoulli must have 2 levels; got 3"),
        ({"beta": -1.0}, "beta must be a finite number of at least 0; got -1.0"),
        ({"free_bits": math.nan}, "free_bits must be a finite number of at least 0; got nan"),
        ({"decoder_dropout": 1.0}, r"decoder_dropout must be a number in \[0, 1\); got 1.0"),
        ({"free_bits": 0.1, "objective": "beta-tc"}, "free_bits must be 0 for the objective beta-tc; got 0.1"),
    ],
)
def test_bad_config(config, message):
    with pytest.raises(ValueError, match=f"^VAEConfig: {message}$"):
        VAEConfig(**config)


@pytest.mark.parametrize(
    "x, labels, error, message",
    [
        (torch.zeros(2, 1, 5, 6), None, TypeError, "x must hold levels as torch.uint8; got torch.float32"),
        (torch.zeros(2, 1, 6, 5).byte(), None, ValueError, r"x must have shape .* H=5, W=6; got \(2, 1, 6, 5\)"),
        (torch.full((2, 1, 5, 6), 2).byte(), None, ValueError, r"x must lie in 0..1; got 2"),
        (torch.zeros(2, 1, 5, 6).byte(), torch.zeros(2).long(), ValueError, "labels must be None for a model without"),
    ],
)
def test_bad_images(x, labels, error, message):
    model = vae()
    calls = (model.loss, model.log_prob, model.bound, model.reconstruct, model.encode)
    for call in calls:
        with pytest.raises(error, match=f"^VAE: {message}"):
            call(x, labels)


def test_bad_latents():
    with pytest.raises(ValueError, match=r"^VAE: z must have shape \[B, 3\]; got \(2, 4\)"):
        vae().decode(torch.zeros(2, 4))
    with pytest.raises(TypeError, match="^VAE: z must be a float tensor; got torch.int64"):
        vae().decode(torch.zeros(2, 3).long())
    with pytest.raises(ValueError, match=r"^log_prob: samples must lie in 1 "):
        vae().log_prob(images(vae()), samples=0)


def test_saved_and_loaded(tmp_path):
    model = vae(classes=2, likelihood="auto", beta=2.0).eval()
    model.save_pretrained(tmp_path)
    again = models.load(tmp_path)
    assert type(again) is VAE and again.config == model.config and not again.training
    x = images(model)
    assert torch.equal(again.bound(x, *of_labels(model)), model.bound(x, *of_labels(model)))


def test_a_checkpoint_of_another_kind_is_one_clear_error(tmp_path):
    models.build("pixelcnn", hidden=2, layers=0, head=2, height=4, width=4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="config.json: expected model 'vae'; got 'pixelcnn'$"):
        VAE.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    vae().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="model.safetensors: expected a tensor head.* more; got none"):
        models.load(tmp_path)


# Training.


def data(count, seed=0, classes=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(count, 1, 5, 6, generator=generator) < 0.3).to(torch.uint8)
    labels = torch.arange(count) % classes if classes else None
    return ImageData(pixels, 2, f"dots {seed}", labels=labels, classes=classes)


def settings(**changes):
    base = {"steps": 12, "batch": 8, "log_every": 3, "eval_every": 6, "save_every": 4, "ema": 0.9, "device": "cpu"}
    return TrainConfig(**(base | changes))


@pytest.mark.parametrize("config", [{}, {"objective": "beta-tc", "examples": 40, "classes": 2}], ids=str)
def test_resuming_is_exact(tmp_path, config):
    train, valid = data(40, classes=2), data(10, seed=1, classes=2)
    options = {"dropout": 0.2, **config}
    whole = fit(vae(**options), train, valid, settings(), tmp_path / "whole")
    fit(vae(**options), train, valid, settings(), tmp_path / "parts", minutes=1e-9)
    parts = fit(vae(**options), train, valid, settings(), tmp_path / "parts", resume=True)
    assert whole.best_nats == parts.best_nats or whole.best_step != parts.best_step
    one, other = (load_checkpoint(tmp_path / name)[0] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns(tmp_path):
    pixels = torch.zeros(64, 1, 5, 6, dtype=torch.uint8)
    pixels[::2, :, :, :3] = 1
    halves = ImageData(pixels, 2, "halves")
    result = fit(vae(), halves, halves, settings(steps=150, lr=0.02, eval_every=75, weight_decay=0.0), tmp_path)
    model = models.load(tmp_path / "model")
    assert result.best_nats < 2.0 and torch.equal(model.reconstruct(pixels[:8]), pixels[:8])
    assert metrics.active_units(model, [pixels]).sum() >= 1
    drawn = model.sample(200).float().mean((1, 2))
    sides = (drawn[:, :3].mean(1) - drawn[:, 3:].mean(1)).abs()
    assert drawn.mean() == pytest.approx(0.25, abs=0.08) and torch.minimum(sides, 1 - sides).mean() < 0.1


# What evaluation measures.


def test_active_units_are_the_latents_that_move():
    model = Line(exact=True)
    x = images(model, 50)
    means = model.encode(x)[0]
    assert (
        metrics.active_units(model, x.split(7)).tolist() == (means.var(0, correction=0) > 0.01).tolist() == [True] * 2
    )
    model.weight[:, 1] = 0
    assert metrics.active_units(model, x.split(7)).tolist() == [True, False]
    with pytest.raises(ValueError, match="active_units: batches must hold at least one image; got none"):
        metrics.active_units(model, [])


@torch.no_grad()
def test_the_table_of_nats():
    model = vae(classes=2)
    x, labels = images(model, 6), of_labels(model, 6)[0]
    nats = metrics.latent_nll(model, list(zip(x.split(4), labels.split(4))), samples=50, seed=3)
    assert list(nats) == ["model", "model, ELBO"] and nats["model"] < nats["model, ELBO"]
    assert nats["model"] == pytest.approx(-float(model.log_prob(x, labels, samples=50, seed=3).mean()), rel=1e-5)
    assert nats["model, ELBO"] == pytest.approx(-float(model.elbo(x, labels, seed=3).mean()), rel=1e-5)


def test_the_command_line_from_training_to_samples(genfast, tmp_path):
    train = ["train", "vae", "--preset", "digits", "--steps", 4, "--eval-every", 2, "--hidden", 4, "--latent", 3]
    options = ["--conditional", "--objective", "beta-tc", "--beta", 4]
    assert genfast(*train, *options, "--out", tmp_path / "r")[0] == 0
    assert models.load(tmp_path / "r" / "model").config.examples == 1297
    code, out, err = genfast("evaluate", tmp_path / "r", "--samples", 20, "--images", 6, "--seed", 3)
    assert (code, err) == (0, "") and "digits[test], the first 6: 6 images" in out and "of 3 latents active" in out
    assert out == genfast("evaluate", tmp_path / "r", "--samples", 20, "--images", 6, "--seed", 3, "--batch", 4)[1]
    sample = ["sample", tmp_path / "r", "-n", 10, "--seed", 2, "--label", "1,4"]
    assert genfast(*sample, "--out", tmp_path / "a.npz", "--batch-size", 3)[0] == 0
    assert genfast(*sample, "--out", tmp_path / "shards", "--shard", 4)[0] == 0
    whole = np.load(tmp_path / "a.npz")
    parts = [np.load(path) for path in sorted((tmp_path / "shards").glob("*.npz"))]
    assert np.array_equal(whole["images"], np.concatenate([part["images"] for part in parts]))
    assert whole["labels"].tolist() == [1, 4] * 5 and len(parts) == 3
    code, _, err = genfast(*sample, "--out", tmp_path / "b.npz", "--backend", "cpp")
    assert code == 2 and "VAE draws whole images by torch" in err
