"""Whether two sets of images are of one distribution: the maximum mean discrepancy and shares, by permutation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.engine.arguments import check_int
from genfast.metrics.dependence import permutation_p

SETS = 64  # permutations at a time


@dataclass(frozen=True)
class TwoSample:
    """What `two_sample_test` returns.

    Attributes:
        mmd: the unbiased estimate of the squared maximum mean discrepancy, 0 in expectation for one distribution.
        low, high: its 95 % interval.
        p: the share of permutations that are at least as strong, itself counted.
        strengths: of the MMD, and of each discrete variable, in standard deviations of the permutations above their
            mean.
    """

    mmd: float
    low: float
    high: float
    p: float
    strengths: tuple[float, ...]


def two_sample_test(
    a: Tensor,
    b: Tensor,
    *,
    bins: Tensor | None = None,
    permutations: int = 999,
    features: int = 256,
    seed: int = 0,
) -> TwoSample:
    """A kernel two-sample test of all vectors, by random Fourier features of a Gaussian kernel.

    ::

        MMD^2 = |mean phi(a) - mean phi(b)|^2, without the products of a vector with itself
        phi(x) = [cos(w x), sin(w x)] / sqrt(features)       w ~ N(0, 1 / median squared distance)

    With `bins`, p is that of the largest of MMD^2 and of chi-squared of the counts of each discrete variable, each in
    standard deviations of the permutations above their mean; all are of the same permutations. The interval is that of
    a normal distribution with the variance of the witness function over both sets, and that of the permutations.

    Args:
        a, b: float [n, D] and [m, D], n and m at least 2.
        bins: discrete variables of the vectors of both sets, integers [n + m, V] of at least 0, or None.
        permutations: of which vector belongs to which set, at least 1.
        features: random frequencies.
        seed: of the frequencies and the permutations.
    Returns: `TwoSample`.
    Raises: ValueError for other shapes.
    Paper: A Kernel Two-Sample Test, Gretton et al. 2012; Random Features for Large-Scale Kernel Machines, Rahimi and
        Recht 2007.
    """
    check_int("two_sample_test", "permutations", permutations, 1)
    check_int("two_sample_test", "features", features, 1)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"two_sample_test: a and b must have shapes [n, D] and [m, D], n and m at least 2; got {got}")
    if bins is not None and (bins.ndim != 2 or len(bins) != len(a) + len(b)):
        expected = f"[{len(a) + len(b)}, V]"
        raise ValueError(f"two_sample_test: bins must have shape {expected}; got {tuple(bins.shape)}")
    generator = torch.Generator("cpu").manual_seed(seed)
    phi = _features(torch.cat((a, b)).float().cpu(), features, generator)
    n, total, hot = len(a), len(phi), [] if bins is None else _indicators(bins)
    sizes, everything = [phi.shape[1], *(part.shape[1] for part in hot)], torch.cat((phi, *hot), 1)
    totals = everything.double().sum(0).split(sizes)

    def statistics(sums: Tensor) -> Tensor:
        """MMD^2, then chi-squared of each variable, of sums over the first set."""
        first, *counts = sums.double().split(sizes, -1)
        found = [_mmd(first, totals[0], n, total)]
        return torch.stack([*found, *(_chi(c, t, n / total) for c, t in zip(counts, totals[1:], strict=True))], -1)

    observed = statistics(everything[:n].sum(0))
    null = torch.cat([statistics(sums) for sums in split_sums(everything, n, permutations, generator)])
    mean, spread = null.mean(0), null.std(0, correction=0).clamp(min=1e-15)
    strength, of_null = (observed - mean) / spread, ((null - mean) / spread).amax(1)
    p = float(permutation_p(strength.max(), of_null))
    witness = 2 * phi.double() @ (phi[:n].double().mean(0) - phi[n:].double().mean(0))
    variance = sum(float(part.var()) / len(part) for part in (witness[:n], witness[n:])) + float(spread[0]) ** 2
    half, mmd = 1.959964 * math.sqrt(variance), float(observed[0])
    return TwoSample(mmd, mmd - half, mmd + half, p, tuple(strength.tolist()))


def share_test(bins: Tensor, first: int, *, permutations: int = 999, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Which of several discrete variables differ between the first vectors and the others.

    The statistic of a variable is chi-squared of its counts in both sets; the p-value is its rank among permutations of
    which vector belongs to which set.

    Args: bins (integers [n, V] of at least 0); first (vectors of the first set); permutations; seed.
    Returns: (p float64 [V], strength float64 [V]: chi-squared in standard deviations of the permutations).
    """
    hot = _indicators(bins)
    sizes, everything = [part.shape[1] for part in hot], torch.cat(hot, 1)
    totals, share = everything.double().sum(0), first / len(bins)
    generator = torch.Generator("cpu").manual_seed(seed)

    def statistics(counts: Tensor) -> Tensor:
        parts = zip(counts.double().split(sizes, -1), totals.split(sizes), strict=True)
        return torch.stack([_chi(part, total, share) for part, total in parts], -1)

    observed = statistics(everything[:first].sum(0))
    null = torch.cat([statistics(kept) for kept in split_sums(everything, first, permutations, generator)])
    return permutation_p(observed, null), (observed - null.mean(0)) / null.std(0, correction=0).clamp(min=1e-12)


def split_sums(values: Tensor, first: int, permutations: int, generator: torch.Generator) -> list[Tensor]:
    """Sums over `first` random rows of values [n, D], once for each permutation: tensors [at most SETS, D]."""
    sums = []
    for start in range(0, permutations, SETS):
        count = min(SETS, permutations - start)
        order = torch.rand(count, len(values), generator=generator, dtype=torch.float32, device="cpu").argsort(1)
        member = torch.zeros(count, len(values), dtype=torch.float32, device="cpu")
        sums.append(member.scatter_(1, order[:, :first], 1.0) @ values)
    return sums


def _indicators(bins: Tensor) -> list[Tensor]:
    """Discrete variables [n, V] as indicators of the values that occur, float32 [n, values] each."""
    return [F.one_hot(column.unique(return_inverse=True)[1]).float() for column in bins.cpu().unbind(1)]


def _chi(counts: Tensor, totals: Tensor, share: float) -> Tensor:
    """Chi-squared, but for a factor, of counts [.., values] in a set that has this share of all vectors."""
    return ((counts - share * totals).square() / totals).sum(-1)


def _features(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """phi [n, 2 count]."""
    some = x[torch.randperm(len(x), generator=generator, dtype=torch.int64, device="cpu")[:1000]]
    distances = torch.pdist(some).square()
    scale = float(distances.median()) or float(distances.mean()) or 1.0
    w = torch.randn(x.shape[1], count, generator=generator, dtype=torch.float32, device="cpu") / math.sqrt(scale)
    angles = x @ w
    return torch.cat((angles.cos(), angles.sin()), 1) / math.sqrt(count)


def _mmd(first: Tensor, everything: Tensor, n: int, total: int) -> Tensor:
    """The unbiased estimate from sums of phi over the first set, [.., D], and over both. |phi|^2 is 1."""
    second, m = everything - first, total - n
    within = (first.square().sum(-1) - n) / (n * (n - 1)) + (second.square().sum(-1) - m) / (m * (m - 1))
    return within - 2 * (first * second).sum(-1) / (n * m)
