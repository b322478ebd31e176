"""What a model makes of each group of images, and which latents tell the groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genfast.audit.columns import Column
from genfast.audit.latents import Latents
from genfast.engine.calling import evaluating
from genfast.engine.protocols import Bounded, device_of
from genfast.metrics.dependence import benjamini_hochberg, equal_bins, g_statistics, permutation_p
from genfast.tasks._latent import check_call

BINS = 8


@dataclass(frozen=True)
class Group:
    """A group of images; the intervals are of 95 %.

    Attributes:
        name: of the value of the column.
        count: images.
        nats: mean of the negative bound on the log-likelihood, in nats per image; nats_half: half of its interval.
        error: mean squared error of the reconstructions, of values from 0 to 1; error_half: half of its interval.
    """

    name: str
    count: int
    nats: float
    nats_half: float
    error: float
    error_half: float


@dataclass(frozen=True)
class Told:
    """How much of a column a latent tells: mutual information in nats less that of permutations, p, and q over all
    latents."""

    latent: int
    information: float
    p: float
    q: float


@dataclass(frozen=True)
class Groups:
    """A column: its groups, and the latents that tell them, the most telling first."""

    column: str
    groups: tuple[Group, ...]
    told: tuple[Told, ...]


@torch.no_grad()
def scores(model: Any, images: Tensor, progress: Callable[[int], None] | None = None) -> tuple[Tensor, Tensor]:
    """Of each image: the negative bound in nats, and the mean squared error of its reconstruction; float64 [n]."""
    nats, errors, first = [], [], 0
    with evaluating(model):
        for part in images.split(check_call("audit", model, len(images)).size):
            x = part.to(device_of(model))
            bound = model.bound(x, first=first) if isinstance(model, Bounded) else model.log_prob(x, first=first)
            difference = (model.reconstruct(x).double() - x.double()) / (model.spec.levels - 1)
            nats.append(-bound.double().cpu())
            errors.append(difference.square().flatten(1).mean(1).cpu())
            first += len(part)
            if progress is not None:
                progress(len(part))
    return torch.cat(nats), torch.cat(errors)


def groups_of(column: Column, latents: Latents, nats: Tensor, errors: Tensor, seed: int = 0) -> Groups:
    """The groups of a column, and what of it the latents tell."""
    found = []
    for code, name in enumerate(column.groups):
        ours = column.codes == code
        (mean, half), (error, error_half) = (_interval(values[ours]) for values in (nats, errors))
        found.append(Group(name, int(ours.sum()), mean, half, error, error_half))
    generator = torch.Generator("cpu").manual_seed(seed)
    bins = equal_bins(latents.values, min(BINS, len(latents.values)), generator).T
    observed, null = g_statistics(column.codes, bins, seed=seed)
    p = permutation_p(observed, null)
    q = benjamini_hochberg(p)
    information = (observed - null.mean(0)) / (2 * len(column.codes))
    told = [
        Told(number, *values) for number, *values in zip(latents.numbers, *(x.tolist() for x in (information, p, q)))
    ]
    return Groups(column.name, tuple(found), tuple(sorted(told, key=lambda row: -row.information)))


def _interval(values: Tensor) -> tuple[float, float]:
    """(mean, half of its 95 % interval); no interval of a single value."""
    half = 1.959964 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), half
