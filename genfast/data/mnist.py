"""MNIST, 28x28, binary or grey: the statically binarised file, the usual IDX files, or a Hugging Face dataset.

Only IDX files have labels: those of the file of labels, train-labels-idx1-ubyte for example, if it lies beside them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from genfast._text import first_line
from genfast.data._images import ImageData, check_labels, image_data
from genfast.data._registry import DataRequest, register_dataset
from genfast.data.arrays import idx_shape, read_idx, read_npz
from genfast.data.splits import check_split, split_indices

NPZ = "binarized_mnist.npz"
TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
IDX = {"train": TRAIN, "valid": TRAIN, "test": TEST}
VALID = 10_000  # the last images of MNIST's 60,000, as in the statically binarised set


@register_dataset("mnist", "28x28 digits in 256 levels, of --data-root")
def _read(request: DataRequest) -> ImageData:
    return load_mnist(request.root, request.split, request.max_gb)


@register_dataset("mnist-binary", "28x28 digits in 2 levels, of --data-root")
def _read_binary(request: DataRequest) -> ImageData:
    return load_mnist_binary(request.root, request.split, request.max_gb)


def load_mnist_binary(root: str | Path | None, split: str, max_gb: float | None = None) -> ImageData:
    """`root`: an .npz, an IDX file, a folder that holds either, or a dataset name such as ylecun/mnist."""
    check_split(split)
    if root is None:
        raise ValueError("mnist-binary: expected --data-root FILE, FOLDER or DATASET; got none")
    path = Path(root)
    if path.is_dir():
        return _from_folder(path, split, max_gb)
    if path.is_file():
        return _from_npz(path, split, max_gb) if path.suffix == ".npz" else _from_idx(path, split, max_gb)
    is_file_name = path.suffix in (".npz", ".gz")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(root)) and not str(root).startswith(".") and not is_file_name:
        return _from_hub(str(root), split)
    expected = "--data-root FILE, FOLDER or DATASET"
    raise FileNotFoundError(f"mnist-binary: expected {expected}; got {root}, no such file or folder")


def load_mnist(root: str | Path | None, split: str, max_gb: float | None = None) -> ImageData:
    """Grey MNIST, 256 levels. `root`: a folder with the usual IDX files, or one such file of images.

    Of a folder, `test` is t10k and the last 10,000 of the training images are `valid`, as for mnist-binary. A file, or
    a folder that has t10k alone, is split here: 80 / 10 / 10 per cent. Labels are read as for mnist-binary.
    """
    check_split(split)
    expected = "--data-root FILE or FOLDER"
    if root is None:
        raise ValueError(f"mnist: expected {expected}; got none")
    path = Path(root)
    if path.is_file():
        return _split_here(path, split, max_gb)
    if not path.is_dir():
        raise FileNotFoundError(f"mnist: expected {expected}; got {root}, no such file or folder")
    train, test = _idx_in(path, TRAIN), _idx_in(path, TEST)
    if train is None:
        if test is None:
            raise FileNotFoundError(f"mnist: expected {TRAIN}[.gz] or {TEST}[.gz] in {path}; got neither")
        return _split_here(test, split, max_gb)
    if split == "test" and test is None:
        raise LookupError(f"mnist: expected {TEST}[.gz] in {path} for 'test'; got none")
    path = test if split == "test" and test is not None else train
    return _of_idx(path, _part(_count(path), split), max_gb)


def binarize(grey: np.ndarray, seed: int = 0) -> np.ndarray:
    """Binarise statically, as the papers did: each pixel is drawn once, 1 with probability grey / 255."""
    # A threshold would give easier images, whose likelihood compares with no published number.
    chance = np.random.RandomState(seed).randint(0, 255, size=grey.shape, dtype=np.uint8)
    return (grey > chance).astype(np.uint8)


def _from_folder(folder: Path, split: str, max_gb: float | None) -> ImageData:
    npz = folder / NPZ
    idx = _idx_in(folder, IDX[split])
    if npz.is_file():
        arrays = read_npz(npz, max_gb)
        if split in arrays or idx is None:
            return _from_npz(npz, split, max_gb, arrays)
    if idx is not None:
        return _from_idx(idx, split, max_gb)
    raise FileNotFoundError(f"mnist-binary: expected {NPZ} or {IDX[split]}[.gz] in {folder}; got neither")


def _from_npz(path: Path, split: str, max_gb: float | None, arrays: dict[str, np.ndarray] | None = None) -> ImageData:
    arrays = read_npz(path, max_gb) if arrays is None else arrays
    if split not in arrays:
        raise LookupError(f"{path}: expected an array {split!r}; got {', '.join(sorted(arrays)) or 'none'}")
    array, name = arrays[split], f"{path}[{split}]"
    if array.shape[1:] == (98,) and array.dtype == np.uint8:
        array = np.unpackbits(array, axis=1)
    if array.ndim < 2 or array[0:1].size != 784 * len(array[0:1]):
        raise ValueError(f"{name}: expected shape [N, 98] (bits), [N, 784] or [N, 28, 28]; got {array.shape}")
    return image_data(array.reshape(len(array), 1, 28, 28), 2, name)


def _from_idx(path: Path, split: str, max_gb: float | None) -> ImageData:
    """The images of an IDX file, with their labels if the file of labels lies beside it, gzipped or not."""
    return _from_grey(read_idx(path, max_gb), path, split, _labels_beside(path))


def _labels_beside(path: Path) -> np.ndarray | None:
    stem = path.name.removesuffix(".gz")
    candidates = [path.with_name(stem.replace("images-idx3", "labels-idx1") + end) for end in ("", ".gz")]
    labels = next((file for file in candidates if "images-idx3" in stem and file.is_file()), None)
    return None if labels is None else read_idx(labels)


def _idx_in(folder: Path, name: str) -> Path | None:
    """The IDX file of that name in a folder, gzipped or not, also in torchvision's layout; None if there is none."""
    files = [folder / f"{name}{end}" for end in ("", ".gz")]
    files += [folder / "MNIST" / "raw" / path.name for path in files]
    return next((path for path in files if path.is_file()), None)


def _split_here(path: Path, split: str, max_gb: float | None) -> ImageData:
    return _of_idx(path, split_indices(_count(path), split), max_gb, f"{path}[{split}]")


def _count(path: Path) -> int:
    return (idx_shape(path) or (0,))[0]


def _of_idx(path: Path, part: np.ndarray | slice, max_gb: float | None, name: str | None = None) -> ImageData:
    """The grey images `part` of an IDX file."""
    grey, labels = read_idx(path, max_gb), _labels_beside(path)
    if grey.shape[1:] != (28, 28):
        raise ValueError(f"{path}: expected images of shape [N, 28, 28]; got {grey.shape}")
    if labels is None:
        return image_data(grey[part].copy(), 256, name or str(path))
    labels = check_labels(labels, len(grey), str(path))
    return image_data(grey[part].copy(), 256, name or str(path), labels=labels[part], classes=int(labels.max()) + 1)


def _part(count: int, split: str) -> slice:
    """The slice of `count` training images that is a split; all images for the test split, which has its own file."""
    kept = count - min(VALID, count // 6)
    return {"train": slice(kept), "valid": slice(kept, None), "test": slice(None)}[split]


def _from_grey(grey: np.ndarray, name: str | Path, split: str, labels: np.ndarray | None = None) -> ImageData:
    if grey.shape[1:] != (28, 28):
        raise ValueError(f"{name}: expected images of shape [N, 28, 28]; got {grey.shape}")
    if split != "test" and Path(name).name.startswith("t10k"):
        raise LookupError(f"{name}: expected training images for {split!r}; got the test images")
    part, name = _part(len(grey), split), f"{name} (each pixel drawn once with probability grey/255)"
    if labels is None:
        return image_data(binarize(grey)[part], 2, name)
    labels = check_labels(labels, len(grey), name)
    return image_data(binarize(grey)[part], 2, name, labels=labels[part], classes=int(labels.max()) + 1)


def _from_hub(name: str, split: str) -> ImageData:
    try:
        import datasets
    except ImportError:
        expected = "a file, a folder, or a Hugging Face dataset with the package `datasets` installed"
        raise RuntimeError(f"mnist-binary: expected {expected}; got {name!r} without it") from None
    try:
        rows = datasets.load_dataset(name, split="test" if split == "test" else "train")
        column = next(key for key in ("image", "img", "images") if key in rows.column_names)
        grey = np.stack([np.asarray(image.convert("L")) for image in rows[column]])
    except Exception as error:  # the hub's client raises dozens of kinds; the user needs the one line
        reason = first_line(error)
        raise RuntimeError(f"mnist-binary: expected a Hugging Face dataset {name}; got {reason}") from None
    return _from_grey(grey, name, split)
