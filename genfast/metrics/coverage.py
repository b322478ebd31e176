"""Mode coverage: which classes of the data occur among generated samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from genfast.engine.arguments import as_tensor


@dataclass(frozen=True)
class Coverage:
    """The classes of generated samples beside those of the data.

    Attributes:
        hit, classes: the number of classes of the data that the samples reach, and that there are.
        kl: KL(generated || data) of the class frequencies, in nats, 0 to infinity.
        outside: the share of the samples that are of no class.
        shares: float64 [K], the class frequencies of the other samples.
    """

    hit: int
    classes: int
    kl: float
    outside: float
    shares: torch.Tensor


def mode_coverage(predicted: ArrayLike, labels: ArrayLike, classes: int, least: float = 0.1) -> Coverage:
    """Compare the classes of generated samples with those of the data.

    A class is hit if its frequency among the samples is at least `least` times that in the data; so a few misclassified
    samples do not hide that a class is lost. With K equally frequent classes, a generator of one class has a KL of
    log K, of half of them log 2.

    Args:
        predicted: integers [N], 0 .. classes - 1, from a classifier; -1 for a sample of no class.
        labels: integers [M], of the data; or floats [classes], the class frequencies.
        classes: K.
        least: 0 to 1.
    Returns: Coverage; if all samples are outside, no class is hit and the KL is infinite.
    Raises: ValueError for labels out of range, or no labels.
    """
    predicted, labels = as_tensor(predicted).cpu(), as_tensor(labels).cpu()
    if labels.is_floating_point():
        expected = labels.double()
        if labels.shape != (classes,) or not (expected >= 0).all() or not expected.sum() > 0:
            raise ValueError(f"mode_coverage: labels must be shares [K] with K={classes}; got {tuple(labels.shape)}")
    else:
        expected = _counts("labels", labels, classes, 0)[0]
    counts, outside = _counts("predicted", predicted, classes, -1)
    expected = expected / expected.sum()
    inside = counts.sum()
    shares = counts / inside.clamp(min=1)
    kl = (
        float(torch.special.xlogy(shares, shares / expected).nan_to_num(nan=0.0, posinf=math.inf).sum())
        if inside
        else math.inf
    )
    there = expected > 0
    hit = (counts > 0) & (shares >= least * expected) & there
    return Coverage(int(hit.sum()), int(there.sum()), max(0.0, kl), outside / len(predicted), shares)


def _counts(name: str, labels: Tensor, classes: int, lowest: int) -> tuple[Tensor, int]:
    if labels.is_floating_point() or labels.ndim != 1 or not len(labels):
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"mode_coverage: {name} must be integers [N], at least one; got {got}")
    low, high = int(labels.min()), int(labels.max())
    if low < lowest or high >= classes:
        raise ValueError(f"mode_coverage: {name} must lie in {lowest}..{classes - 1}; got {low} to {high}")
    inside = labels[labels >= 0]
    return torch.bincount(inside, minlength=classes).double(), len(labels) - len(inside)
