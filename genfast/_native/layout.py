"""The two memory layouts of an image that kernels read in place: `torch.contiguous_format` and `channels_last`."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels_first(tensor: Tensor) -> Tensor:
    """[B, C, H, W] or [B, C, L, H, W] with the places H W C as one dimension, and the levels behind it."""
    return tensor.movedim((-2, -1), (1, 2)).flatten(1, 3)


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor [B, C, H, W] in channels-last memory."""
    return tensor.contiguous(memory_format=torch.channels_last)


def channels_innermost(tensor: Tensor) -> bool:
    """Whether each image of [B, ..., H, W] lies in memory as [H, W, ...], as a channels_last convolution leaves it, and
    is not contiguous as well, as that of one pixel is. So it is for some of the images if it is for all."""
    if tensor.ndim < 4 or tensor.is_contiguous():
        return False
    image = tensor[:1]
    return not image.is_contiguous() and image.movedim((-2, -1), (1, 2)).is_contiguous()


def in_place_or_copy(tensor: Tensor) -> Tensor:
    """The tensor itself where its layout is one of the two, else a copy in the nearer one."""
    if not channels_innermost(tensor):
        return tensor.contiguous()
    inner = tensor.movedim((-2, -1), (1, 2))
    return tensor if inner.is_contiguous() else inner.contiguous().movedim((1, 2), (-2, -1))


def contiguous_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty contiguous tensor of the same shape. `new_empty` takes twice the time for a shape."""
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


def empty_like(tensor: Tensor) -> Tensor:
    """An empty tensor of the same layout, or contiguous where the layout is neither of the two."""
    if not channels_innermost(tensor):
        return tensor.new_empty(tensor.shape)
    batch, *channels, height, width = tensor.shape
    return tensor.new_empty((batch, height, width, *channels)).movedim((1, 2), (-2, -1))
