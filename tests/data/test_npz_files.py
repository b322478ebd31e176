"""Arrays by the names that people give them, and files that declare more than they should."""

import gzip
import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from support.files import idx_bytes, npz_bytes, one_error

from genfast.data import load, read_idx, read_npz
from genfast.data._budget import check_size, memory

IMAGES = np.random.RandomState(0).randint(0, 256, (40, 5, 4), dtype=np.uint8)
LABELS = np.arange(40) % 4


def written(path, content):
    path.write_bytes(content)
    return path


def npy(array, version=(1, 0)):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), version=version)
    return buffer.getvalue()


def archive(path, entries, compression=zipfile.ZIP_DEFLATED):
    """A zip file of [(name, bytes)]."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


# names


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("{}", "{}_labels"),
        ("x_{}", "y_{}"),
        ("X_{}", "Y_{}"),
        ("x{}", "y{}"),
        ("{}X", "{}Y"),
        ("{}_images", "{}_labels"),
        ("{}_x", "{}_y"),
        ("images_{}", "labels_{}"),
        ("{}_data", "{}_targets"),
        ("{}-img", "{}-label"),
    ],
)
@pytest.mark.parametrize("valid", ["valid", "val"])
def test_the_names_of_splits(tmp_path, images, labels, valid):
    parts = {"train": slice(30), valid: slice(30, 35), "test": slice(35, 40)}
    arrays = {images.format(name): IMAGES[part] for name, part in parts.items()}
    arrays |= {labels.format(name): LABELS[part] for name, part in parts.items()}
    path = written(tmp_path / "a.npz", npz_bytes(**arrays))
    for split, part in zip(("train", "valid", "test"), parts.values(), strict=True):
        data = load(path, split=split)
        assert np.array_equal(data.images[:, 0], IMAGES[part]) and data.labels.tolist() == LABELS[part].tolist()
        assert data.classes == 4 and data.notes == ()
    data = load(path, split="all")
    assert np.array_equal(data.images[:, 0], IMAGES) and data.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("X", "y"), ("x", "y"), ("data", "target"), ("arr_0", "arr_1"), ("x_train", "y_train")],
)
def test_one_array_and_its_labels(tmp_path, images, labels):
    path = written(tmp_path / "a.npz", npz_bytes(**{images: IMAGES, labels: LABELS[:, None]}))
    parts = [load(path, split=split) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [32, 4, 4] and {part.classes for part in parts} == {4}
    label_of = {image.tobytes(): label for image, label in zip(IMAGES, LABELS.tolist(), strict=True)}
    for part in parts:
        assert [label_of[image.tobytes()] for image in part.images.numpy()] == part.labels.tolist()


def test_the_test_images_of_keras_are_those_of_the_file(tmp_path):
    arrays = {"x_train": IMAGES[:30], "y_train": LABELS[:30], "x_test": IMAGES[30:], "y_test": LABELS[30:]}
    path = written(tmp_path / "mnist.npz", npz_bytes(**arrays))
    train, valid, test = (load(path, split=split) for split in ("train", "valid", "test"))
    assert np.array_equal(test.images[:, 0], IMAGES[30:]) and test.labels.tolist() == LABELS[30:].tolist()
    assert (len(train), len(valid)) == (27, 3) and train.classes == 4
    assert train.notes == (f"{path}: no 'valid': 3 of 30 images of 'train' are held out as it",)
    both = {image.tobytes() for part in (train, valid) for image in part.images.numpy()}
    assert both == {image[None].tobytes() for image in IMAGES[:30]}


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"train": IMAGES, "valid": IMAGES, "meta": LABELS}, "got meta beside train, valid"),
        ({"images": IMAGES, "labels": LABELS, "fine_labels": LABELS}, "got fine_labels beside images, labels"),
        ({"images": IMAGES, "train": IMAGES}, "got images beside train"),
        ({"x": IMAGES, "images": IMAGES}, "expected one array of a meaning; got x and images"),
        ({"train": IMAGES, "y_test": LABELS}, "expected labels named train_labels; got y_test"),
        ({"arr_0": IMAGES, "arr_1": IMAGES}, "got arr_0, arr_1"),
        ({"arr_0": IMAGES, "arr_1": LABELS, "arr_2": IMAGES}, "got arr_0, arr_1, arr_2"),
        ({"a": IMAGES, "b": LABELS}, "got a, b"),
        ({"labels": LABELS, "y": LABELS}, "expected one array of a meaning; got labels and y"),
        ({"train": IMAGES, "train_labels": np.eye(4)[LABELS].astype(int)}, r"each of 40 images; got shape \(40, 4\)"),
        ({"train": IMAGES, "test": IMAGES[:, :3]}, r"one shape in all splits; got \[\(1, 3, 4\), \(1, 5, 4\)\]"),
    ],
)
def test_an_array_that_is_not_used_is_named(tmp_path, arrays, named):
    path = written(tmp_path / "a.npz", npz_bytes(**arrays))
    with one_error(ValueError, "a.npz", named):
        load(path, split="all")


def test_levels_are_those_of_the_whole_file(tmp_path):
    binary = (IMAGES > 99).astype(np.uint8)
    path = written(tmp_path / "a.npz", npz_bytes(train=IMAGES, valid=binary, test=binary))
    assert {load(path, split=split).levels for split in ("train", "valid", "test", "all")} == {256}
    path = written(tmp_path / "b.npz", npz_bytes(train=binary, valid=binary.astype(bool), test=binary.astype(float)))
    assert {load(path, split=split).levels for split in ("train", "valid", "test", "all")} == {2}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(40, 5, 4), (40, 3, 5, 4), (40, 5, 4, 3), (40, 1, 5, 4)])
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f4", ">f8", "<u2", "<f2"])
def test_every_layout_and_dtype_block_by_block(tmp_path, monkeypatch, order, shape, dtype):
    monkeypatch.setattr("genfast.data.npz_file.BLOCK", 500)
    array = np.random.RandomState(1).randint(0, 200, shape)
    path = written(tmp_path / "a.npz", npz_bytes(images=np.asarray(array, dtype, order=order)))
    expected = array[:, None] if array.ndim == 3 else array if shape[1] in (1, 3) else array.transpose(0, 3, 1, 2)
    assert np.array_equal(load(path, split="all").images, expected)
    parts = [load(path, split=split).images.numpy() for split in ("train", "valid", "test")]
    assert sorted(map(bytes, np.concatenate(parts))) == sorted(map(bytes, expected.astype(np.uint8)))
    assert np.array_equal(read_npz(path)["images"], array)
    array[17, ..., 2] = -1
    path = written(tmp_path / "a.npz", npz_bytes(images=np.asarray(array, dtype, order=order)))
    if dtype[-2] != "u":
        with one_error(ValueError, "from 0 to 255; got -1", "at index .17, "):
            load(path, split="all")


# limits


def test_zeros_that_unpack_to_gigabytes_are_refused_before_they_are_read(tmp_path):
    """300 kB of a file for 300 MB of images: the entry is never unpacked."""
    header = npy(np.zeros(0, np.uint8)).replace(b"(0,), }" + b" " * 15, b"(300000, 25, 40), }   ")
    assert b"(300000, 25, 40)" in header
    zeros = bytes(10**6)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("train.npy", "w") as entry:
            entry.write(header)
            for _ in range(300):
                entry.write(zeros)
    tracemalloc.start()
    for read in (load, read_npz):
        with one_error(ValueError, "bomb.npz.train.: expected at most 268 MB of images", "--max-gb", "got 300 MB"):
            read(tmp_path / "bomb.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    with one_error(ValueError, "expected at most 200 MB of images, as --max-gb says; got 300 MB"):
        load(tmp_path / "bomb.npz", max_gb=0.2)


def test_a_gzipped_idx_file_that_declares_gigabytes(tmp_path):
    head = b"\0\0\x08\x03" + struct.pack(">3I", 4_000_000, 28, 28)
    path = written(tmp_path / "train-images-idx3-ubyte.gz", gzip.compress(head + bytes(10_000)))
    with one_error(ValueError, "train-images", "expected at most 268 MB of images", "got 3.14 GB"):
        read_idx(path)
    with one_error(ValueError, "train-images", "expected at most 1 GB of images, as --max-gb says; got 3.14 GB"):
        load("mnist", root=path, max_gb=1)
    more = written(tmp_path / "more", gzip.compress(idx_bytes(np.zeros((3, 2, 2), np.uint8)) + bytes(99)))
    with one_error(ValueError, "expected 12 bytes for shape .*; got more"):
        read_idx(more)


def test_the_limit_is_half_of_the_memory_unless_one_is_given():
    check_size(memory() // 2 - 1, "x")
    with one_error(ValueError, "x: expected at most .* of images, half of the memory; --max-gb allows more; got "):
        check_size(memory() // 2 + 1, "x")
    check_size(2**28, "x", compressed=1)
    check_size(10**9, "x", compressed=10**7)
    check_size(10**9, "x", 1.0, compressed=1)
    for size, options in ((2**28 + 1, {"compressed": 1}), (10**9 + 1, {"compressed": 10**7}), (10**9, {"max_gb": 0.9})):
        with pytest.raises(ValueError, match="expected at most"):
            check_size(size, "x", **options)


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32", "fortran", "compressed", "last", "folder", "pairs"])
def test_readers_hold_little_more_than_the_images(tmp_path, monkeypatch, kind):
    """At most 1.3 times the images and two blocks, measured by NumPy's own allocations."""
    monkeypatch.setattr("genfast.data.npz_file.BLOCK", 2**19)
    shape = (40, 300, 300) if kind in ("folder", "pairs") else (400, 100, 100)  # few files: tracing makes Pillow slow
    images = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    path, split = tmp_path / "a.npz", "train"
    if kind in ("folder", "pairs"):
        path = tmp_path
        for side in "AB" if kind == "pairs" else ".":
            (tmp_path / side).mkdir(exist_ok=True)
            for i, image in enumerate(images):
                Image.fromarray(image).save(tmp_path / side / f"{i}.bmp")
    elif kind == "compressed":
        np.savez_compressed(path, images=images)
    elif kind == "last":
        np.savez(path, train=images[:5], test=images)
        split = "test"
    else:
        dtype = {"int64": np.int64, "float32": np.float32}.get(kind, np.uint8)
        np.savez(path, images=np.asarray(images, dtype, order="F" if kind == "fortran" else "C"))
    load(f"pairs:{path}" if kind == "pairs" else path, split=split)  # what is made once, such as Pillow's tables
    tracemalloc.start()
    data = load(f"pairs:{path}" if kind == "pairs" else path, split=split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = data.images.numel() * (2 if kind == "pairs" else 1)
    assert len(data) == len(images) * (1 if kind == "last" else 0.8) and peak < 1.3 * size + 2**21, peak


# hostile files


@pytest.mark.parametrize(
    ("entries", "fragment"),
    [
        ([("train.npy", npy(IMAGES)), ("train.npy", npy(IMAGES))], "expected one array of a name; got two of train"),
        ([("../../x.npy", npy(IMAGES)), ("/etc/y.npy", npy(IMAGES))], "got ../../x, /etc/y"),
        ([("train.npy", npy(IMAGES)), ("read\x1b[31m.txt", b"x")], r"arrays alone, .npy; got read.x1b\[31m.txt"),
        ([("train.npy", npy(IMAGES)[:-1])], "expected 800 bytes for shape .40, 5, 4. of uint8; got 799"),
        ([("train.npy", npy(IMAGES) + b"x")], "expected 800 bytes for shape .*; got 801"),
        (
            [("train.npy", npy(IMAGES).replace(b"(40, 5, 4)", b"(99, 5, 4)"))],
            "expected 1980 bytes for shape .*; got 800",
        ),
        ([("train.npy", npy(IMAGES).replace(b"(40, 5, 4)", b"(-4,-5,40)"))], "expected an .npz file"),
        ([("train.npy", npy(IMAGES).replace(b"(40, 5, 4)", b"(True,800)"))], "expected an .npz file"),
        ([("train.npy", npy(IMAGES).replace(b"'|u1'", b"'|O8'"))], "expected an .npz file, nothing pickled"),
        ([("train.npy", npy(IMAGES).replace(b"'|u1'", b"'|V0'"))], "expected 0 bytes for shape .*; got 800"),
        ([("train.npy", npy(IMAGES).replace(b"{'descr'", b"{{{{{{{'"))], "expected an .npz file"),
        ([("train.npy", b"\x93NUMPY\x09\x00")], "expected an .npz file"),
        ([("train.npy", b"")], "expected an .npz file"),
        ([("train.npy", npy(np.zeros((0, 2), "V0")).replace(b"(0, 2)", b"(0, 9" + b"9" * 25 + b")"))], "npz"),
    ],
)
def test_archives_with_tricks(tmp_path, entries, fragment):
    with pytest.warns(UserWarning, match="Duplicate") if len({n for n, _ in entries}) < len(entries) else _nothing():
        path = archive(tmp_path / "a.npz", entries)
    before = sorted(tmp_path.parent.rglob("*"))
    for read in (lambda path: load(path, split="train"), lambda path: load(path, split="all")):
        with one_error(ValueError, "a.npz", fragment):
            read(path)
    assert sorted(tmp_path.parent.rglob("*")) == before, "nothing is extracted"


def _nothing():
    return io.BytesIO()  # a context that does nothing


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_flipped_bit_is_an_error(tmp_path, compression):
    path = archive(tmp_path / "a.npz", [("train.npy", npy(IMAGES))], compression)
    assert np.array_equal(load(path).images[:, 0], IMAGES)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    with one_error(ValueError, "a.npz"):
        load(written(path, bytes(content)))


def test_version_2_of_the_header(tmp_path):
    path = archive(tmp_path / "a.npz", [("train.npy", npy(IMAGES, (2, 0)))])
    assert torch.equal(load(path).images[:, 0], torch.from_numpy(IMAGES))
