"""What the tests of models with latents share: tiny models whose likelihood can be integrated over the latents."""

import functools
import math
from dataclasses import dataclass

import torch
from support.sampled import every_image
from torch import nn

from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import likelihood


@dataclass
class TinyConfig:
    """Attributes as those of `genfast.models.VAEConfig`."""

    channels: int = 1
    height: int = 2
    width: int = 2
    levels: int = 2
    classes: int = 0
    latent: int = 1
    likelihood: str = "bernoulli"


class TinyLatent(nn.Module):
    """p(x | z) with z in 1 or 2 dimensions, and a posterior that is not the exact one."""

    def __init__(self, config, hidden=6, scale=1.6):
        super().__init__()
        self.config, c = config, config
        self.likelihood = likelihood(c.likelihood, c.channels, c.levels, 2)
        self.spec, self.latent_size = ImageSpec(c.channels, c.height, c.width, c.levels, c.classes), c.latent
        values = c.channels * c.height * c.width
        self.to_hidden = nn.Linear(c.latent + c.classes, hidden)
        self.to_parameters = nn.Linear(hidden, self.likelihood.parameters * c.height * c.width)
        self.to_posterior = nn.Linear(values + c.classes, 2 * c.latent)
        for layer in (self.to_hidden, self.to_parameters):
            nn.init.normal_(layer.weight, std=scale)
            nn.init.normal_(layer.bias, std=0.5)
        nn.init.normal_(self.to_posterior.weight, std=0.7)

    def encode(self, x, labels=None):
        x = x.float().flatten(1) / (self.config.levels - 1)
        return self.to_posterior(self._beside(x, labels)).chunk(2, 1)

    def decode(self, z, labels=None):
        parameters = self.to_parameters(self.to_hidden(self._beside(z, labels)).tanh())
        return parameters.unflatten(1, (self.likelihood.parameters, self.config.height, self.config.width))

    def _beside(self, x, labels):
        if not self.config.classes:
            return x
        return torch.cat((x, nn.functional.one_hot(labels, self.config.classes).float()), 1)


KINDS = {
    "bernoulli": {"width": 3, "latent": 2},
    "conditional": {"classes": 3},
    "mixture": {"likelihood": "mixture", "levels": 3},
    "gaussian": {"likelihood": "gaussian", "levels": 3},
    "colour": {"channels": 3, "height": 1},
    "coupled": {"likelihood": "mixture", "channels": 3, "height": 1},
}
SEEDS = {"bernoulli": 3, "conditional": 0, "mixture": 2, "gaussian": 1, "colour": 4, "coupled": 10}


@functools.cache
def tiny(kind):
    """A model of `KINDS`; not to be changed."""
    torch.manual_seed(SEEDS[kind])
    return TinyLatent(TinyConfig(**KINDS[kind])).eval()


def label_of(model):
    return 1 if model.config.classes else None


@functools.cache
@torch.no_grad()
def grid(kind):
    """Latents on a grid as parameters of the likelihood, and their prior probabilities, float64."""
    model = tiny(kind)
    line = torch.linspace(-6, 6, {1: 601, 2: 81}[model.config.latent])
    z = torch.cartesian_prod(*[line] * model.config.latent).view(-1, model.config.latent)
    prior = (-z.double().square().sum(1) / 2).softmax(0)
    labels = None if label_of(model) is None else torch.full((len(z),), label_of(model))
    return model.decode(z, labels), prior


def likelihoods(kind, image, weight=None):
    """p(image | z) on the grid: uint8 [C, H, W] -> float64."""
    parameters, _ = grid(kind)
    weight = None if weight is None else weight.expand(len(parameters), *image.shape).contiguous()
    image = image.expand(len(parameters), -1, -1, -1).contiguous()
    return (-tiny(kind).likelihood.nll(image, parameters, weight).double()).exp()


@functools.cache
def integrated(kind):
    """The weight of every image, float64 [N], by a sum over a grid of latents: for a Gaussian, its density."""
    return torch.stack([likelihoods(kind, image) for image in every_image(tiny(kind))]) @ grid(kind)[1]


def conditional(kind, known, truth):
    """The probability of every image given the known values of `truth`, bool and uint8 [C, H, W]."""
    fitting = ((every_image(tiny(kind)) == truth) | ~known).flatten(1).all(1)
    p = _rounded(kind, known, truth) if kind == "gaussian" else integrated(kind)
    p = torch.where(fitting, p, 0)
    return p / p.sum()


def _rounded(kind, known, truth):
    """The weight of every image where known values have their density, and unknown ones are rounded to levels."""
    (parameters, prior), model = grid(kind), tiny(kind)
    seen = prior * likelihoods(kind, truth, known)
    mean, log_variance = parameters.double().chunk(2, 1)
    edges = torch.tensor([-math.inf, -0.5, 0.5, math.inf], dtype=torch.float64)  # of the levels -1, 0 and 1
    below = torch.distributions.Normal(mean[..., None], (log_variance / 2).exp()[..., None]).cdf(edges)
    share = below.diff(dim=-1)
    unknown = ~known.expand(mean.shape[1:])
    probabilities = []
    for image in every_image(model):
        p = share.gather(-1, image.long().expand(len(mean), -1, -1, -1)[..., None])[..., 0]
        probabilities.append((seen * torch.where(unknown, p, 1).flatten(1).prod(1)).sum())
    return torch.stack(probabilities)


def posterior(kind, noise, noisy):
    """The probability of every image given a noisy one, [1, C, H, W]."""
    model, every = tiny(kind), every_image(tiny(kind))
    levels = noise.log_likelihood(noisy, model.config.levels).expand(len(every), -1, -1, -1, -1)
    p = integrated(kind) * levels.gather(-1, every[..., None].long()).flatten(1).sum(1).double().exp()
    return p / p.sum()
