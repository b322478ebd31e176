"""Patches of scikit-learn's two photographs, china.jpg and flower.jpg: colour images that need no download."""

from __future__ import annotations

from typing import Any

import numpy as np

from genfast.data._images import ImageData, image_data, quantise
from genfast.data._registry import DataRequest, register_dataset
from genfast.data.splits import check_split

PHOTOS = ("china.jpg", "flower.jpg")
PERIOD = 5  # columns of blocks: four to train on, then one that is held out, for validation or for the test in turn
LARGEST = 64  # pixels: a photograph of 640 columns then has two periods


@register_dataset("photos", "colour patches of two photographs of scikit-learn", options=("size", "levels"))
def _read(request: DataRequest) -> ImageData:
    return load_photos(request.split, size=request.size or 32, levels=request.levels or 256)


def load_photos(split: str, *, size: int = 32, levels: int = 256) -> ImageData:
    """Colour patches [N, 3, size, size] of both photographs, no pixel of which is in two splits.

    Each photograph is cut into columns of blocks: of every five, the fifth is held out from top to bottom, so
    that every split has sky, walls and leaves. Held-out patches tile their columns; training patches overlap,
    a quarter of their size apart. By size 32: 5200 train, 52 valid, 52 test.
    """
    check_split(split)
    if not 2 <= levels <= 256:
        raise ValueError(f"photos: expected 2 to 256 levels; got {levels}")
    patches = photo_patches(split, size, max(1, size // 4) if split == "train" else size)
    return image_data(quantise(patches, levels), levels, f"photos[{split}]")


def photo_patches(split: str, size: int, step: int) -> np.ndarray:
    """Patches of a split, `step` pixels apart: uint8 [N, 3, size, size] of 0..255."""
    if not 1 <= size <= LARGEST:
        raise ValueError(f"photos: expected a size from 1 to {LARGEST}; got {size}")
    return np.concatenate([_patches(photo, split, size, step) for photo in _photos()])


def _photos() -> list[np.ndarray]:
    try:
        from sklearn.datasets import load_sample_image
    except ImportError:
        raise RuntimeError("photos: expected the package scikit-learn; got none") from None
    return [load_sample_image(name) for name in PHOTOS]


def _patches(photo: np.ndarray, split: str, size: int, step: int) -> np.ndarray:
    height, width = photo.shape[:2]
    tops = range(0, height - size + 1, step)
    lefts = [
        left
        for start, stop in _columns(width // size, split)
        for left in range(start * size, (stop - 1) * size + 1, step)
    ]
    both_axes: Any = (0, 1)  # NumPy 2.2 declares one axis
    windows = np.lib.stride_tricks.sliding_window_view(photo, (size, size), axis=both_axes)
    return windows[np.ix_(tops, lefts)].reshape(-1, photo.shape[2], size, size)


def _columns(count: int, split: str) -> list[tuple[int, int]]:
    """The half-open ranges of columns of blocks that belong to a split."""
    held_out = range(PERIOD - 1, count, PERIOD)
    if split != "train":
        return [(i, i + 1) for i in held_out[split == "valid" :: 2]]
    starts = [0, *(i + 1 for i in held_out)]
    return [(start, stop) for start, stop in zip(starts, [*held_out, count], strict=True) if start < stop]
