"""What is drawn for a pixel, and its probability: the heads of a pixel program. Everything is computed in float64.

Logits are float32 [..., L], or [..., 1], the logit of level 1 of two; the parameters of a mixture [..., P].
"""

import torch
from torch.nn.functional import logsigmoid

from genfast.random.inverse_cdf import inverse_cdf
from genfast.random.philox import uniform
from genfast.reference.logistic_mixture import inverse_mixture, logistic_mixture_nll_ref


def row_uniforms(program, images, row, seed, draw, device):
    """The random numbers of row `row` of the images numbered `images` (range), float64: [2, n, W, C] for a mixture,
    component and channels, where only channel 0 of the first is used; else [1, n, W, C]."""
    image = images.start + torch.arange(len(images), device=device)[:, None, None]
    width, channels = program.width, program.channels
    place = row * width * channels + torch.arange(width * channels, device=device).view(width, channels)
    draws = (2 * draw, 2 * draw + 1) if program.head == "mixture" else (draw,)
    return torch.stack([uniform(seed, image, place, number) for number in draws])


def draw_levels(program, parameters, u, temperature, evidence=None):
    """Levels of one draw for a pixel: uint8 [n, 1], of a mixture [n, C].

    Args:
        parameters: [n, L or P].
        u: float64 [n, C] of this pixel: two of them for a mixture, else one, [n].
        evidence: [n, L] or None: level l has the weight p_T(l) * exp(evidence[l]).
    """
    if program.head == "mixture":
        component, channels = u
        parameters = parameters[:, :, None, None]
        channels = channels[:, :, None, None]
        drawn = inverse_mixture(parameters, program.levels, component[:, :1, None, None], channels, temperature)
        return drawn[:, :, 0, 0]
    if evidence is not None:
        if program.head == "bernoulli":
            evidence = evidence[:, 1:] - evidence[:, :1]
        parameters = parameters.double() / temperature + evidence
        temperature = 1.0
    return inverse_cdf(parameters, u, temperature)[:, None]


def log_prob(program, parameters, values):
    """log p of `values` uint8 [n, W, channels of the draw] by the parameters [n, W, L or P] of one draw: [n, W]."""
    if program.head == "mixture":
        n, width = values.shape[:2]
        x, params = (t.flatten(0, 1)[:, :, None, None] for t in (values, parameters.double()))
        return -logistic_mixture_nll_ref(x, params, program.levels).view(n, width)
    return log_softmax(parameters).gather(-1, values.long())[..., 0]


def log_evidence(parameters, temperature, evidence):
    """log of the sum over the levels of p_T(l) exp(evidence[l]), of `evidence` [n, W, L]: [n, W]."""
    return (log_softmax(parameters, temperature) + evidence).logsumexp(-1)


def log_softmax(logits, temperature=1.0):
    """The logarithms of the probabilities of all levels [..., L]."""
    logits = logits.double() / temperature
    if logits.shape[-1] == 1:
        return torch.cat((logsigmoid(-logits), logsigmoid(logits)), -1)
    return logits.log_softmax(-1)
