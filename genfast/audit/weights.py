"""Weights of images under which what goes together in a set does so no more."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 20.0  # the largest weight, of 1 on average


@dataclass(frozen=True)
class Weights:
    """What `balance` returns.

    Attributes:
        values: float64 [n], 1 on average.
        what: what they balance, in words.
        before, after: mutual information of the two factors in nats; of one factor, how far its groups are from equal.
        effective: (sum w)^2 / sum w^2, the number of equal images with the same variance of a mean.
    """

    values: Tensor
    what: str
    before: float
    after: float
    effective: float


def balance(what: str, groups: Tensor, factor: Tensor | None = None, *, level: bool = False) -> Weights:
    """Weights that make a factor independent of groups, or groups equal.

    ::

        w = p(factor) p(group) / p(factor, group)            with `level`: 1 / G in the place of p(group)

    Args:
        what: in words.
        groups: int64 [n]; -1 for none, whose weight is 1.
        factor: int64 [n], or None: there is none.
        level: whether the groups become equal as well.
    Returns: `Weights`; no weight is above 20 times the mean.
    Paper: Data preprocessing techniques for classification without discrimination, Kamiran and Calders 2012, section
        4.2.
    """
    factor = torch.zeros_like(groups) if factor is None else factor
    kept = (groups >= 0) & (factor >= 0)
    height, width = int(groups.max()) + 1, int(factor.max()) + 1
    cell = (groups * width + factor).clamp(min=0)
    table = torch.bincount(cell[kept], minlength=height * width).double().view(height, width)
    share = table / table.sum()
    wanted = share.sum(0) * (torch.full_like(share[:, :1], 1 / height) if level else share.sum(1, keepdim=True))
    weights = torch.ones(len(groups), dtype=torch.float64, device="cpu")
    weights[kept] = (wanted / share.clamp(min=1e-300)).flatten()[cell[kept]]
    weights = (weights / weights.mean()).clamp(max=MOST)
    weights = weights / weights.mean()
    after = torch.zeros(height * width, dtype=torch.float64, device="cpu").index_add_(0, cell[kept], weights[kept])
    measure = _apart if width > 1 else _unequal
    effective = float(weights.sum().square() / weights.square().sum())
    return Weights(weights, what, measure(share), measure((after / after.sum()).view(height, width)), effective)


def weights_csv(weights: Weights, files: Sequence[str]) -> bytes:
    """A CSV file with a row for each image: its number, the name of its file where it has one, its weight."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "file", "weight"] if files else ["index", "weight"])
    for number, weight in enumerate(weights.values.tolist()):
        writer.writerow([number, files[number], f"{weight:.6g}"] if files else [number, f"{weight:.6g}"])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _apart(share: Tensor) -> float:
    """Mutual information in nats of a table of shares."""
    expected = share.sum(0) * share.sum(1, keepdim=True)
    return max(0.0, float((torch.xlogy(share, share) - torch.xlogy(share, expected)).sum()))


def _unequal(share: Tensor) -> float:
    """KL divergence in nats of shares from equal ones."""
    flat = share.flatten()
    return max(0.0, float(torch.xlogy(flat, flat * len(flat)).sum()))
