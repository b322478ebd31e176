"""The levels of a value, 0 .. L-1: how many there may be, and the dtype of images of them."""

from __future__ import annotations

import torch

MOST_LEVELS = 65536


def level_dtype(levels: int) -> torch.dtype:
    """The dtype of images of so many levels: uint8 up to 256 of them, else int32."""
    return torch.uint8 if levels <= 256 else torch.int32
