"""Images as levels: what every reader of this package returns, and the checks that all of them share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

MOST_CLASSES = 2**20  # an embedding has a row for each class; a larger label is no number of a class
BLOCK = 2**24  # bytes that are checked or converted at a time


@dataclass(frozen=True)
class ImageData:
    """`images` uint8 [N, C, H, W] with values in 0..levels-1; `skipped` files could not be read.

    `labels` int64 [N] with values in 0..classes-1, or None and 0 classes; `class_names` of these classes, where they
    have names. `files`: the name of the file of each image, below the folder, for images of files. `notes`: what a user
    should know of the reading, a sentence each, such as how many files were skipped and why. Of sequences, images of
    one row: `alphabet`, the character of each level of a text; `rate`, samples a second of audio.
    """

    images: Tensor
    levels: int
    name: str
    skipped: int = 0
    labels: Tensor | None = None
    classes: int = 0
    class_names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    alphabet: str = ""
    rate: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: slice | Tensor, name: str) -> ImageData:
        """The images of these rows, with all that belongs to them."""
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows.tolist()
        files = tuple(self.files[i] for i in numbers) if self.files else ()
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, images=self.images[rows], labels=labels, files=files, name=name)


class Levels:
    """Blocks of an array of whole numbers as uint8 levels, each checked; `top` is the largest value of all of them.

    Without `levels` there are 2 if no value exceeds 1, else 256: `found` says it after the last block.
    """

    def __init__(self, levels: int | None, name: str) -> None:
        if levels is not None and not 2 <= levels <= 256:
            raise ValueError(f"{name}: expected 2 to 256 levels; got {levels}")
        self.levels, self.name, self.top = levels, name, 0

    def __call__(self, block: np.ndarray, axis: int = 0, start: int = 0) -> np.ndarray:
        """The levels of the part of an array that begins at `start` of `axis`."""
        if block.dtype.kind not in "buif":
            raise TypeError(f"{self.name}: expected whole numbers; got dtype {block.dtype}")
        if not block.size:
            return block.astype(np.uint8)
        bound, highest = self.levels or 256, block.max()
        if 0 <= block.min() <= highest < bound:
            levels = block.astype(np.uint8, copy=False)
            if block.dtype.kind != "f" or np.array_equal(levels, block):
                self.top = max(self.top, int(highest))
                return levels
        raise self._error(block, bound, highest, axis, start)

    @property
    def found(self) -> int:
        """The number of levels."""
        return self.levels or (2 if self.top <= 1 else 256)

    def _error(self, block: np.ndarray, bound: int, highest: Any, axis: int, start: int) -> ValueError:
        """The error of the first value that is no level."""
        whole = block if block.dtype.kind != "f" else np.where(np.isfinite(block), np.floor(block), -1)
        wrong = (block != whole) | (block < 0) | (block >= bound)
        where = [int(i) for i in np.unravel_index(np.argmax(wrong), wrong.shape)]
        got = block[tuple(where)]
        where[axis] += start
        bound = self.levels or (2 if self.top <= 1 and highest <= 1 else 256)
        return ValueError(f"{self.name}: expected whole numbers from 0 to {bound - 1}; got {got} at index {where}")


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
    array = np.asarray(array)
    kept = channels_first(array, name)
    of_levels = Levels(levels, name)
    if array.dtype == np.uint8:
        of_levels(array)
        images = np.ascontiguousarray(kept)
    else:
        images = np.empty(kept.shape, np.uint8)
        rows = max(1, BLOCK // (array[:1].nbytes or 1))
        for start in range(0, len(array), rows):
            images[start : start + rows] = of_levels(kept[start : start + rows], 0, start)
    tensor = torch.from_numpy(images)
    if labels is None:
        return ImageData(tensor, of_levels.found, name, skipped)
    labels = check_labels(labels, len(images), name)
    classes = int(labels.max()) + 1 if classes is None else classes
    return ImageData(tensor, of_levels.found, name, skipped, torch.from_numpy(labels), classes)


def channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """A view [N, C, H, W] of an array of images. TypeError or ValueError for an array that holds no images."""
    axis = channel_axis(array.shape, array.dtype, name)
    return array[:, None] if axis is None else array if axis == 1 else array.transpose(0, 3, 1, 2)


def channel_axis(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> int | None:
    """The axis of the channels of images, 1 or 3; None for images [N, H, W]. TypeError or ValueError as above."""
    axis = 1 if len(shape) == 4 and shape[1] in (1, 3) else 3 if len(shape) == 4 and shape[3] in (1, 3) else None
    if axis is None and len(shape) != 3:
        raise ValueError(f"{name}: expected shape [N, H, W] or [N, C, H, W] with C 1 or 3; got {shape}")
    if dtype.kind not in "buif":
        raise TypeError(f"{name}: expected whole numbers; got dtype {dtype}")
    if shape[0] == 0:
        raise ValueError(f"{name}: expected at least one image; got 0")
    if 0 in shape:
        got = (shape[0], 1, *shape[1:]) if axis is None else shape
        raise ValueError(f"{name}: expected images of at least 1x1 pixels; got shape {got}")
    return axis


def check_labels(labels: ArrayLike, count: int, name: str) -> np.ndarray:
    """Labels as int64 [count]; a second axis of size 1, as some files have, is dropped."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "ui":
        raise TypeError(f"{name}: expected labels that are whole numbers; got dtype {labels.dtype}")
    if labels.ndim > 1 and labels.size == len(labels):
        labels = labels.reshape(-1)
    if labels.shape != (count,):
        raise ValueError(f"{name}: expected one label for each of {count} images; got shape {labels.shape}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < MOST_CLASSES:
        got = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"{name}: expected labels from 0 to {MOST_CLASSES - 1}; got {got}")
    return labels.astype(np.int64)


def quantise(array: np.ndarray, levels: int) -> np.ndarray:
    """256 values reduced to `levels` of equal width: uint8 0..255 -> uint8 0..levels-1."""
    if levels == 256:
        return array.astype(np.uint8, copy=False)
    values: np.ndarray = array.astype(np.uint16) * levels // 256
    return values.astype(np.uint8)
