"""Sets of images as one picture, or as an array file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from genfast.io import check_free, check_writable, write_bytes


def grid(images: ArrayLike, levels: int, *, columns: int | None = None, side: int = 56) -> np.ndarray:
    """A set [N, C, H, W] of levels as one array [rows, columns, C] of 0..255, two grey pixels between images.

    Small images are enlarged by a whole factor, nearest neighbour, to about `side` pixels.
    """
    array = np.asarray(images)
    count, channels, height, width = array.shape
    columns = columns or max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    factor = max(1, side // max(height, width))
    grey = np.round(array.astype(np.float32) * (255 / (levels - 1))).astype(np.uint8)
    grey = grey.transpose(0, 2, 3, 1).repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = grey.shape[1] + 2, grey.shape[2] + 2
    cells: np.ndarray = np.full((rows * columns, height, width, channels), 96, np.uint8)
    cells[:count, :-2, :-2] = grey
    cells = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    picture: np.ndarray = cells.reshape(rows * height, columns * width, channels)[:-2, :-2]
    return picture


def brightness(images: Tensor, levels: int) -> Tensor:
    """Levels [N, C, H, W] as uint8 0..255, a tensor on the CPU."""
    return (images.cpu().float() * (255 / (levels - 1))).round().to(torch.uint8)


def rows(*columns: Tensor) -> bytes:
    """The bytes of a PNG file with a row for each image: `columns` are sets [N, C, H, W] of 0..255, side by side."""
    cells = torch.stack(columns, 1).flatten(0, 1)
    return png(grid(cells, 256, columns=len(columns)))


def png(array: np.ndarray) -> bytes:
    """The bytes of a PNG file of an array [H, W, C] of 0..255."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, format="PNG")
    return buffer.getvalue()


def npz(images: ArrayLike, levels: int, labels: ArrayLike | None = None) -> bytes:
    """The bytes of an .npz file with the arrays `images`, `levels` and, if given, `labels`."""
    arrays: dict[str, Any] = {"images": np.asarray(images), "levels": np.int64(levels)}
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def writer(path: str | Path) -> Callable[..., None]:
    """A function `(images, levels, labels=None)` that writes FILE.png or FILE.npz; raises at once if that cannot be.

    The grid in a PNG has one column for each label where there are several: images whose labels cycle line up by label.
    """
    path = Path(path)
    encode = {".png": _picture, ".npz": npz}.get(path.suffix.lower())
    if encode is None:
        raise ValueError(f"{path}: expected a name ending in .png or .npz; got {path.suffix or 'no ending'}")
    check_free(path, overwrite=True)
    if path.suffix.lower() == ".png":
        import PIL.Image  # noqa: F401  a missing Pillow raises before the work
    check_writable(path.parent)
    return lambda images, levels, labels=None: write_bytes(path, encode(images, levels, labels))


def _picture(images: ArrayLike, levels: int, labels: ArrayLike | None = None) -> bytes:
    several = 1 if labels is None else len(set(np.asarray(labels).tolist()))
    return png(grid(images, levels, columns=several if several > 1 else None))
