"""What the parameters that a decoder gives for every pixel say of an image: its likelihood, mean and draws."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from genfast import ops
from genfast.random.philox import normal
from genfast.reference.logistic_mixture import split_params

LIKELIHOODS = ("bernoulli", "gaussian", "mixture")
Kind = Literal["bernoulli", "gaussian", "mixture"]


@dataclass(frozen=True)
class Likelihood:
    """`p(x | parameters)` of images x, uint8 [B, C, H, W] with levels 0..L-1, given parameters [B, P, H, W].

    "bernoulli" (2 levels): P = C logits of level 1. "gaussian": P = 2C, mean and log-variance of levels scaled to
    [-1, 1]. "mixture": a discretised mixture of K logistics, P = 3K for grey and 10K for colour, as
    `logistic_mixture_nll` reads them.

    Attributes:
        kind: "bernoulli", "gaussian" or "mixture".
        channels, levels: C and L.
        mixtures: K.
    Raises: ValueError for a kind that does not fit the images.
    """

    kind: Kind
    channels: int
    levels: int
    mixtures: int = 5

    def __post_init__(self):
        if self.kind not in LIKELIHOODS:
            raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)}; got {self.kind!r}")
        if self.kind == "bernoulli" and self.levels != 2:
            raise ValueError(f"likelihood bernoulli must have 2 levels; got {self.levels}")
        if self.kind == "mixture" and (self.channels not in (1, 3) or self.mixtures < 1):
            got = f"{self.channels} and {self.mixtures}"
            raise ValueError(f"likelihood mixture must have 1 or 3 channels and at least 1 mixture; got {got}")

    @property
    def features(self):
        """P, how many parameters a pixel has."""
        if self.kind == "mixture":
            return {1: 3, 3: 10}[self.channels] * self.mixtures
        return self.channels * (1 if self.kind == "bernoulli" else 2)

    def nll(self, x, parameters, weight=None):
        """Negative log-likelihood in nats per image, [B], in float32 or wider.

        `weight`: [B, C, H, W] as `bernoulli_nll` takes it; of a mixture, which couples the channels of a pixel, one
        weight for all of them. The gaussian is a density per level: that of the scaled level times its distance to
        the next, 2 / (L - 1), so that it compares with the other kinds.

        Raises: ValueError for a weight that differs between the channels of a pixel, of a mixture.
        """
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        given = {} if weight is None else {"weight": weight}
        if self.kind == "bernoulli":
            return ops.bernoulli_nll(x, parameters, **given)
        if self.kind == "mixture" and weight is not None:
            if self.channels > 1 and not torch.equal(weight, weight[:, :1].expand_as(weight)):
                expected = "equal over the channels of a pixel, which a mixture couples"
                raise ValueError(f"nll: weight must be {expected}; got a pixel with several weights")
            nll, weight = self._mixture_nll_of_pixels(x, parameters), weight[:, 0]
            return torch.where(weight == 0, 0, weight * nll).flatten(1).sum(1)
        if self.kind == "mixture":
            return ops.logistic_mixture_nll(x, parameters, self.levels)
        mean, log_variance = parameters.chunk(2, 1)
        nll = ops.gaussian_nll(self.scaled(x, parameters.dtype), mean, log_variance, **given)
        values = math.prod(x.shape[1:]) if weight is None else weight.flatten(1).sum(1)
        return nll + math.log((self.levels - 1) / 2) * values

    def _mixture_nll_of_pixels(self, x, parameters):
        """[B, H, W]: every pixel as an image of its own."""
        shape = x[:, 0].shape
        x, parameters = (t.movedim(1, -1).flatten(0, 2)[:, :, None, None] for t in (x, parameters))
        return ops.logistic_mixture_nll(x, parameters, self.levels).view(shape)

    def expected(self, parameters):
        """The mean as levels, float [B, C, H, W], 0 to L - 1; of a mixture, as if no level were the last."""
        top = self.levels - 1
        if self.kind == "bernoulli":
            return parameters.sigmoid()
        if self.kind == "gaussian":
            return ((parameters.chunk(2, 1)[0] + 1) * (top / 2)).clamp(0, top)
        log_weights, means, _, coefficients = split_params(parameters, self.channels)
        if coefficients is not None:  # the colours of a pixel come from one component, each shifted by those before it
            red, green, blue = means.unbind(1)
            green = green + coefficients[:, 0] * red
            means = torch.stack((red, green, blue + coefficients[:, 1] * red + coefficients[:, 2] * green), 1)
        position = (log_weights.softmax(1)[:, None] * means).sum(2)
        return ((position + 1) * (top / 2)).clamp(0, top)

    def draw(self, parameters, seed, first=0, temperature=1.0):
        """Images drawn from the likelihood, uint8 [B, C, H, W]: image i depends on (seed, first + i) alone."""
        parameters = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
        if self.kind == "bernoulli":
            return ops.bernoulli_sample(parameters, seed, first, temperature)
        if self.kind == "mixture":
            return ops.logistic_mixture_sample(parameters, self.levels, seed, first, temperature, 0, self.channels)
        mean, log_variance = parameters.double().chunk(2, 1)
        image = first + torch.arange(len(mean), device=mean.device).view(-1, 1, 1, 1)
        place = torch.arange(mean[0].numel(), device=mean.device).view(mean.shape[1:])
        x = mean + temperature * (log_variance / 2).exp() * normal(seed, image, place)[..., 0]
        return ((x + 1) * ((self.levels - 1) / 2)).round().clamp(0, self.levels - 1).to(torch.uint8)

    def scaled(self, x, dtype=torch.float32):
        """Levels as numbers in [-1, 1]."""
        return x.to(dtype) * (2 / (self.levels - 1)) - 1
