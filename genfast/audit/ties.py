"""Ties: whether colour and lighting go with what images show, or with a column, and what imbalance would be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genfast.audit.clusters import clusters
from genfast.audit.columns import Column
from genfast.audit.pixels import Factor, content_features, content_kinds, factors, take_apart
from genfast.metrics.dependence import Dependence, benjamini_hochberg, dependence, g_statistics

SHARES = (0.52, 0.54, 0.56, 0.58, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
TRIALS = 60
ENOUGH = 0.8  # of the trials, for an imbalance that is said to be found


@dataclass(frozen=True)
class Tie:
    """A factor of the pixels and what it was held against.

    Attributes:
        factor: "colour" or "lighting".
        other: "content", or the name of a column.
        result: of the test; its `partition` is the grain of the contents.
        table: int64 [groups of the other, groups of the factor], how many images have both.
        groups: of the other, int64 [n], -1 for none.
        names: of the groups of the other.
    """

    factor: Factor
    other: str
    result: Dependence
    table: Tensor
    groups: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class Ties:
    """What `ties_of` returns.

    Attributes:
        ties: the factors that vary, with the contents and with each column; q: of each, over all of them.
        content: features of the contents, float [n, D]; partitions: their kinds at every grain, int64 [grains, n].
    """

    ties: tuple[Tie, ...]
    q: tuple[float, ...]
    content: Tensor
    partitions: Tensor


@dataclass(frozen=True)
class Power:
    """The power of the test of a tie, measured by planting one.

    Attributes:
        shares: share of the images of either half whose factor is that of their half; 0.5 is no imbalance.
        found: the share of planted sets that the test finds.
        smallest: the smallest share from which on at least 80 % are found; None if none is.
        level: of the test.
        trials: planted sets for each share.
    """

    shares: tuple[float, ...]
    found: tuple[float, ...]
    smallest: float | None
    level: float
    trials: int


def ties_of(images: Tensor, levels: int, columns: Sequence[Column] = (), seed: int = 0) -> Ties:
    """Every tie of colour and lighting of images, levels uint8 [n, C, H, W], with their contents and with columns."""
    parts = take_apart(images, levels)
    content = content_features(parts)
    partitions, found = content_kinds(content, seed), factors(parts, seed)
    asked = [tie(factor, "content", partitions, seed=seed) for factor in found]
    for column in columns:
        asked += [tie(factor, column.name, column.codes[None], column.groups, seed) for factor in found]
    ties = tuple(t for t in asked if t is not None)
    p = torch.tensor([t.result.p for t in ties], dtype=torch.float64, device="cpu")
    return Ties(ties, tuple(benjamini_hochberg(p).tolist()), content, partitions)


def tie(factor: Factor, other: str, partitions: Tensor, names: Sequence[str] = (), seed: int = 0) -> Tie | None:
    """A factor against partitions int64 [m, n]; None if one of the two does not vary."""
    kept = (factor.codes >= 0) & (partitions >= 0).all(0)
    codes = torch.where(kept, factor.codes, -1)
    if len(codes[kept].unique()) < 2 or int(partitions[:, kept].amax()) < 1:
        return None
    result = dependence(codes, partitions.clamp(min=0), seed=seed)
    groups = torch.where(kept, partitions[result.partition], -1)
    height, width = int(groups.max()) + 1, int(codes.max()) + 1
    table = torch.bincount(groups[kept] * width + codes[kept], minlength=height * width).view(height, width)
    labels = tuple(names) or tuple(f"kind {number + 1}" for number in range(height))
    return Tie(factor, other, result, table, groups, labels)


def power(features: Tensor, partitions: Tensor, level: float, seed: int = 0) -> Power:
    """The power of the test against ties of a factor of two equally frequent values to halves of the contents.

    A half is five of ten clusters of the contents, chosen at random for each planted set; these clusters are not those
    that the test looks at. An image has the value of its half with probability `share`.

    Args: features (of the contents, float [n, D]); partitions (that the test looks at, int64 [m, n]); level; seed.
    """
    return planted(clusters(features, 10, seed + 1)[0], partitions, level, seed)


def planted(kinds: Tensor, partitions: Tensor, level: float, seed: int = 0) -> Power:
    """`power` of ties to halves of given kinds int64 [n], -1 for none."""
    kept = kinds >= 0
    kinds, partitions = kinds[kept], partitions[:, kept]
    n, count = len(kinds), int(kinds.max()) + 1
    generator = torch.Generator("cpu").manual_seed(seed)
    fair = torch.randint(2, (n,), generator=generator, dtype=torch.int64, device="cpu")
    _, null = g_statistics(fair, partitions, seed=seed)
    mean, spread = null.mean(0), null.std(0, correction=0).clamp(min=1e-9)
    threshold = float(((null - mean) / spread).amax(1).quantile(1 - level))
    found = []
    for share in SHARES:
        values = []
        for _ in range(TRIALS):
            order = torch.randperm(count, generator=generator, dtype=torch.int64, device="cpu")
            tied = torch.rand(n, generator=generator, dtype=torch.float32, device="cpu") < share
            values.append((order < count // 2)[kinds] ^ ~tied)
        statistics = g_of_planted(torch.stack(values).long(), partitions)
        found.append(float((((statistics - mean) / spread).amax(1) > threshold).double().mean()))
    enough = [share for i, share in enumerate(SHARES) if min(found[i:]) >= ENOUGH]
    return Power(SHARES, tuple(found), enough[0] if enough else None, level, TRIALS)


def g_of_planted(values: Tensor, partitions: Tensor) -> Tensor:
    """G of values 0 or 1, int64 [trials, n], with each partition: float64 [trials, m]."""
    n, columns = values.shape[1], []
    ones = values.double()
    for partition in partitions:
        totals = torch.bincount(partition).double()
        hot = torch.nn.functional.one_hot(partition).float()
        first = (ones.float() @ hot).double()
        table = torch.stack((first, totals - first), 2)
        shares = torch.stack((ones.sum(1), n - ones.sum(1)), 1)[:, None]
        expected = totals[:, None] * shares / n
        columns.append(2 * (torch.xlogy(table, table) - torch.xlogy(table, expected)).sum((1, 2)))
    return torch.stack(columns, 1)
