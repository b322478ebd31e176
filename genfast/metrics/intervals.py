"""Intervals of what is measured on a sample of images: the bootstrap, and exact tails of counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 1000
ENTRIES = 2**24  # of a block of weights


@dataclass(frozen=True)
class Interval:
    """A value with an interval, of 95 % where nothing else is said."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def bootstrap_means(values: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """Means of the columns over resamples of the rows, by weights that are Poisson of mean 1.

    Args: values (float [n, K], n at least 1), resamples, seed.
    Returns: float64 [resamples, K].
    """
    values = values.detach().double().cpu()
    generator = torch.Generator("cpu").manual_seed(seed)
    rate = torch.ones(max(1, ENTRIES // len(values)), len(values), dtype=torch.float64, device="cpu")
    parts, left = [], resamples
    while left > 0:
        weights = torch.poisson(rate[: min(left, len(rate))], generator=generator)
        weights[weights.sum(1) == 0] = 1.0
        parts.append(weights @ values / weights.sum(1, keepdim=True))
        left -= len(weights)
    return torch.cat(parts)


def bounded(value: float, resampled: Tensor, level: float = 0.95) -> Interval:
    """A value with the interval of its resamples [R] by quantiles."""
    tail = (1 - level) / 2
    low, high = torch.quantile(resampled.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64, device="cpu"))
    return Interval(value, float(low), float(high))


def ratio_interval(above: Tensor, below: Tensor, *, level: float = 0.95, seed: int = 0) -> Interval:
    """The ratio of two means, `mean(above) / mean(below)`, with a bootstrap interval over both sets.

    Args: above, below: float [n] and [m]; level of the interval; seed.
    Returns: Interval.
    """
    up, down = bootstrap_means(above[:, None], seed=seed), bootstrap_means(below[:, None], seed=seed + 1)
    value = float(above.double().mean()) / max(float(below.double().mean()), 1e-300)
    return bounded(value, (up / down.clamp(min=1e-300))[:, 0], level)


def difference_interval(one: Tensor, other: Tensor, *, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `one - other` of the same images, with a bootstrap interval over the images. Args: float [n] each."""
    differences = one.double() - other.double()
    return bounded(float(differences.mean()), bootstrap_means(differences[:, None], seed=seed)[:, 0], level)


def at_most(count: int, trials: int, share: float) -> float:
    """P(X <= count) of a binomial X of so many trials, each with the probability `share`."""
    if share <= 0 or count >= trials:
        return 1.0
    if share >= 1:
        return 0.0
    terms = (_log_choose(trials, k) + k * math.log(share) + (trials - k) * math.log1p(-share) for k in range(count + 1))
    return min(1.0, sum(map(math.exp, terms)))


def at_least_of(hits: int, taken: int, marked: int, total: int) -> float:
    """P(X >= hits) of a hypergeometric X: the marked ones among `taken` of `total` items of which `marked` are."""
    whole = _log_choose(total, taken)
    terms = (
        _log_choose(marked, k) + _log_choose(total - marked, taken - k) - whole
        for k in range(max(hits, taken + marked - total, 0), min(taken, marked) + 1)
    )
    return min(1.0, sum(map(math.exp, terms)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
