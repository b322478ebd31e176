"""Image data as uint8 levels [N, C, H, W]. A file of this folder registers the data sets that it reads."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from genfast._registry import import_modules
from genfast.data._images import ImageData, image_data
from genfast.data._registry import BUILTIN, DATASETS, DataRequest, dataset_names, datasets, locate, register_dataset
from genfast.data.arrays import load_npz, read_idx, read_npz
from genfast.data.describe import describe, joined
from genfast.data.digits import load_digits
from genfast.data.folder import load_folder
from genfast.data.mnist import binarize, load_mnist, load_mnist_binary
from genfast.data.pair_data import PairData
from genfast.data.pairs import edge_map, load_pairs
from genfast.data.photos import load_photos
from genfast.data.splits import ALL, CHOICES, SPLITS, check_split

import_modules(__name__, __path__)

__all__ = [
    "ALL",
    "BUILTIN",
    "CHOICES",
    "DATASETS",
    "DataRequest",
    "ImageData",
    "PairData",
    "binarize",
    "dataset_names",
    "datasets",
    "describe",
    "edge_map",
    "image_data",
    "load",
    "load_digits",
    "load_folder",
    "load_mnist",
    "load_mnist_binary",
    "load_npz",
    "load_pairs",
    "load_photos",
    "locate",
    "read_idx",
    "read_npz",
    "register_dataset",
]


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    split: str = "train",
    strict: bool = False,
    size: int | None = None,
    levels: int | None = None,
    bits: int | None = None,
    max_gb: float | None = None,
) -> ImageData | PairData:
    """Load one split of a data set of `DATASETS`, such as `digits` or `photos`, of a folder of images or an .npz file.

    Args:
        name: of the data set, or a path; `builtin:photos` is the data set whatever lies in the present folder.
        root: where MNIST lies.
        split: "train", "valid", "test", or "all": every image.
        strict: whether to refuse a folder with files that cannot be read, instead of skipping them.
        size: of the patches of photos; images of a folder, and pairs, are cropped and resized to it.
        levels: values to keep of a channel of photos, of a folder or of pairs; how many an .npz has.
        bits: of the whole numbers in image files of more than 8 bits (16).
        max_gb: memory that the images may take, in 10**9 bytes (half of that of the machine).
    Returns: ImageData; PairData for a data set of pairs. `notes` say what the reading left out.
    Raises: FileNotFoundError for an unknown name, LookupError for a split that is missing, ValueError, TypeError.
    """
    check_split(split, CHOICES)
    dataset, _ = locate(str(name))
    for option, value in (("size", size), ("levels", levels), ("bits", bits)):
        if value is not None and option not in dataset.options:
            raise ValueError(f"{name}: expected no {option}: its images have one; got {value}")
    plain = str(name).removeprefix(BUILTIN)
    request = DataRequest(plain, root, split, strict, size, levels, bits, max_gb)
    if split != ALL or dataset.reads_all:
        return dataset.read(request)
    parts = []
    for part in SPLITS:
        with suppress(LookupError):  # a split that it has not
            parts.append(dataset.read(replace(request, split=part)))
    return joined(parts, f"{plain}[{ALL}]")
