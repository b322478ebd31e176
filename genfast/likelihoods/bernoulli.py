"""Bernoulli, for two levels: the logit of level 1 of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from genfast import ops
from genfast.likelihoods.base import Likelihood, register_likelihood, wide
from genfast.random import inverse_cdf


@register_likelihood
@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """P = C logits of level 1."""

    name = "bernoulli"
    case = 0
    expected_is_exact = True
    output_orders = {"bernoulli": None}

    def __post_init__(self) -> None:
        if not self._fits(self.channels, self.levels):
            raise ValueError(f"likelihood bernoulli must have 2 levels; got {self.levels}")

    @classmethod
    def _fits(cls, channels: int, levels: int) -> bool:
        return levels == 2

    @classmethod
    def expected_outputs(cls, channels: int, levels: int) -> str:
        return str(channels)

    @property
    def parameters(self) -> int:
        return self.channels

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        return ops.bernoulli_nll(x, wide(parameters), weight=weight)

    def customary_nll(self, x: Tensor, parameters: Tensor) -> Tensor:
        """`torch.nn.BCELoss` takes no logarithm of a probability for less than -100."""
        return self.nll(x, parameters.double().clamp(-100, 100))

    def expected(self, parameters: Tensor) -> Tensor:
        return parameters.sigmoid()

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        return ops.bernoulli_sample(wide(parameters), seed, first, temperature)

    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        if evidence is not None:
            parameters = parameters.double() / temperature + (evidence[:, 1:] - evidence[:, :1])
            temperature = 1.0
        return inverse_cdf(parameters, u[0, :, 0], temperature)[:, None]

    def log_probabilities(self, parameters: Tensor, temperature: float = 1.0) -> Tensor:
        logits = parameters.double() / temperature
        return torch.cat((logsigmoid(-logits), logsigmoid(logits)), -1)
