"""Losses of a mixture of logistics for RGB, in the order of parameters of PixelCNN++, written with torch alone."""

import math

import torch
from torch.nn import functional as F


def mixture(out, images, levels=6):
    """-log p of discretised logistics, [n]: K logits, then for R, G and B each K means, log-scales and coefficients."""
    x = images.double() / (levels - 1) * 2 - 1
    out = out.double()
    k = out.shape[1] // 10
    weights, rest = out[:, :k].log_softmax(1), out[:, k:].unflatten(1, (3, 3, k))
    means, scales, c = rest[:, :, 0], rest[:, :, 1].clamp(min=-7), rest[:, :, 2].tanh()
    r, g, b = x[:, 0, None], x[:, 1, None], x[:, 2, None]
    shifted = [means[:, 0], means[:, 1] + c[:, 0] * r, means[:, 2] + c[:, 1] * r + c[:, 2] * g]
    total, half = weights, 1 / (levels - 1)
    for value, mean, scale in zip((r, g, b), shifted, scales.unbind(1)):
        above = torch.where(value > 1 - half, 1.0, ((value + half - mean) / scale.exp()).sigmoid())
        below = torch.where(value < -1 + half, 0.0, ((value - half - mean) / scale.exp()).sigmoid())
        total = total + (above - below).clamp(min=1e-12).log()
    return -total.logsumexp(1).flatten(1).sum(1)


def customary(out, images):
    """As PixelCNN++ computes it in float32: of an unlikely level the density takes the place of the mass."""
    x = images.float() / 127.5 - 1
    k = out.shape[1] // 10
    weights, rest = out[:, :k].log_softmax(1), out[:, k:].unflatten(1, (3, 3, k))
    means, scales, c = rest[:, :, 0], rest[:, :, 1].clamp(min=-7), rest[:, :, 2].tanh()
    r, g, b = x[:, 0, None], x[:, 1, None], x[:, 2, None]
    shifted = [means[:, 0], means[:, 1] + c[:, 0] * r, means[:, 2] + c[:, 1] * r + c[:, 2] * g]
    total = weights
    for value, mean, scale in zip((r, g, b), shifted, scales.unbind(1)):
        inverse, centred = torch.exp(-scale), value - mean
        plus, minus, middle = inverse * (centred + 1 / 255), inverse * (centred - 1 / 255), inverse * centred
        delta = plus.sigmoid() - minus.sigmoid()
        density = middle - scale - 2 * F.softplus(middle) - math.log(127.5)
        log_p = torch.where(delta > 1e-5, delta.clamp(min=1e-12).log(), density)
        log_p = torch.where(value > 0.999, -F.softplus(minus), log_p)
        total = total + torch.where(value < -0.999, plus - F.softplus(plus), log_p)
    return -total.logsumexp(1).sum()
