"""Gaussian: a normal density of each value, scaled to [-1, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genfast import ops
from genfast.likelihoods.base import Likelihood, register_likelihood, wide
from genfast.random.levels import level_dtype
from genfast.random.philox import normal


@register_likelihood
@dataclass(frozen=True)
class Gaussian(Likelihood):
    """P = 2C: the means of all channels, then their log-variances, of levels scaled to [-1, 1]."""

    name = "gaussian"
    is_density = True

    @property
    def parameters(self) -> int:
        return 2 * self.channels

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        parameters = wide(parameters)
        mean, log_variance = parameters.chunk(2, 1)
        nll = ops.gaussian_nll(self.scaled(x, parameters.dtype), mean, log_variance, weight=weight)
        values = math.prod(x.shape[1:]) if weight is None else weight.flatten(1).sum(1)
        return nll + math.log((self.levels - 1) / 2) * values

    def expected(self, parameters: Tensor) -> Tensor:
        top = self.levels - 1
        return ((parameters.chunk(2, 1)[0] + 1) * (top / 2)).clamp(0, top)

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        mean, log_variance = wide(parameters).double().chunk(2, 1)
        image = first + torch.arange(mean.shape[0], device=mean.device, dtype=torch.int64).view(-1, 1, 1, 1)
        place = torch.arange(mean[0].numel(), device=mean.device, dtype=torch.int64).view(mean.shape[1:])
        x = mean + temperature * (log_variance / 2).exp() * normal(seed, image, place)[..., 0]
        return ((x + 1) * ((self.levels - 1) / 2)).round().clamp(0, self.levels - 1).to(level_dtype(self.levels))

    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        raise NotImplementedError(_OF_DECODERS)

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        raise NotImplementedError(_OF_DECODERS)


_OF_DECODERS = "gaussian: expected a decoder's parameters of whole images; it draws no value after another"
