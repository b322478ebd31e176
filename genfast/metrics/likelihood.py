"""Units of likelihoods, and the baseline of independent pixels."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

N = TypeVar("N", float, Tensor)


def bits_per_dim(nats: N, dims: int) -> N:
    """Nats per image -> bits per dimension: `nats / (dims log 2)`, where `dims` is C * H * W."""
    if dims < 1:
        raise ValueError(f"bits_per_dim: dims must be at least 1; got {dims}")
    return nats / (dims * math.log(2))


def independent_pixel_nll(train: Tensor, test: Tensor, levels: int, pseudocount: float = 0.5) -> float:
    """Negative log-likelihood of a baseline in which all values of an image are independent.

    `p(x_k = v) = (count_k(v) + a) / (N + a L)`, with counts from `train` and the pseudocount a.

    Args:
        train: uint8 [N, C, H, W], levels 0..levels-1.
        test: uint8 [M, C, H, W].
        levels: number of levels L.
        pseudocount: a, above 0; 1/2 is Jeffreys' prior.
    Returns: mean over `test` in nats per image, a float.
    Raises: ValueError for shapes that differ, an empty set, or a level out of range.
    """
    if train.shape[1:] != test.shape[1:] or not len(train) or not len(test):
        raise ValueError(
            f"independent_pixel_nll: expected train and test sets of one image shape; "
            f"got {tuple(train.shape)} and {tuple(test.shape)}"
        )
    for name, images in (("train", train), ("test", test)):
        if (top := int(images.max())) >= levels:
            raise ValueError(f"independent_pixel_nll: {name} must lie in 0..{levels - 1}; got {top}")
    chance = (_counts(train, levels) + pseudocount) / (len(train) + pseudocount * levels)
    return float(-(_counts(test, levels) * chance.log()).sum() / len(test))


def _counts(images: Tensor, levels: int, chunk: int = 512) -> Tensor:
    """Counts of the levels of each value: [C * H * W, L]; in chunks, to bound memory."""
    dims = images[0].numel()
    first = torch.arange(dims, dtype=torch.int64, device="cpu") * levels
    counts = torch.zeros(dims * levels, dtype=torch.int64, device="cpu")
    for part in images.cpu().flatten(1).split(chunk):
        counts += torch.bincount((part + first).flatten(), minlength=dims * levels)
    return counts.view(dims, levels).double()
