"""Array files: NumPy's .npz, and the IDX format of the MNIST pages (plain or gzipped)."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from math import prod
from pathlib import Path

import numpy as np

from genfast.data._images import SPLITS, ImageData, check_labels, check_split, image_data, split_indices
from genfast.data._registry import DataRequest, register_dataset

# What zipfile, zlib and NumPy's header parser raise on corrupted bytes.
BROKEN: tuple[type[BaseException], ...] = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SyntaxError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error),
)
LABELS = ("labels", *(f"{split}_labels" for split in SPLITS))


def _is_npz(path: Path) -> bool:
    return path.is_file() and path.suffix == ".npz"


@register_dataset("an .npz file", "its arrays of images", options=("levels",), matches=_is_npz)
def _read(request: DataRequest) -> ImageData:
    return load_npz(Path(request.name), request.split, request.levels)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name. ValueError, with the path, for a file that is broken or no .npz."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected an .npz file; got no such file") from None
    except BROKEN as error:
        raise ValueError(f"{path}: expected an .npz file, nothing pickled; got {_reason(error)}") from None


def load_npz(path: str | Path, split: str, levels: int | None = None) -> ImageData:
    """Images from an .npz with arrays train/valid/test, or with one array of images that is split here.

    A scalar array `levels` says how many grey levels there are; else 2 if no value exceeds 1, else 256.
    Labels are in train_labels/valid_labels/test_labels, or in `labels` beside the one array.
    """
    check_split(split)
    arrays = read_npz(path)
    stored = arrays.pop("levels", None)
    if stored is not None and (np.size(stored) != 1 or np.asarray(stored).dtype.kind not in "ui"):
        raise ValueError(f"{path}: expected one whole number in 'levels'; got {stored!r}")
    levels = levels or (None if stored is None else int(np.asarray(stored).reshape(())))
    labels = {key: arrays.pop(key) for key in LABELS if key in arrays}
    named = [key for key in SPLITS if key in arrays]
    if named and split not in named:
        raise LookupError(f"{path}: expected an array {split!r}; got only {', '.join(sorted(arrays))}")
    if named:
        name, array = f"{path}[{split}]", arrays[split]
        counts = {f"{key}_labels": len(np.atleast_1d(arrays[key])) for key in named}
    else:
        name, array = _only_images(path, arrays)
        if array.ndim < 3:
            raise ValueError(f"{name}: expected images of shape [N, H, W] or [N, C, H, W]; got {array.shape}")
        image_data(array, levels, name)
        levels = levels or (2 if array.max() <= 1 else 256)
        counts = {"labels": len(array)}
    labels, classes = _labels(path, labels, counts)
    if named:
        return image_data(array, levels, name, labels=labels.get(f"{split}_labels"), classes=classes)
    indices = split_indices(len(array), split)
    of_split = labels["labels"][indices] if labels else None
    return image_data(array[indices], levels, name, labels=of_split, classes=classes)


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array in an IDX file. The content, not the name, decides whether it is read as gzipped."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected an IDX file; got no such file") from None
    except BROKEN as error:
        raise ValueError(f"{path}: expected a readable IDX file; got {_reason(error)}") from None
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: expected IDX magic 00 00 08 (uint8); got {data[:4].hex(' ') or 'none'}")
    rank = data[3]
    if len(data) < 4 + 4 * rank:
        raise ValueError(f"{path}: expected an IDX header of {4 + 4 * rank} bytes; got {len(data)} bytes")
    shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
    body = len(data) - 4 - 4 * rank
    if body != prod(shape):
        raise ValueError(f"{path}: expected {prod(shape)} bytes for shape {shape}; got {body}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _labels(
    path: str | Path, labels: dict[str, np.ndarray], counts: dict[str, int]
) -> tuple[dict[str, np.ndarray], int]:
    """The checked label arrays, by the names in `counts` (name: images), and the number of classes in all of them."""
    if foreign := sorted(labels.keys() - counts.keys()):
        raise ValueError(f"{path}: expected labels named {', '.join(counts)}; got {', '.join(foreign)}")
    labels = {key: check_labels(array, counts[key], f"{path}[{key}]") for key, array in labels.items()}
    return labels, 1 + max((int(array.max()) for array in labels.values() if len(array)), default=-1)


def _only_images(path: str | Path, arrays: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    for key in ("images", "x", "x_train"):
        if key in arrays:
            return f"{path}[{key}]", arrays[key]
    if len(arrays) == 1:
        key, array = next(iter(arrays.items()))
        return f"{path}[{key}]", array
    expected = "arrays named train, valid, test, or one named images"
    raise ValueError(f"{path}: expected {expected}; got {', '.join(sorted(arrays)) or 'no array'}")


def _reason(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0] if text and text[0] else type(error).__name__
