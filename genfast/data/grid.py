"""Sets of images as one picture, or as an array file."""

import io
import math
from pathlib import Path

import numpy as np
import torch

from genfast.io import writable_folder, write_bytes


def grid(images, levels, *, columns=None, side=56):
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
    cells = np.full((rows * columns, height, width, channels), 96, np.uint8)
    cells[:count, :-2, :-2] = grey
    cells = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, channels)[:-2, :-2]


def brightness(images, levels):
    """Levels [N, C, H, W] as uint8 0..255, a tensor on the CPU."""
    return (images.cpu().float() * (255 / (levels - 1))).round().to(torch.uint8)


def rows(*columns):
    """The bytes of a PNG file with a row for each image: `columns` are sets [N, C, H, W] of 0..255, side by side."""
    cells = torch.stack(columns, 1).flatten(0, 1)
    return png(grid(cells, 256, columns=len(columns)))


def png(array):
    """The bytes of a PNG file of an array [H, W, C] of 0..255."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, format="PNG")
    return buffer.getvalue()


def npz(images, levels, labels=None):
    arrays = {} if labels is None else {"labels": np.asarray(labels)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=np.asarray(images), levels=np.int64(levels), **arrays)
    return buffer.getvalue()


def writer(path):
    """A function `(images, levels, labels=None)` that writes FILE.png or FILE.npz; fails now if that cannot be.

    In the PNG, a column for each of several labels that come again and again.
    """
    path = Path(path)
    encode = {".png": _picture, ".npz": npz}.get(path.suffix.lower())
    if encode is None:
        raise ValueError(f"{path}: expected a name ending in .png or .npz; got {path.suffix or 'no ending'}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write; got a folder")
    if path.suffix.lower() == ".png":
        import PIL.Image  # noqa: F401  a missing Pillow is found before the work
    writable_folder(path.parent)
    return lambda images, levels, labels=None: write_bytes(path, encode(images, levels, labels))


def _picture(images, levels, labels=None):
    several = 1 if labels is None else len(set(np.asarray(labels).tolist()))
    return png(grid(images, levels, columns=several if several > 1 else None))
