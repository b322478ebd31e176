"""Categorical: a softmax over the levels of each channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genfast import ops
from genfast.likelihoods.base import Likelihood, register_likelihood, wide
from genfast.random import inverse_cdf
from genfast.reference.categorical import categorical_nll_ref, categorical_sample_ref

MOST_OF_OPS = 256  # levels
PART = 2**22  # logits that are widened at a time


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
            few = self.levels <= MOST_OF_OPS
            return ops.categorical_nll(x, logits) if few else categorical_nll_ref(x, logits)
        log_probs = logits.log_softmax(2).gather(2, x[:, :, None].long())[:, :, 0]
        return -torch.where(weight == 0, 0, weight * log_probs).flatten(1).sum(1)

    def expected(self, parameters: Tensor) -> Tensor:
        shares = self.per_channel(wide(parameters)).softmax(2)
        levels = torch.arange(self.levels, device=shares.device, dtype=shares.dtype)
        return torch.einsum("bclhw,l->bchw", shares, levels)

    def draw(self, parameters: Tensor, seed: int, first: int = 0, temperature: float = 1.0) -> Tensor:
        logits = self.per_channel(wide(parameters))
        if self.levels <= MOST_OF_OPS:
            return ops.categorical_sample(logits, seed, first, temperature)
        return categorical_sample_ref(logits, seed, first, temperature, 0)

    def draw_levels(self, parameters: Tensor, u: Tensor, temperature: float, evidence: Tensor | None = None) -> Tensor:
        if evidence is not None:
            parameters = parameters.double() / temperature + evidence
            temperature = 1.0
        return inverse_cdf(parameters, u[0, :, 0], temperature)[:, None]

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        if self.levels <= MOST_OF_OPS:
            return super().log_prob(parameters, values)
        # As doubles, all logits of a row of many levels would take more memory than the rest.
        logits, levels = parameters.flatten(0, -2), values.reshape(-1, 1).long()
        size = max(1, PART // self.levels)
        sums = torch.cat([part.double().logsumexp(-1) for part in logits.split(size)])
        chosen = logits.gather(1, levels)[:, 0].double()
        return (chosen - sums).view(parameters.shape[:-1])

    def log_evidence(self, parameters: Tensor, temperature: float, evidence: Tensor) -> Tensor:
        if self.levels <= MOST_OF_OPS:
            return super().log_evidence(parameters, temperature, evidence)
        size = max(1, PART // self.levels)
        parts = zip(parameters.flatten(0, -2).split(size), evidence.flatten(0, -2).split(size))
        sums = [super(Categorical, self).log_evidence(logits, temperature, of_part) for logits, of_part in parts]
        return torch.cat(sums).view(parameters.shape[:-1])

    def log_probabilities(self, parameters: Tensor, temperature: float = 1.0) -> Tensor:
        return (parameters.double() / temperature).log_softmax(-1)
