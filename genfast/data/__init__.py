"""Image data as uint8 levels [N, C, H, W]. A file of this folder registers the data sets that it reads."""

from __future__ import annotations

from pathlib import Path

from genfast._registry import import_modules
from genfast.data._images import ImageData, check_split, image_data
from genfast.data._registry import DATASETS, DataRequest, dataset_names, datasets, find_dataset, register_dataset
from genfast.data.arrays import load_npz, read_idx, read_npz
from genfast.data.digits import load_digits
from genfast.data.folder import load_folder
from genfast.data.mnist import binarize, load_mnist, load_mnist_binary
from genfast.data.pair_data import PairData
from genfast.data.pairs import edge_map, load_pairs
from genfast.data.photos import load_photos

import_modules(__name__, __path__)

__all__ = [
    "DATASETS",
    "DataRequest",
    "ImageData",
    "PairData",
    "binarize",
    "dataset_names",
    "datasets",
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
) -> ImageData | PairData:
    """Load one split of a data set of `DATASETS`, such as `digits` or `photos`, of a folder of images or an .npz file.

    Args:
        name: of the data set, or a path.
        root: where MNIST lies.
        split: "train", "valid" or "test".
        strict: whether to refuse a folder with a broken image file.
        size: of the patches of photos; images of a folder, and pairs, are cropped and resized to it.
        levels: values to keep of a channel of photos, of a folder or of pairs; how many an .npz has.
    Returns: ImageData; PairData for a data set of pairs.
    Raises: FileNotFoundError for an unknown name, LookupError for a split that is missing, ValueError, TypeError.
    """
    check_split(split)
    dataset = find_dataset(str(name))
    if dataset is None:
        raise FileNotFoundError(f"data: expected {dataset_names()}; got {name}")
    for option, value in (("size", size), ("levels", levels)):
        if value is not None and option not in dataset.options:
            raise ValueError(f"{name}: expected no {option}: its images have one; got {value}")
    return dataset.read(DataRequest(str(name), root, split, strict, size, levels))
