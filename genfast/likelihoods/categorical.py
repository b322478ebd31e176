"""Categorical: a softmax over the levels of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genfast import ops
from genfast.likelihoods.base import Likelihood, register_likelihood, wide
from genfast.random import inverse_cdf


@register_likelihood
@dataclass(frozen=True)
class Categorical(Likelihood):
    """P = C L logits, those of a channel one after the other."""

    name = "categorical"
    case = 1
    decodes = False
    expected_is_exact = True
    # Where outputs are laid out in levels before channels, `Layout.ordered` has put them in this order.
    output_orders = {"categorical": None, "categorical-levels-first": None}

    @property
    def parameters(self) -> int:
        return self.channels * self.levels

    def nll(self, x: Tensor, parameters: Tensor, weight: Tensor | None = None) -> Tensor:
        logits = self.per_channel(wide(parameters))
        if weight is None:
            return ops.categorical_nll(x, logits)
        log_probs = logits.log_softmax(2).gather(2, x[:, :, None].long())[:, :, 0]
        return -torch.where(weight == 0, 0, weight * log_probs).flatten(1).sum(1)

    def expected(self, parameters: Tensor) -> Tensor:
        shares = self.per_channel(wide(parameters)).softmax(2)
        levels = torch.arange(self.levels, device=shares.device, dtype=shares.dtype)
        return torch.einsum("bclhw,l->bchw", shares, levels)

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        return ops.categorical_sample(self.per_channel(wide(parameters)), seed, first, temperature)

    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        if evidence is not None:
            parameters = parameters.double() / temperature + evidence
            temperature = 1.0
        return inverse_cdf(parameters, u[0, :, 0], temperature)[:, None]

    def log_probabilities(self, parameters: Tensor, temperature: float = 1.0) -> Tensor:
        return (parameters.double() / temperature).log_softmax(-1)
