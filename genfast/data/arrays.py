"""Array files: NumPy's .npz, and the IDX format of the MNIST pages (plain or gzipped)."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import torch

from genfast.data._budget import check_size
from genfast.data._images import ImageData, Levels, channel_axis, check_labels
from genfast.data._registry import DataRequest, register_dataset
from genfast.data._text import reason
from genfast.data.npz_file import BROKEN, NpzFile, read_npz
from genfast.data.npz_names import LEVELS, Layout, layout
from genfast.data.splits import ALL, CHOICES, check_split, choose, notes_of

__all__ = ["load_npz", "read_idx", "read_npz"]


def _is_npz(path: Path) -> bool:
    return path.is_file() and path.suffix == ".npz"


@register_dataset("an .npz file", "its arrays of images", options=("levels",), matches=_is_npz, reads_all=True)
def _read(request: DataRequest) -> ImageData:
    return load_npz(Path(request.name), request.split, request.levels, request.max_gb)


def load_npz(path: str | Path, split: str, levels: int | None = None, max_gb: float | None = None) -> ImageData:
    """Images from an .npz with an array for each split, or with one array of images that is split here.

    Names are `train`, `valid`, `test` with `train_labels` ..., or `x_train` with `y_train`, `images` with `labels`, and
    whatever else `genfast.data.npz_names` knows; an array that would not be used is an error. A scalar array `levels`
    says how many levels there are; else 2 if no value of all arrays of images exceeds 1, else 256.

    Args: path; split ("train", "valid", "test" or "all"); levels; max_gb (memory of the images, in 10**9 bytes).
    """
    check_split(split, CHOICES)
    with NpzFile(path, max_gb) as file:
        return _load(file, split, levels)


def _load(file: NpzFile, split: str, levels: int | None) -> ImageData:
    path = file.path
    found = layout(path, {name: len(stored.shape) for name, stored in file.arrays.items()})
    levels = levels or _stored_levels(file)
    counts = {part: (file.arrays[name].shape or (0,))[0] for part, name in found.images.items()}
    chosen = choose(counts, split, str(path), "array")
    labels, classes = _labels(file, found, counts)
    name = file.name(found.images[ALL] if ALL in found.images else split)
    of_levels = Levels(levels, name)
    images = _images(file, [(found.images[part], rows) for part, rows in chosen], of_levels)
    if levels is None and of_levels.top <= 1:
        _scan(file, [key for part, key in found.images.items() if part not in dict(chosen)], of_levels)
    notes, of_split = notes_of(counts, split, str(path)), None
    if all(part in labels for part, _ in chosen):
        of_split = torch.from_numpy(np.concatenate([labels[part][rows] for part, rows in chosen]))
    data = ImageData(torch.from_numpy(images), of_levels.found, name, notes=notes)
    return data if of_split is None else replace(data, labels=of_split, classes=classes)


def _stored_levels(file: NpzFile) -> int | None:
    if LEVELS not in file.arrays:
        return None
    stored = file.arrays[LEVELS]
    if prod(stored.shape) != 1 or stored.dtype.kind not in "ui":
        got = f"an array of {stored.dtype} {stored.shape}"
        raise ValueError(f"{file.path}: expected one whole number in 'levels'; got {got}")
    return int(file.read(LEVELS).reshape(()))


def _images(file: NpzFile, parts: list[tuple[str, np.ndarray]], of_levels: Levels) -> np.ndarray:
    """The images of arrays, [(key, rows)], as uint8 [N, C, H, W]; no more than them and a block is ever in memory."""
    shapes = []
    for key, _ in parts:
        stored, shape = file.arrays[key], file.arrays[key].shape
        axis = channel_axis(shape, stored.dtype, file.name(key))
        file.check_size(stored)
        shapes.append((shape[axis] if axis else 1, *(shape[1:3] if axis != 1 else shape[2:])))
    if len(set(shapes)) > 1:
        raise ValueError(f"{file.path}: expected images of one shape in all splits; got {sorted(set(shapes))}")
    images: np.ndarray = np.empty((sum(len(rows) for _, rows in parts), *shapes[0]), np.uint8)
    done = 0
    for key, rows in parts:
        _fill(file, key, rows, images[done : done + len(rows)], of_levels)
        done += len(rows)
    return images


def _fill(file: NpzFile, key: str, rows: np.ndarray, images: np.ndarray, of_levels: Levels) -> None:
    stored = file.arrays[key]
    axis = channel_axis(stored.shape, stored.dtype, key)
    as_stored = images[:, 0] if axis is None else images if axis == 1 else images.transpose(0, 2, 3, 1)
    for cut, start, block in file.blocks(key):
        values, stop = of_levels(block, cut, start), start + block.shape[cut]
        if cut:
            as_stored[..., start:stop] = values[rows]
        else:
            first, last = np.searchsorted(rows, (start, stop))
            as_stored[first:last] = values[rows[first:last] - start]


def _scan(file: NpzFile, keys: list[str], of_levels: Levels) -> None:
    """Let `of_levels` see arrays that are not kept: the number of levels is one of the whole file."""
    for key in keys:
        for _, _, block in file.blocks(key):
            if block.size and block.dtype.kind in "buif" and not block.max() <= 1:
                of_levels.top = 255
                return


def _labels(file: NpzFile, found: Layout, counts: dict[str, int]) -> tuple[dict[str, np.ndarray], int]:
    """The checked labels of each split that has some, and the number of classes in all of them."""
    labels = {part: check_labels(file.read(key), counts[part], file.name(key)) for part, key in found.labels.items()}
    return labels, 1 + max((int(array.max()) for array in labels.values() if len(array)), default=-1)


def idx_shape(path: str | Path) -> tuple[int, ...]:
    """The shape of the array in an IDX file, by its header alone."""
    with _open_idx(path) as file:
        return _idx_header(path, file)


def read_idx(path: str | Path, max_gb: float | None = None) -> np.ndarray:
    """The uint8 array in an IDX file. The content, not the name, decides whether it is read as gzipped.

    `max_gb`: memory of the array, in 10**9 bytes; None: half of the memory, and what a gzipped file may plausibly hold.
    """
    with _open_idx(path) as file:
        shape, held = _idx_header(path, file), Path(path).stat().st_size
        size, start, is_plain = prod(shape), 4 + 4 * len(shape), not isinstance(file, gzip.GzipFile)
        if is_plain and held - start != size:
            raise ValueError(f"{path}: expected {size} bytes for shape {shape}; got {held - start}")
        check_size(size, str(path), max_gb, compressed=None if is_plain else held)
        array, read = np.empty(size, np.uint8), 0
        try:
            while read < size and (count := file.readinto(array.data[read : read + 2**20])):
                read += count
            more = len(file.read(1))
        except BROKEN as error:
            raise ValueError(f"{path}: expected a readable IDX file; got {reason(error)}") from None
    if read != size or more:
        raise ValueError(f"{path}: expected {size} bytes for shape {shape}; got {'more' if more else read}")
    return array.reshape(shape)


def _open_idx(path: str | Path) -> io.BufferedIOBase:
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if zipped else open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected an IDX file; got no such file") from None
    except BROKEN as error:
        raise ValueError(f"{path}: expected a readable IDX file; got {reason(error)}") from None


def _idx_header(path: str | Path, file: io.BufferedIOBase) -> tuple[int, ...]:
    try:
        magic = file.read(4)
        rank = magic[3] if len(magic) == 4 else 0
        sizes = file.read(4 * rank)
    except BROKEN as error:
        raise ValueError(f"{path}: expected a readable IDX file; got {reason(error)}") from None
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or rank > 32:
        raise ValueError(f"{path}: expected IDX magic 00 00 08 (uint8) and a rank; got {magic.hex(' ') or 'none'}")
    if len(sizes) < 4 * rank:
        raise ValueError(f"{path}: expected an IDX header of {4 + 4 * rank} bytes; got {4 + len(sizes)} bytes")
    return struct.unpack(f">{rank}I", sizes)
