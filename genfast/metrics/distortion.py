"""Distortion of images."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def psnr(images: Tensor, truth: Tensor, levels: int) -> float:
    """Peak signal-to-noise ratio in dB of a whole set: `10 log10((L - 1)^2 / mean squared error)`.

    Args:
        images: [N, C, H, W], levels 0..levels-1 (uint8), or floats on the same scale.
        truth: uint8 [N, C, H, W].
        levels: number of levels L.
    Returns: a float; infinite if nothing differs.
    Raises: ValueError for shapes that differ, or an empty set.
    """
    if images.shape != truth.shape or not images.numel():
        raise ValueError(
            f"psnr: images must have the shape of truth, not empty; got {tuple(images.shape)}, {tuple(truth.shape)}"
        )
    error = float((images.to(torch.float64) - truth.to(torch.float64)).square().mean())
    return 10 * math.log10((levels - 1) ** 2 / error) if error else math.inf
