"""The IWAE: its bound between the ELBO and the likelihood, and what its estimators of the gradient are on average."""

import itertools

import pytest
import torch

import genfast
from genfast import metrics, models, testing
from genfast.data import ImageData
from genfast.models import IWAE, VAE, IWAEConfig, VAEConfig
from genfast.models._importance import log_weights
from genfast.train import TrainConfig, fit, start
from genfast.train.checkpoint import load_checkpoint

SIZES = {"height": 4, "width": 4, "network": "mlp", "hidden": 6, "layers": 1, "latent": 2}


def iwae(**config):
    torch.manual_seed(0)
    model = IWAE(IWAEConfig(**(SIZES | {"samples": 4} | config)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


X = (torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.uint8)
ESTIMATORS = [{"estimator": e, "resampled": r} for e, r in itertools.product(("iwae", "dreg"), (0, 2))]


@pytest.mark.parametrize("network", ["conv", "mlp"])
@pytest.mark.parametrize("kind", ESTIMATORS, ids=str)
def test_loss_has_every_gradient(kind, network):
    model, labels = iwae(network=network, classes=2, **kind), torch.arange(5) % 2
    loss = model.loss(X, labels)
    assert loss.shape == (5,) and loss.isfinite().all()
    loss.sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    with torch.no_grad():
        assert model.loss(X, labels).shape == model.bound(X, labels).shape == (5,)
        assert model.loss(X[:0], labels[:0]).shape == (0,)


@pytest.mark.parametrize("kind", ESTIMATORS, ids=str)
def test_the_value_of_the_loss_is_the_bound(kind):
    model = iwae(**kind)
    torch.manual_seed(3)
    seed = int(torch.randint(2**63 - 1, ()))
    torch.manual_seed(3)
    q = model.encode(X)
    weights = log_weights(model, X, None, genfast.gaussian_latent(*q, seed, samples=4)[0], *q)
    testing.assert_matches(model.loss(X), -genfast.importance_bound(weights))
    assert torch.equal(model.bound(X), genfast.importance_bound(model.log_weights(X, samples=4, seed=0)))


@torch.no_grad()
def test_the_bound_lies_between_the_elbo_and_the_likelihood():
    model = iwae(samples=16)
    many = range(100)
    bound = torch.stack([model.bound(X, seed=seed) for seed in many]).mean(0)
    elbo, likelihood = model.elbo(X, seed=0, samples=4000), model.log_prob(X, samples=50_000)
    assert (elbo < bound - 0.02).all() and (bound < likelihood).all()
    nats = metrics.latent_nll(model, [X], samples=2000)
    assert list(nats) == ["model", "model, bound", "model, ELBO"]
    assert nats["model"] < nats["model, bound"] < nats["model, ELBO"]


@torch.no_grad()
def test_one_sample_is_the_elbo_on_average():
    model = iwae(samples=1)
    assert torch.equal(model.bound(X, seed=3), model.log_weights(X, samples=1, seed=3)[:, 0])
    bound = model.log_weights(X, samples=80_000, seed=0).mean(1)
    testing.assert_matches(bound, model.elbo(X, seed=0, samples=80_000), atol=0.15)


def mean_gradient(model, repeats):
    """The gradient of many losses at once: the images of one batch are independent."""
    x = X[:1].repeat(repeats, 1, 1, 1)
    gradients = torch.autograd.grad(model.loss(x).mean(), tuple(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_all_estimators_have_one_mean():
    gradients = {}
    for kind in ESTIMATORS:
        model = iwae(**kind).double()
        torch.manual_seed(1)
        gradients[str(kind)] = mean_gradient(model, 30_000)
    expected = gradients.pop(str(ESTIMATORS[0]))
    for name, gradient in gradients.items():
        error = (gradient - expected).abs().max() / expected.abs().max()
        assert error < 0.04, name
    elbo = iwae(samples=1).double()
    torch.manual_seed(1)
    assert (mean_gradient(elbo, 30_000) - expected).abs().max() / expected.abs().max() > 0.1, "the test can fail"


class Exact(IWAE):
    """x = z + noise, a Gaussian of variance 1/2: the posterior N(2/3 x, 1/3) is exact at offsets of 0."""

    def __init__(self, **config):
        super().__init__(IWAEConfig(height=1, width=2, latent=2, levels=9, likelihood="gaussian", **config))
        self.offsets = torch.nn.Parameter(torch.zeros(2, 2))

    def encode(self, x, labels=None):
        mean = self.likelihood.scaled(x).flatten(1) * (2 / 3) + self.offsets[0]
        return mean, (self.offsets[1] - torch.tensor(3.0).log()).expand_as(mean)

    def decode(self, z, labels=None):
        mean = z.view(-1, 1, 1, 2)
        return torch.cat((mean, torch.full_like(mean, 0.5).log()), 1)


@pytest.mark.parametrize("resampled", [0, 2])
def test_the_doubly_reparameterised_gradient_has_no_variance_at_the_optimum(resampled):
    x = torch.randint(0, 9, (6, 1, 1, 2), dtype=torch.uint8)
    noise = {}
    for estimator in ("iwae", "dreg"):
        model = Exact(samples=8, estimator=estimator, resampled=resampled)
        (gradient,) = torch.autograd.grad(model.loss(x).sum(), model.offsets)
        noise[estimator] = gradient.abs().max()
    assert noise["dreg"] < 1e-5 and noise["iwae"] > 0.05


@pytest.mark.parametrize(
    "config, message",
    [
        ({"samples": 0}, "samples must be at least 1; got 0"),
        ({"estimator": "vimco"}, "estimator must be one of iwae, dreg; got 'vimco'"),
        ({"beta": 2.0}, "objective, beta and free_bits must be elbo, 1 and 0; got elbo, 2.0 and 0.0"),
        ({"resampled": -1}, "resampled must be at least 0; got -1"),
        ({"samples": 0.5}, "samples must be an int; got 0.5"),
    ],
)
def test_bad_config(config, message):
    with pytest.raises((TypeError, ValueError), match=f"^IWAEConfig: {message}$"):
        IWAEConfig(**config)


def test_half_precision():
    for kind in ESTIMATORS:
        model = iwae(**kind)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(X)
        loss.sum().backward()
        assert loss.dtype == torch.float32 and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ESTIMATORS, ids=str)
def test_a_loss_that_is_not_finite_is_told_by_training(kind, tmp_path):
    model = iwae(**kind)
    model.decoder.output.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    assert model.loss(X).isnan().all()
    with pytest.raises(FloatingPointError, match="first that is not finite: output of decoder.output "):
        fit(model, dots(8, 0), dots(4, 1), settings(steps=1), tmp_path)


def test_saved_loaded_and_sampled(tmp_path):
    model = iwae(classes=3).eval()
    model.save_pretrained(tmp_path)
    again, labels = models.load(tmp_path), torch.arange(5) % 3
    assert type(again) is IWAE and torch.equal(again.bound(X, labels), model.bound(X, labels))
    assert torch.equal(genfast.sample(again, 5, labels=labels), model.sample(5, labels=labels, batch_size=2))
    with pytest.raises(ValueError, match="config.json: expected model 'vae'; got 'iwae'$"):
        VAE.from_pretrained(tmp_path)


def settings(**changes):
    base = {"steps": 10, "batch": 8, "log_every": 2, "eval_every": 5, "save_every": 4, "ema": 0.9, "device": "cpu"}
    return TrainConfig(**(base | changes))


def dots(count, seed):
    pixels = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) < 0.3
    return ImageData(pixels.to(torch.uint8), 2, f"dots {seed}")


def test_resuming_is_exact(tmp_path):
    train, valid = dots(40, 0), dots(10, 1)
    options = {"resampled": 1, "estimator": "dreg", "dropout": 0.2}
    fit(iwae(**options), train, valid, settings(), tmp_path / "whole")
    fit(iwae(**options), train, valid, settings(), tmp_path / "parts", minutes=1e-9)
    fit(iwae(**options), train, valid, settings(), tmp_path / "parts", resume=True)
    one, other = (load_checkpoint(tmp_path / name)[0] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_may_start_from_a_vae_but_not_the_other_way(tmp_path):
    VAE(VAEConfig(**SIZES)).save_pretrained(tmp_path / "vae")
    iwae().save_pretrained(tmp_path / "iwae")
    model = iwae()
    start._start_from(model, tmp_path / "vae", dots(4, 0))
    assert torch.equal(model.decoder.output.weight, models.load(tmp_path / "vae").decoder.output.weight)
    with pytest.raises(ValueError, match="expected a vae to start from; got a iwae"):
        start._start_from(VAE(VAEConfig(**SIZES)), tmp_path / "iwae", dots(4, 0))
