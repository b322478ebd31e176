"""Conditionals in float64: how likely a level below each value is, by the parameters of its likelihood."""

import numpy as np
import torch
from scipy.special import expit

from genfast.engine.program import Buffer, Program, Read
from genfast.engine.protocols import ImageSpec

WHOLE = 2**24


def of_parameters(likelihood, parameters):
    """The program of images [C, 1, 1] whose only pixel has these parameters, [P], whatever was drawn before."""
    counts = likelihood.counts
    ends = np.cumsum([0, *counts])
    spec = ImageSpec(likelihood.channels, 1, 1, likelihood.levels)
    buffers = [Buffer(spec.channels, 1)]
    buffers += [Buffer(count, 1, fill=parameters[end - count : end].numpy()) for count, end in zip(counts, ends[1:])]
    reads = [Read(1 + draw, 0, 0, 0, count) for draw, count in enumerate(counts)]
    return Program(spec, likelihood, 1, 1.0, 0.0, 0, buffers, [], [[] for _ in (*counts, 0)], reads)


def below(likelihood, parameters, images):
    """P(level < x) and P(level <= x) of values x of images [n, C, H, W], by parameters [n or 1, P, H, W]: float64."""
    levels, parameters = images.long(), parameters.double()
    if likelihood.name == "mixture":
        return _below_of_mixture(likelihood, parameters.numpy(), levels.numpy())
    if likelihood.name == "bernoulli":
        logits = torch.stack((torch.zeros_like(parameters), parameters), 2)
    else:
        logits = parameters.unflatten(1, (likelihood.channels, likelihood.levels))
    sums = logits.softmax(2).cumsum(2)
    sums = torch.cat((torch.zeros_like(sums[:, :, :1]), sums[:, :, :-1], torch.ones_like(sums[:, :, :1])), 2)
    sums = sums.expand(len(levels), *sums.shape[1:])
    return [sums.gather(2, (levels + upper)[:, :, None])[:, :, 0].numpy() for upper in (0, 1)]


def _below_of_mixture(likelihood, parameters, levels):
    channels, last = likelihood.channels, likelihood.levels - 1
    rows = parameters.reshape(len(parameters), -1, likelihood.mixtures, *parameters.shape[2:])
    weights = torch.from_numpy(rows[:, 0]).softmax(1).numpy()
    ends = np.zeros((2, *levels.shape))
    for c in range(channels):
        mean = rows[:, 1 + c]
        for i in range(c):
            mean = mean + np.tanh(rows[:, 2 * channels + c + i]) * (2 * levels[:, i, None] / last - 1)
        scale = np.exp(np.maximum(rows[:, 1 + channels + c], -7))
        masses = []
        for upper in (0, 1):
            edge = levels[:, c, None] + upper
            masses.append(expit(((2 * edge - 1 - last) / last - mean) / scale))
            masses[upper] = np.where(edge == 0, 0, np.where(edge > last, 1, masses[upper]))
            ends[upper][:, c] = (weights * masses[upper]).sum(1)
        joint = weights * (masses[1] - masses[0])
        if c + 1 < channels:
            weights = joint / joint.sum(1, keepdims=True)
    return list(ends)


def assert_shares(intervals, likelihood, parameters, images):
    """Intervals [n, C, H, W, 2] are those of the levels, 2 parts and the share of the others for each: to a part."""
    levels, whole = images.long().numpy(), WHOLE - 2 * likelihood.levels
    ends = below(likelihood, parameters, images)
    for upper in (0, 1):
        edge = intervals[..., 0].astype(np.float64) + upper * intervals[..., 1]
        exact = 2 * (levels + upper) + whole * ends[upper]
        exact = np.where(levels + upper == likelihood.levels, WHOLE, exact)
        error = edge - exact
        assert error.max() <= 1e-3 and error.min() >= -1 - 1e-3, (error.min(), error.max())


def in_order(intervals, program, tile):
    """The intervals of a block, [n, C, H, W, 2], as they are coded."""
    intervals = intervals.reshape(len(intervals), program.spec.channels, -1, 2)
    coupled = program.likelihood.couples_channels
    for first in range(0, len(intervals), tile):
        part = (
            intervals[first : first + tile].transpose(2, 0, 1, 3)
            if coupled
            else intervals[first : first + tile].transpose(2, 1, 0, 3)
        )
        yield from part.reshape(-1, 2)
