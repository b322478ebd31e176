"""Whether generated images are copies of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.metrics.intervals import at_least_of

THRESHOLDS = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7)
SHIFTED = 2e11  # products of a comparison that is made for shifted images too
SHIFTS = [(0, 0)] + [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


@dataclass(frozen=True)
class Memorisation:
    """Nearest-neighbour ratios of generated images beside those of held-out images.

    Attributes:
        median, held_out: medians of the ratio: near 0 for a copy of one training image, near 1 for an image that is as
            far from the nearest as from the next one.
        threshold: at which there is the most evidence.
        near, near_held_out: shares of the distinct generated, and of the held-out, images with a smaller ratio.
        p: of the hypothesis that the generated images have no more of them, exact, for all thresholds together.
        images: distinct generated images.
        pairs: int64 [images, 2], (generated image, training image nearest to it), the smallest ratios first.
    """

    median: float
    held_out: float
    threshold: float
    near: float
    near_held_out: float
    p: float
    images: int
    pairs: Tensor


def neighbour_ratios(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each image to its nearest training image over that to the second nearest.

    Distances are Euclidean, of pixels; the smallest over shifts by one pixel where the sets are small enough.

    Args: images, training: uint8 [n, C, H, W] and [m, C, H, W], m at least 2.
    Returns: (ratios float64 [n], in [0, 1], and 1 where both distances are 0; the nearest, int64 [n]).
    """
    base = training.cpu().flatten(1).float()
    shifts = SHIFTS if float(len(images)) * len(base) * base.shape[1] * len(SHIFTS) <= SHIFTED else SHIFTS[:1]
    ratios, nearest = [], []
    for part in images.cpu().float().split(max(1, 2**24 // len(base))):
        padded = F.pad(part, (1, 1, 1, 1), mode="replicate")
        height, width = part.shape[2:]
        best = torch.full((len(part), len(base)), torch.inf, dtype=torch.float32, device="cpu")
        for down, right in shifts:
            moved = padded[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width].flatten(1)
            torch.minimum(best, _distances(moved, base), out=best)
        values, rows = best.double().topk(2, dim=1, largest=False)
        ratios.append(torch.where(values[:, 1] > 0, values[:, 0] / values[:, 1].clamp(min=1e-300), 1.0))
        nearest.append(rows[:, 0])
    return torch.cat(ratios), torch.cat(nearest)


def memorisation(images: Tensor, training: Tensor, held_out: Tensor) -> Memorisation:
    """Compare the nearest-neighbour ratios of generated images with those of held-out images.

    `r(x) = |x - nearest training image| / |x - second nearest|`, which is small for a copy, also one with noise, and
    does not depend on how far from all images a model's draws are. If the model knows no more of its training images
    than that they are such images, its draws have small ratios no more often than held-out images: the test is exact,
    hypergeometric, at each of `THRESHOLDS`, with Bonferroni's correction. Copies of one generated image count once.

    Args:
        images: generated, uint8 [n, C, H, W], n at least 1.
        training: that the model was trained on, uint8 [m, C, H, W], m at least 2.
        held_out: of the same kind, that it was not trained on, uint8 [k, C, H, W], k at least 1.
    Returns: Memorisation.
    Raises: ValueError for sets of different shapes or too few images.
    """
    sizes = [tuple(x.shape) for x in (images, training, held_out)]
    if len({size[1:] for size in sizes}) > 1 or min(len(images), len(held_out)) < 1 or len(training) < 2:
        expected = "sets of one shape, of at least 1, 2 and 1 images"
        raise ValueError(f"memorisation: images, training and held_out must be {expected}; got {sizes}")
    distinct, which = torch.unique(images.cpu().flatten(1), dim=0, return_inverse=True)
    rows = torch.zeros(len(distinct), dtype=torch.int64, device="cpu")
    rows[which] = torch.arange(len(images), dtype=torch.int64, device="cpu")
    ratios, nearest = neighbour_ratios(images.cpu()[rows], training)
    of_held_out = neighbour_ratios(held_out, training)[0]
    best = (1.0, THRESHOLDS[0])
    for threshold in THRESHOLDS:
        hits, others = int((ratios <= threshold).sum()), int((of_held_out <= threshold).sum())
        p = at_least_of(hits, len(ratios), hits + others, len(ratios) + len(of_held_out))
        best = min(best, (p, threshold))
    p, threshold = min(1.0, best[0] * len(THRESHOLDS)), best[1]
    near, near_held_out = (float((x <= threshold).double().mean()) for x in (ratios, of_held_out))
    order = ratios.argsort()
    pairs = torch.stack((rows[order], nearest[order]), 1)
    median, held_out_median = (float(x.median()) for x in (ratios, of_held_out))
    return Memorisation(median, held_out_median, threshold, near, near_held_out, p, len(ratios), pairs)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """[n, D] and [m, D] of whole numbers -> distances [n, m], exact where float32 holds the squares."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return squares.clamp(min=0).sqrt()
