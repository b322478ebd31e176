"""Sharpness of images relative to real ones: the energy of their gradients and of their high frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.metrics.intervals import RESAMPLES, Interval, bootstrap_means, bounded

COLUMNS = ("gradient", "high_frequency", "contrast")


@dataclass(frozen=True)
class Sharpness:
    """Energies of images over those of real images; 1: as sharp.

    Attributes:
        gradient: of the differences of neighbouring pixels.
        high_frequency: of what a blur of 3x3 pixels takes away.
        contrast: of the differences from the mean of the image, of all frequencies.
        detail: high_frequency over contrast: what a blur takes away, and fainter images do not.
        images, real: how many distinct images were compared.
    """

    gradient: Interval
    high_frequency: Interval
    contrast: Interval
    detail: Interval
    images: int
    real: int


def image_energies(images: Tensor, levels: int) -> Tensor:
    """Mean squares, over the pixels of each image, of its gradients, its high frequencies and its contrast.

    The high frequencies are what the binomial filter [1, 2, 1] / 4 in both directions takes away; at the border pixels
    are repeated.

    Args: images (uint8 [n, C, H, W], or float, in levels); levels (of a channel).
    Returns: float64 [n, 3], in the order of `COLUMNS`, in units in which the highest level is 1.
    """
    x = images.detach().cpu().double() / (levels - 1)
    sums = [x.diff(dim=axis).square().flatten(1).sum(1) for axis in (2, 3)]
    gradient = (sums[0] + sums[1]) / x[0].numel() if len(x) else x.flatten(1).sum(1)
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64, device="cpu")
    kernel = torch.outer(weights, weights).expand(x.shape[1], 1, 3, 3)
    smooth = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])
    high = (x - smooth).square().flatten(1).mean(1)
    contrast = (x - x.mean((2, 3), keepdim=True)).square().flatten(1).mean(1)
    return torch.stack((gradient, high, contrast), 1)


def sharpness(
    images: Tensor, real: Tensor, levels: int, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Sharpness:
    """Energies of images relative to real ones::

        gradient = mean(|dx|^2 + |dy|^2 of images) / mean(of real images)
        high_frequency = mean(|x - blurred x|^2 of images) / mean(of real images)

    The intervals are of the bootstrap over both sets. Copies of one image are resampled together, so that a set with
    many copies is not taken for more than it is.

    Args:
        images: uint8 [n, C, H, W], or float, in levels; such as draws of a model, or the means that it decodes.
        real: uint8 [m, C, H, W], held-out images.
        levels: values of a channel.
        level: of the intervals.
        resamples, seed: of the bootstrap.
    Returns: Sharpness.
    Raises: ValueError for sets of different shapes, or without an image.
    """
    if images.shape[1:] != real.shape[1:] or not len(images) or not len(real):
        got = f"{tuple(images.shape)} and {tuple(real.shape)}"
        raise ValueError(f"sharpness: images and real must be sets of one shape, with one image or more; got {got}")
    means, resampled, counts = [], [], []
    for number, part in enumerate((images, real)):
        energies, weights = image_energies(part, levels), _copies(part)
        rows = torch.cat((energies, torch.ones_like(energies[:, :1])), 1)
        together = torch.zeros(int(weights.max()) + 1, rows.shape[1], dtype=torch.float64, device="cpu")
        together.index_add_(0, weights, rows)
        drawn = bootstrap_means(together, resamples, seed + number)
        means.append(energies.mean(0))
        resampled.append(drawn[:, :3] / drawn[:, 3:])
        counts.append(len(together))
    value, spread = (_ratios(*pair) for pair in (means, resampled))
    gradient, high, contrast, detail = (bounded(float(v), s, level) for v, s in zip(value, spread.T, strict=True))
    return Sharpness(gradient, high, contrast, detail, counts[0], counts[1])


def _copies(images: Tensor) -> Tensor:
    """The number of the distinct image that each image is, int64 [n]."""
    return torch.unique(images.detach().cpu().flatten(1), dim=0, return_inverse=True)[1]


def _ratios(above: Tensor, below: Tensor) -> Tensor:
    """The columns of a `Sharpness` from energies [.., 3] of both sets: [.., 4]."""
    ratio = above / below.clamp(min=1e-300)
    detail = ratio[..., 1] / ratio[..., 2].clamp(min=1e-300)
    return torch.cat((ratio, detail[..., None]), -1)
