"""Draws from a Bernoulli or categorical distribution."""

import torch


def inverse_cdf(logits, u):
    """The level at which the distribution function passes `u`.

    Args:
        logits: [..., L], unnormalised log-probabilities, or [..., 1], the logit of level 1 of two.
        u: [...] in [0, 1).
    Returns: uint8 [...], computed in float64.
    Example: `inverse_cdf(torch.zeros(5, 1), torch.rand(5))`
    """
    logits = logits.double()
    if logits.shape[-1] == 1:
        return (u >= torch.sigmoid(-logits[..., 0])).to(torch.uint8)
    # Rounding may leave the last sum below u: without the last level the answer cannot pass it.
    cdf = logits.softmax(-1)[..., :-1].cumsum(-1)
    return (cdf <= u[..., None]).sum(-1).to(torch.uint8)
