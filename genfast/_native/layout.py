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


def is_channels_last(tensor: Tensor) -> bool:
    """Whether [B, ..., H, W] lies in memory as [B, H, W, ...], as a channels_last convolution leaves it."""
    return tensor.movedim((-2, -1), (1, 2)).is_contiguous()


def channels_innermost(tensor: Tensor) -> bool:
    """Whether the channels are innermost, and the tensor is not contiguous as well, as those of one pixel are."""
    return tensor.ndim > 3 and not tensor.is_contiguous() and is_channels_last(tensor)


def in_place_or_copy(tensor: Tensor) -> Tensor:
    """The tensor itself where its layout is one of the two, else a contiguous copy."""
    return tensor if channels_innermost(tensor) else tensor.contiguous()


def contiguous_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty contiguous tensor of the same shape. `new_empty` takes twice the time for a shape."""
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


def empty_like(tensor: Tensor) -> Tensor:
    """An empty tensor of the same layout, or contiguous where the layout is neither of the two."""
    if not channels_innermost(tensor):
        return tensor.new_empty(tensor.shape)
    batch, *channels, height, width = tensor.shape
    return tensor.new_empty((batch, height, width, *channels)).movedim((1, 2), (-2, -1))
