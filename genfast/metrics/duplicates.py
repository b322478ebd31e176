"""Near duplicates: vectors that are closer than the density around them explains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genfast import ops

NEIGHBOURS = 16
FARTHEST = 0.5  # of the distance to the farthest of the neighbours: what is beyond is no duplicate, however rare


@dataclass(frozen=True)
class Duplicates:
    """What `near_duplicates` returns, the nearest pair first.

    Attributes:
        pairs: int64 [P, 2], the lower number first.
        distance: float64 [P].
        ratio: float64 [P], that distance over the distance to the `NEIGHBOURS`-th neighbour.
        p: float64 [P], the probability that any of all vectors has a neighbour so near, by Bonferroni.
        limit: the ratio below which half of the vectors would be found to have a duplicate.
    """

    pairs: Tensor
    distance: Tensor
    ratio: Tensor
    p: Tensor
    limit: float


def near_duplicates(x: Tensor, *, level: float = 0.01) -> Duplicates:
    """Pairs that are nearer to each other than the k nearest neighbours of one of them say.

    ::

        P(d_1 / d_k < r) = 1 - (1 - r^D)^(k - 1)     for points that are locally uniform in D dimensions

    D is estimated at each point from the distances of its neighbours, without the nearest, and of theirs; it is at
    least the median of all points.

    Args:
        x: float [n, F].
        level: of the whole set: the probability to find one where there is none.
    Returns: `Duplicates`; nothing of fewer than 2 `NEIGHBOURS` vectors.
    Paper: Maximum Likelihood Estimation of Intrinsic Dimension, Levina and Bickel 2004.
    """
    n, k = len(x), NEIGHBOURS
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"near_duplicates: x must be floats [n, F]; got {x.dtype} {tuple(x.shape)}")
    if n < 2 * k:
        none = torch.zeros(0, dtype=torch.float64, device="cpu")
        return Duplicates(none.view(0, 2).long(), none, none, none, 0.0)
    distances, indices = _others(x.cpu(), k)
    logs = (distances[:, -1:] / distances[:, 1:-1].clamp(min=1e-30)).log().mean(1)
    known = distances[:, 1] > 0  # not of several copies of a vector
    logs = torch.where(known, logs, logs[known].median() if known.any() else 1.0)
    inverse = logs[indices].mean(1)  # 1 / D, averaged over the neighbourhood
    dimension = 1 / inverse.clamp(1e-2, max(1e-2, float(inverse.median())))
    ratio = distances[:, 0] / distances[:, -1].clamp(min=1e-30)
    ratio[distances[:, -1] == 0] = 0.0
    chance = -torch.expm1((k - 1) * torch.log1p(-(ratio**dimension).clamp(max=1 - 1e-12)))
    p = (n * chance).clamp(max=1)
    found = ((p < level) & (ratio < FARTHEST)).nonzero()[:, 0]
    pairs = torch.stack((found, indices[found, 0]), 1).sort(1).values
    order = ratio[found].argsort(stable=True)
    pairs, found = pairs[order], found[order]
    first = _firsts(pairs)
    limit = (level / n / (k - 1)) ** float(inverse.median())
    found = found[first]
    return Duplicates(pairs[first], distances[found, 0], ratio[found], p[found], min(FARTHEST, limit))


def _others(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and indices of the k nearest other rows: float64 and int64 [n, k]."""
    _, indices = ops.nearest_neighbors(x, x, k + 1)
    own = indices == torch.arange(len(x), dtype=torch.int64, device="cpu")[:, None]
    own[:, -1] |= ~own.any(1)  # of many copies of a vector the vector itself may not be among the first
    indices = indices[~own].view(len(x), k)
    distances = (x.double()[:, None] - x.double()[indices]).norm(dim=2) if len(x) * k * x.shape[1] < 2**26 else None
    if distances is None:
        parts = zip(x.double().split(1024), indices.split(1024))
        distances = torch.cat([(part[:, None] - x[near].double()).norm(dim=2) for part, near in parts])
    return distances, indices


def _firsts(pairs: Tensor) -> Tensor:
    """Where a pair occurs for the first time."""
    seen: set[tuple[int, ...]] = set()
    kept = [i for i, pair in enumerate(map(tuple, pairs.tolist())) if not (pair in seen or seen.add(pair))]  # type: ignore[func-returns-value]
    return torch.tensor(kept, dtype=torch.int64, device="cpu")
