"""Image data as uint8 levels [N, C, H, W]."""

from pathlib import Path

import numpy as np

from genfast.data._images import ImageData, check_split, image_data
from genfast.data.arrays import load_npz, read_idx, read_npz
from genfast.data.folder import load_folder
from genfast.data.mnist import binarize, load_mnist, load_mnist_binary
from genfast.data.pairs import PairData, edge_map, is_pairs, load_pairs
from genfast.data.photos import load_photos

__all__ = [
    "ImageData",
    "PairData",
    "binarize",
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
]


def load(name, *, root=None, split="train", strict=False, size=None, levels=None):
    """Load one split of `digits`, `photos`, `mnist`, `mnist-binary`, a folder of images, an .npz file, or pairs.

    Args: name (dataset name or path); root (where MNIST lies); split ("train", "valid", "test");
    strict (refuse broken image files); size (of the patches of photos; crop and resize a folder's images);
    levels (values kept of a channel of photos or a folder; how many an .npz has).
    Returns: ImageData; PairData for a name that `load_pairs` knows.
    Raises: FileNotFoundError, LookupError (no such split), ValueError, TypeError.
    """
    check_split(split)
    path = Path(name)
    if is_pairs(name):
        return load_pairs(name, split, size=size, levels=levels)
    if name == "photos":
        return load_photos(split, size=size or 32, levels=levels or 256)
    if name == "digits":
        _no_options(name, size=size, levels=levels)
        return load_digits(split)
    if name == "mnist":
        _no_options(name, size=size, levels=levels)
        return load_mnist(root, split)
    if name == "mnist-binary":
        _no_options(name, size=size, levels=levels)
        return load_mnist_binary(root, split)
    if path.is_dir():
        return load_folder(path, split, strict=strict, size=size, levels=levels)
    if path.is_file() and path.suffix == ".npz":
        _no_options(name, size=size)
        return load_npz(path, split, levels)
    expected = "digits, photos, mnist-binary, mnist, a folder of images, an .npz file or pairs:FOLDER"
    raise FileNotFoundError(f"data: expected {expected}; got {name}")


def _no_options(name, **options):
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected no {option}: its images have one; got {value}")


def load_digits(split):
    """scikit-learn's 1797 8x8 digits with their labels: 1297 train, 200 valid, 300 test.

    The file counts 0 to 16 set pixels of each 4x4 cell; 16 is stored as 15, so that there are 16 levels.
    """
    check_split(split)
    try:
        from sklearn.datasets import load_digits as read
    except ImportError:
        raise RuntimeError("digits: expected the package scikit-learn; got none") from None
    digits = read()
    order = np.random.RandomState(0).permutation(len(digits.images))
    part = {"test": order[:300], "valid": order[300:500], "train": order[500:]}[split]
    images, labels = np.minimum(digits.images[part], 15), digits.target[part]
    return image_data(images, 16, f"digits[{split}]", labels=labels, classes=10)
