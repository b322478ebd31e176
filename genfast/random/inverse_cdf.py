"""Draws from a Bernoulli or categorical distribution."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.random.levels import level_dtype

# The exponential of less is subnormal: such a level counts as one of probability 0.
_LEAST = -708.0


def inverse_cdf(logits: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
    """Inverse transform sampling: the first level at which the cumulative sum of weights exceeds `u` times their total.

    A level of probability 0 is never drawn.

    Args:
        logits: [..., L], unnormalised log-probabilities, or [..., 1], the logit of level 1 of two.
        u: float64 [...] in [0, 1 - 2**-24].
        temperature: divides the logits; positive and finite.
    Returns: levels [...], uint8, or int32 where L is above 256; computed in float64.
    Example: `inverse_cdf(torch.zeros(5, 1), torch.rand(5, dtype=torch.float64))`
    """
    logits = logits.double()
    if logits.shape[-1] == 1:
        # The weights of levels 0 and 1 are those of two logits 0 and l: one is 1.
        logits = logits[..., 0]
        smaller = _exp(-logits.abs() / temperature)
        zero = torch.where(logits < 0, 1.0, smaller)
        return (zero <= u * (1 + smaller)).to(torch.uint8)
    centred = logits - logits.amax(-1, keepdim=True)
    weights = _exp(centred if temperature == 1 else centred / temperature)
    sums = weights.cumsum(-1)
    if logits.device.type == "cpu":
        level = torch.searchsorted(sums, (u * sums[..., -1])[..., None], right=True)
        return level[..., 0].to(level_dtype(logits.shape[-1]))
    # The second condition matters on GPUs: rounding in a parallel prefix sum could make it rise at a weight of 0.
    passed = (sums > u[..., None] * sums[..., -1:]) & (weights > 0)
    return passed.to(torch.uint8).argmax(-1).to(level_dtype(logits.shape[-1]))


def _exp(x: Tensor) -> Tensor:
    return torch.where(x < _LEAST, 0.0, x.exp())
