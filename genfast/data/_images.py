"""Images as levels: what every reader of this package returns, and the checks that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

SPLITS = ("train", "valid", "test")
MOST_CLASSES = 2**20  # an embedding has a row for each class; a larger label is no number of a class


@dataclass(frozen=True)
class ImageData:
    """`images` uint8 [N, C, H, W] with values in 0..levels-1; `skipped` files could not be read.

    `labels` int64 [N] with values in 0..classes-1, or None and 0 classes.
    """

    images: Tensor
    levels: int
    name: str
    skipped: int = 0
    labels: Tensor | None = None
    classes: int = 0

    def __len__(self) -> int:
        return len(self.images)


def image_data(
    array: ArrayLike,
    levels: int | None,
    name: str,
    skipped: int = 0,
    labels: ArrayLike | None = None,
    classes: int | None = None,
) -> ImageData:
    """Check an array [N, H, W], [N, C, H, W] or [N, H, W, C] of whole numbers and keep it as uint8 levels.

    `labels` [N], whole numbers of at least 0, one for each image; without `classes`, the largest says how many.
    """
    array = _channels_first(np.asarray(array), name)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected whole numbers; got dtype {array.dtype}")
    if len(array) == 0:
        raise ValueError(f"{name}: expected at least one image; got 0")
    if levels is None:
        levels = 2 if array.size and array.max() <= 1 else 256
    if not 2 <= levels <= 256:
        raise ValueError(f"{name}: expected 2 to 256 levels; got {levels}")
    images = torch.from_numpy(_as_levels(array, levels, name))
    if labels is None:
        return ImageData(images, int(levels), name, skipped)
    labels = check_labels(labels, len(images), name)
    classes = int(labels.max()) + 1 if classes is None else classes
    return ImageData(images, int(levels), name, skipped, torch.from_numpy(labels), classes)


def check_labels(labels: ArrayLike, count: int, name: str) -> np.ndarray:
    """Labels as int64 [count]."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "ui":
        raise TypeError(f"{name}: expected labels that are whole numbers; got dtype {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected one label for each of {count} images; got shape {labels.shape}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < MOST_CLASSES:
        got = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"{name}: expected labels from 0 to {MOST_CLASSES - 1}; got {got}")
    return labels.astype(np.int64)


def quantise(array: np.ndarray, levels: int) -> np.ndarray:
    """256 values reduced to `levels` of equal width: uint8 0..255 -> uint8 0..levels-1."""
    values: np.ndarray = array.astype(np.uint16) * levels // 256
    return values.astype(np.uint8)


def split_indices(count: int, split: str) -> np.ndarray:
    """Which of `count` unsplit images belong to `split`: a fixed shuffle, then 80 / 10 / 10 per cent."""
    # RandomState is the one numpy stream that is promised never to change: the split stays what it was.
    order = np.random.RandomState(0).permutation(count)
    tenth = count // 10
    part: np.ndarray = {"test": order[:tenth], "valid": order[tenth : 2 * tenth], "train": order[2 * tenth :]}[split]
    return np.sort(part)


def check_split(split: str) -> None:
    """Raise ValueError for a split that is none of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}; got {split!r}")


def _channels_first(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    raise ValueError(f"{name}: expected shape [N, H, W] or [N, C, H, W] with C 1 or 3; got {array.shape}")


def _as_levels(array: np.ndarray, levels: int, name: str) -> np.ndarray:
    if 0 in array.shape[1:]:
        raise ValueError(f"{name}: expected images of at least 1x1 pixels; got shape {array.shape}")
    whole = array if array.dtype.kind != "f" else np.where(np.isfinite(array), np.floor(array), -1)
    wrong = (array != whole) | (array < 0) | (array >= levels)
    if wrong.any():
        where = tuple(int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape))
        got = f"{array[where]} at [n, c, i, j] = {list(where)}"
        raise ValueError(f"{name}: expected whole numbers from 0 to {levels - 1}; got {got}")
    return np.ascontiguousarray(array, dtype=np.uint8)
