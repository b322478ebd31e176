"""Draws from a Bernoulli or categorical distribution."""

import torch

# Below it an exponential is no normal number: such a level has probability 0.
_LEAST = -708.0


def inverse_cdf(logits, u, temperature=1.0):
    """The level at which the distribution function passes `u`: the first that makes the sum of weights exceed `u`
    times their whole. A level of probability 0 is never drawn.

    Args:
        logits: [..., L], unnormalised log-probabilities, or [..., 1], the logit of level 1 of two.
        u: float64 [...] in [0, 1 - 2**-24].
        temperature: divides the logits; positive and finite.
    Returns: uint8 [...], computed in float64.
    Example: `inverse_cdf(torch.zeros(5, 1), torch.rand(5, dtype=torch.float64))`
    """
    logits = logits.double()
    if logits.shape[-1] == 1:
        # The weights of levels 0 and 1 are those of two logits 0 and l: one is 1.
        logits = logits[..., 0]
        smaller = _exp(-logits.abs() / temperature)
        zero = torch.where(logits < 0, 1.0, smaller)
        return (zero <= u * (1 + smaller)).to(torch.uint8)
    weights = _exp((logits - logits.amax(-1, keepdim=True)) / temperature)
    sums = weights.cumsum(-1)
    # Without the second condition a sum by halves, as GPUs do it, could rise at a weight of 0 by rounding.
    passed = (sums > u[..., None] * sums[..., -1:]) & (weights > 0)
    return passed.to(torch.uint8).argmax(-1).to(torch.uint8)


def _exp(x):
    return torch.where(x < _LEAST, 0.0, x.exp())
