"""Which modes of the data generated samples reach, by the classes that they are taken for."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Coverage:
    """`hit` of the `classes` that the data have are reached; `kl`: KL(generated || data) of the shares of the classes,
    in nats, 0 to infinity; `outside`: the share of all samples that are of no class; `shares`: float64 [K], the classes
    of the others, 0 for a class that the data have not."""

    hit: int
    classes: int
    kl: float
    outside: float
    shares: torch.Tensor


def mode_coverage(predicted, labels, classes, least=0.1):
    """How the classes of generated samples compare with those of the data.

    A class is hit if its share of the generated samples is at least `least` of its share of the data: one sample
    that a classifier takes for another class does not hide a lost one. A generator of one of K equally frequent
    classes has a KL of log K; of half of them, log 2.

    Args:
        predicted: integers [N], 0 .. classes - 1 as a classifier names them; -1 for a sample that is of none.
        labels: integers [M], of the data; or floats [classes], the shares of the classes.
        classes: how many, K.
        least: 0 to 1.
    Returns: Coverage; with every sample outside no class is hit and the KL is infinite.
    Raises: ValueError for labels out of range, or none.
    """
    predicted, labels = torch.as_tensor(predicted).cpu(), torch.as_tensor(labels).cpu()
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


def _counts(name, labels, classes, lowest):
    if labels.is_floating_point() or labels.ndim != 1 or not len(labels):
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"mode_coverage: {name} must be integers [N], at least one; got {got}")
    low, high = int(labels.min()), int(labels.max())
    if low < lowest or high >= classes:
        raise ValueError(f"mode_coverage: {name} must lie in {lowest}..{classes - 1}; got {low} to {high}")
    inside = labels[labels >= 0]
    return torch.bincount(inside, minlength=classes).double(), len(labels) - len(inside)
