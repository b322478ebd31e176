"""MNIST in grey: its own files or one of them, split without overlap, and what is wrong gets one clear error."""

import gzip

import numpy as np
from support.files import idx_bytes, one_error

from genfast.data import load


def test_grey_mnist_of_a_folder_and_of_one_file(tmp_path):
    grey = np.random.RandomState(0).randint(0, 256, (60, 28, 28), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    for name, count in (("train", 60), ("t10k", 20)):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(grey[:count])))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:count]))
    parts = {split: load("mnist", root=tmp_path, split=split) for split in ("train", "valid", "test")}
    assert [len(part) for part in parts.values()] == [50, 10, 20]
    assert np.array_equal(parts["valid"].images[:, 0], grey[50:]) and np.array_equal(parts["test"].labels, labels[:20])
    assert {(part.levels, part.classes) for part in parts.values()} == {(256, 10)}
    # One file, or a folder with t10k alone, is split 80 / 10 / 10.
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(grey[:20]))
    for root, has_labels in ((tmp_path / "t10k-images-idx3-ubyte.gz", True), (alone, False)):
        parts = [load("mnist", root=root, split=split) for split in ("train", "valid", "test")]
        assert [len(part) for part in parts] == [16, 2, 2] and (parts[0].labels is not None) == has_labels
        rows = {image.tobytes() for part in parts for image in part.images.numpy()}
        assert rows == {image[None].tobytes() for image in grey[:20]}


def test_grey_mnist_names_what_is_missing(tmp_path):
    with one_error(ValueError, "mnist: expected --data-root", "none"):
        load("mnist")
    with one_error(FileNotFoundError, "mnist: expected --data-root", "nowhere"):
        load("mnist", root=tmp_path / "nowhere")
    with one_error(FileNotFoundError, "train-images-idx3-ubyte", "neither"):
        load("mnist", root=tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((12, 28, 28), np.uint8)))
    with one_error(LookupError, "t10k-images-idx3-ubyte", "'test'"):
        load("mnist", root=tmp_path, split="test")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(11, np.uint8)))
    with one_error(ValueError, "one label for each of 12 images"):
        load("mnist", root=tmp_path)
    (tmp_path / "wide").write_bytes(idx_bytes(np.zeros((12, 28, 29), np.uint8)))
    with one_error(ValueError, "wide", "28, 29"):
        load("mnist", root=tmp_path / "wide")
