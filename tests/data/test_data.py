"""Reading images: what is right comes out exact, what is wrong gets one clear error and never a crash."""

import gzip
import io
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.files import idx_bytes, npz_bytes, one_error

from genfast.data import binarize, image_data, load, load_digits, load_photos, read_idx, read_npz
from genfast.data.grid import grid, npz, png, writer

BITS = np.random.RandomState(0).randint(0, 2, (40, 784), dtype=np.uint8)


# digits


def test_digits_are_disjoint_levels_of_the_known_images():
    from sklearn.datasets import load_digits as original

    parts = [load_digits(split) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [1297, 200, 300]
    assert all(part.levels == 16 and part.images.dtype == torch.uint8 for part in parts)
    together = torch.cat([part.images for part in parts]).flatten(1).numpy()
    labels = torch.cat([part.labels for part in parts]).tolist()
    expected = np.minimum(original().images, 15).reshape(1797, 64).astype(np.uint8)
    pairs = sorted(zip(map(bytes, expected), original().target.tolist(), strict=True))
    assert sorted(zip(map(bytes, together), labels, strict=True)) == pairs
    assert all(part.labels.dtype == torch.int64 and part.classes == 10 for part in parts)
    assert torch.equal(load("digits", split="test").images, parts[2].images)


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("digits", {"size": 16}, "digits: expected no size.*; got 16"),
        ("digits", {"levels": 4}, "digits: expected no levels.*; got 4"),
        ("mnist-binary", {"levels": 4}, "mnist-binary: expected no levels.*; got 4"),
        ("photos", {"size": 65}, "photos: expected a size from 1 to 64; got 65"),
        ("photos", {"levels": 1}, "photos: expected 2 to 256 levels; got 1"),
        ("photos", {"levels": 257}, "photos: expected 2 to 256 levels; got 257"),
    ],
)
def test_options_that_the_data_cannot_follow(name, options, fragment):
    with one_error(ValueError, fragment):
        load(name, **options)


# photos


class Photos:
    """Stand in for the photographs: images of 24-bit numbers, each pixel its own."""

    def __init__(self, monkeypatch, height=427, width=640):
        numbers = np.arange(2 * height * width).reshape(2, height, width)
        self.images = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=-1).astype(np.uint8)
        monkeypatch.setattr("genfast.data.photos._photos", lambda: list(self.images))

    def numbers(self, patches):
        red, green, blue = patches.to(torch.int64).unbind(1)
        return red << 16 | green << 8 | blue


@pytest.mark.parametrize("size", [1, 7, 32, 64])
def test_no_pixel_of_a_photo_is_in_two_splits(monkeypatch, size):
    photos = Photos(monkeypatch)
    seen = {split: photos.numbers(load_photos(split, size=size).images) for split in ("train", "valid", "test")}
    for patches in seen.values():
        first = patches[:, :1, :1]
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        assert torch.equal(patches, first + rows * 640 + columns), "a patch is a window of the photograph"
    pixels = {split: patches.unique() for split, patches in seen.items()}
    assert sum(len(p) for p in pixels.values()) == len(torch.cat(list(pixels.values())).unique())
    for split in ("valid", "test"):
        assert seen[split].numel() == len(pixels[split]), "held-out patches do not overlap"
    assert len(pixels["train"]) > 0.7 * 2 * 427 * 640
    for patches in seen.values():
        assert set((patches.flatten() >= 427 * 640).tolist()) == {False, True}, "both photographs in every split"


def test_photos_are_the_pixels_of_the_files():
    from sklearn.datasets import load_sample_image

    china = load_sample_image("china.jpg")
    train, valid, test = (load("photos", split=split) for split in ("train", "valid", "test"))
    assert [len(part) for part in (train, valid, test)] == [5200, 52, 52]
    assert train.levels == 256 and train.labels is None and train.images.shape[1:] == (3, 32, 32)
    assert np.array_equal(train.images[1].numpy(), china[:32, 8:40].transpose(2, 0, 1))
    assert np.array_equal(test.images[1].numpy(), china[:32, 14 * 32 : 15 * 32].transpose(2, 0, 1))
    assert np.array_equal(valid.images[2].numpy(), china[32:64, 9 * 32 : 10 * 32].transpose(2, 0, 1))
    coarse = load("photos", split="test", levels=4)
    assert coarse.levels == 4 and torch.equal(coarse.images, test.images // 64)
    assert load("photos", split="test", size=8).images.shape[1:] == (3, 8, 8)


# labels


def test_npz_labels_follow_their_images(tmp_path):
    images = np.arange(30, dtype=np.uint8).reshape(30, 1, 1).repeat(2, axis=1)
    (tmp_path / "a.npz").write_bytes(npz_bytes(images=images, labels=np.arange(30) % 7))
    parts = [load(tmp_path / "a.npz", split=split) for split in ("train", "valid", "test")]
    assert [part.classes for part in parts] == [7, 7, 7]
    for part in parts:
        assert torch.equal(part.labels, part.images[:, 0, 0, 0].long() % 7)
    named = {"train": images[:20], "valid": images[20:], "train_labels": np.arange(20) % 3, "valid_labels": [9] * 10}
    (tmp_path / "b.npz").write_bytes(npz_bytes(**named))
    train, valid = (load(tmp_path / "b.npz", split=split) for split in ("train", "valid"))
    assert train.classes == valid.classes == 10 and valid.labels.tolist() == [9] * 10
    assert train.labels.tolist() == [i % 3 for i in range(20)] and train.labels.dtype == torch.int64
    (tmp_path / "c.npz").write_bytes(npz_bytes(train=images, valid=images, train_labels=np.zeros(30, int)))
    assert load(tmp_path / "c.npz", split="valid").labels is None


@pytest.mark.parametrize(
    ("labels", "kind", "fragment"),
    [
        (np.zeros(3, int), ValueError, r"each of 4 images; got shape \(3,\)"),
        (np.zeros((4, 2), int), ValueError, r"each of 4 images; got shape \(4, 2\)"),
        (np.int64(3), ValueError, r"each of 4 images; got shape \(\)"),
        (np.array([0, 1, -1, 2]), ValueError, "labels from 0 to .*; got -1 to 2"),
        (np.array([0, 1, 2**40, 2]), ValueError, "labels from 0 to .*; got 0 to 1099511627776"),
        (np.zeros(4), TypeError, "whole numbers; got dtype float64"),
        (np.array(list("abcd")), TypeError, "whole numbers; got dtype <U1"),
    ],
)
def test_wrong_labels_name_both(tmp_path, labels, kind, fragment):
    images = np.zeros((4, 3, 3), int)
    for arrays in ({"images": images, "labels": labels}, {"train": images, "train_labels": labels}):
        (tmp_path / "w.npz").write_bytes(npz_bytes(**arrays))
        with one_error(kind, "w.npz", "labels", fragment):
            load(tmp_path / "w.npz")


def test_labels_of_no_images_are_refused(tmp_path):
    (tmp_path / "w.npz").write_bytes(npz_bytes(train=np.zeros((4, 3, 3), int), labels=np.zeros(4, int)))
    with one_error(ValueError, "w.npz", "expected labels named train_labels; got labels"):
        load(tmp_path / "w.npz")


# binary MNIST


def test_packed_and_plain_bits_are_the_same_images(tmp_path):
    (tmp_path / "a.npz").write_bytes(npz_bytes(train=np.packbits(BITS, axis=1), valid=BITS[:7].reshape(7, 28, 28)))
    data = load("mnist-binary", root=tmp_path / "a.npz")
    assert data.levels == 2 and np.array_equal(data.images.numpy().reshape(40, 784), BITS)
    valid = load("mnist-binary", root=tmp_path / "a.npz", split="valid")
    assert np.array_equal(valid.images.numpy().reshape(7, 784), BITS[:7])
    with one_error(LookupError, "a.npz", "'test'", "train, valid"):
        load("mnist-binary", root=tmp_path / "a.npz", split="test")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_split_and_binarise(tmp_path, pack):
    grey = np.random.RandomState(1).randint(0, 256, (60, 28, 28), dtype=np.uint8)
    ending = ".gz" if pack is gzip.compress else ""
    (tmp_path / f"train-images-idx3-ubyte{ending}").write_bytes(pack(idx_bytes(grey)))
    (tmp_path / f"t10k-images-idx3-ubyte{ending}").write_bytes(pack(idx_bytes(grey[:9])))
    train, valid, test = (load("mnist-binary", root=tmp_path, split=s) for s in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (50, 10, 9)
    together = torch.cat((train.images, valid.images))[:, 0]
    assert torch.equal(together, torch.from_numpy(binarize(grey)))
    assert "t10k" in test.name and "probability" in test.name
    with one_error(LookupError, "t10k", "'train'"):
        load("mnist-binary", root=tmp_path / f"t10k-images-idx3-ubyte{ending}")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_have_the_labels_beside_them(tmp_path, ending):
    labels, pack = np.arange(60, dtype=np.uint8) % 10, gzip.compress if ending else bytes
    for name, count in (("train", 60), ("t10k", 7)):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((count, 28, 28), np.uint8)))
        (tmp_path / f"{name}-labels-idx1-ubyte{ending}").write_bytes(pack(idx_bytes(labels[:count])))
    parts = [load("mnist-binary", root=tmp_path, split=split) for split in ("train", "valid", "test")]
    assert [part.classes for part in parts] == [10, 10, 7]
    assert torch.equal(torch.cat([part.labels for part in parts[:2]]), torch.from_numpy(labels.astype(int)))
    assert parts[2].labels.tolist() == list(range(7))
    (tmp_path / f"train-labels-idx1-ubyte{ending}").write_bytes(pack(idx_bytes(labels[:9])))
    with one_error(ValueError, "train-images", "each of 60 images"):
        load("mnist-binary", root=tmp_path)


def test_npz_comes_first_and_idx_fills_the_missing_split(tmp_path):
    (tmp_path / "binarized_mnist.npz").write_bytes(npz_bytes(train=np.packbits(BITS, axis=1)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.full((3, 28, 28), 255, np.uint8)))
    assert len(load("mnist-binary", root=tmp_path)) == 40
    assert load("mnist-binary", root=tmp_path, split="test").images.min() == 1
    with one_error(LookupError, "'valid'", "train"):
        load("mnist-binary", root=tmp_path, split="valid")


def test_binarize_draws_with_the_stated_probability():
    grey = np.repeat(np.array([0, 51, 128, 255], np.uint8), 20_000)
    drawn = binarize(grey).reshape(4, -1).mean(axis=1)
    assert drawn[0] == 0 and drawn[3] == 1
    assert np.abs(drawn - np.array([0, 51, 128, 255]) / 255).max() < 5 * 0.5 / np.sqrt(20_000)
    assert np.array_equal(binarize(grey), binarize(grey))


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (npz_bytes(train=np.zeros((3, 97), np.uint8)), r"\(3, 97\)"),
        (npz_bytes(train=np.zeros((3,), np.uint8)), r"\(3,\)"),
        (npz_bytes(train=np.full((3, 784), 2, np.uint8)), "0 to 1; got 2"),
        (npz_bytes(train=np.zeros((0, 784), np.uint8)), "at least one image; got 0"),
        (b"", "npz"),
        (b"PK\x03\x04 not a zip", "npz"),
    ],
)
def test_wrong_binary_files_are_named(tmp_path, content, fragment):
    (tmp_path / "bad.npz").write_bytes(content)
    with one_error(ValueError, "bad.npz", fragment):
        load("mnist-binary", root=tmp_path / "bad.npz")


def test_missing_roots_are_named(tmp_path):
    with one_error(ValueError, "--data-root", "none"):
        load("mnist-binary")
    with one_error(FileNotFoundError, "--data-root", "nowhere"):
        load("mnist-binary", root=tmp_path / "nowhere")
    with one_error(FileNotFoundError, "binarized_mnist.npz", "neither"):
        load("mnist-binary", root=tmp_path)
    with one_error(FileNotFoundError, "digits, mnist.*photos.*a folder or an .npz file", "nonsense"):
        load("nonsense")
    with one_error(ValueError, "train, valid, test", "'holdout'"):
        load("digits", split="holdout")


class _Rows:
    """What `datasets.load_dataset` returns, as far as it is used."""

    column_names = ("image", "label")

    def __init__(self, count):
        self.count = count

    def __getitem__(self, column):
        assert column == "image"
        return [Image.fromarray(np.full((28, 28), 255 * (i % 2), np.uint8)) for i in range(self.count)]


def test_hub_dataset(monkeypatch):
    asked = []
    hub = types.ModuleType("datasets")
    hub.load_dataset = lambda name, split: asked.append((name, split)) or _Rows(12)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    train = load("mnist-binary", root="someone/mnist")
    assert asked == [("someone/mnist", "train")] and len(train) == 10
    assert torch.equal(train.images[:, 0, 0, 0], torch.tensor([0, 1] * 5, dtype=torch.uint8))
    hub.load_dataset = lambda name, split: (_ for _ in ()).throw(ConnectionError("no route\nto the host"))
    with one_error(RuntimeError, "someone/mnist", "no route"):
        load("mnist-binary", root="someone/mnist")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with one_error(RuntimeError, "`datasets`", "someone/mnist"):
        load("mnist-binary", root="someone/mnist")


# array files


def test_idx_round_trip_of_every_rank(tmp_path):
    for shape in ((5,), (2, 3), (4, 2, 3), (2, 1, 3, 2), (0, 4, 4)):
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        (tmp_path / "x").write_bytes(idx_bytes(array))
        assert np.array_equal(read_idx(tmp_path / "x"), array) and read_idx(tmp_path / "x").shape == shape


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "none"),
        (b"\0\0\x0d\x03" + b"\0" * 12, "00 00 0d 03"),
        (b"\0\0\x08\x03\0\0", "16 bytes; got 6"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], "18 bytes .*; got 17"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8)) + b"x", "18 bytes .*; got 19"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "got 0"),
        (gzip.compress(idx_bytes(np.zeros((2, 3, 3), np.uint8)), mtime=0)[:-9], "readable"),
    ],
)
def test_broken_idx_is_named(tmp_path, content, fragment):
    (tmp_path / "x-idx").write_bytes(content)
    with one_error(ValueError, "x-idx", fragment):
        read_idx(tmp_path / "x-idx")


def _corrupted(draw, content):
    data = bytearray(content)
    for position, value in draw:
        data[position % len(data)] = value
    return bytes(data)


edits = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(edits, st.integers(0, 80), st.booleans())
def test_corrupted_idx_never_crashes(tmp_path_factory, changes, cut, zipped):
    content = idx_bytes(np.arange(36, dtype=np.uint8).reshape(4, 3, 3))
    data = _corrupted(changes, gzip.compress(content) if zipped else content)
    path = tmp_path_factory.getbasetemp() / "fuzz-idx"
    path.write_bytes(data[: len(data) - cut] if cut < len(data) else b"")
    try:
        array = read_idx(path)
    except ValueError as error:
        assert "fuzz-idx" in str(error) and "\n" not in str(error)
    else:
        assert array.dtype == np.uint8


@settings(max_examples=300, deadline=None)
@given(edits, st.integers(0, 300))
def test_corrupted_npz_never_crashes(tmp_path_factory, changes, cut):
    data = _corrupted(changes, npz_bytes(train=np.zeros((4, 3, 3), np.uint8), valid=np.ones((2, 3, 3), np.uint8)))
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    path.write_bytes(data[: max(0, len(data) - cut)])
    try:
        part = load(str(path))
    except (ValueError, TypeError, LookupError) as error:
        assert "fuzz.npz" in str(error) and "\n" not in str(error)
    else:
        assert part.images.dtype == torch.uint8 and int(part.images.max()) < part.levels


def test_pickled_arrays_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(npz_bytes(train=np.array([{"a": 1}], dtype=object)))
    with one_error(ValueError, "a.npz", "pickle"):
        read_npz(tmp_path / "a.npz")


def test_npz_layouts_and_levels(tmp_path):
    images = np.random.RandomState(2).randint(0, 7, (30, 5, 4, 3), dtype=np.uint8)
    (tmp_path / "a.npz").write_bytes(npz_bytes(train=images, levels=7))
    data = load(tmp_path / "a.npz")
    assert data.levels == 7 and np.array_equal(data.images.numpy(), images.transpose(0, 3, 1, 2))
    (tmp_path / "b.npz").write_bytes(npz_bytes(images=images[..., 0].astype(np.float32)))
    parts = [load(tmp_path / "b.npz", split=split) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [24, 3, 3] and {part.levels for part in parts} == {256}
    together = torch.cat([part.images for part in parts]).numpy()
    assert sorted(map(bytes, together)) == sorted(map(bytes, images[..., 0]))
    assert load(tmp_path / "b.npz", levels=8).levels == 8


@pytest.mark.parametrize(
    ("arrays", "kind", "fragments"),
    [
        ({"train": np.full((2, 3, 3), np.nan)}, ValueError, ["0 to 255", "got nan"]),
        ({"train": np.full((2, 3, 3), np.inf)}, ValueError, ["0 to 255", "got inf"]),
        ({"train": np.full((2, 3, 3), 0.5)}, ValueError, ["0 to 1", "got 0.5"]),
        ({"train": np.full((2, 3, 3), 256)}, ValueError, ["0 to 255", "got 256"]),
        ({"train": np.full((2, 3, 3), -1)}, ValueError, ["0 to 1", "got -1"]),
        ({"train": np.full((2, 3, 3), 5), "levels": 4}, ValueError, ["0 to 3", "got 5"]),
        ({"train": np.full((2, 3, 3), "a")}, TypeError, ["whole numbers", "<U1"]),
        ({"train": np.zeros((2, 3, 3), complex)}, TypeError, ["whole numbers", "complex"]),
        ({"train": np.zeros((2, 9))}, ValueError, [r"\[N, H, W\]", r"\(2, 9\)"]),
        ({"x": np.zeros(9)}, ValueError, [r"\[N, H, W\]", r"\(9,\)"]),
        ({"train": np.zeros((2, 2, 3, 5))}, ValueError, ["C 1 or 3", r"\(2, 2, 3, 5\)"]),
        ({"train": np.zeros((2, 0, 3))}, ValueError, ["1x1", r"\(2, 1, 0, 3\)"]),
        ({"train": np.zeros((0, 3, 3))}, ValueError, ["at least one", "got 0"]),
        ({"images": np.zeros((0, 3, 3))}, ValueError, ["at least one", "got 0"]),
        ({"a": np.zeros((2, 3, 3)), "b": np.zeros((2, 3, 3))}, ValueError, ["train, valid, test", "a, b"]),
        ({"valid": np.zeros((2, 3, 3))}, LookupError, ["'train'", "valid"]),
        ({"train": np.zeros((2, 3, 3)), "levels": 999}, ValueError, ["2 to 256", "999"]),
        ({"train": np.zeros((2, 3, 3)), "levels": np.zeros(2)}, ValueError, ["levels", "array"]),
    ],
)
def test_wrong_values_name_both(tmp_path, arrays, kind, fragments):
    (tmp_path / "w.npz").write_bytes(npz_bytes(**arrays))
    with one_error(kind, "w.npz", *fragments):
        load(tmp_path / "w.npz")


# folders of images


def make_folder(folder, count=10, size=(6, 5), mode="L", value=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new(mode, size, (20 * i if mode == "L" else (20 * i, 0, 255)) if value is None else value).save(
            folder / f"{i:02}.png"
        )
    return folder


def test_folder_splits_without_overlap(tmp_path):
    folder = make_folder(tmp_path / "f", 12)
    parts = [load(folder, split=split) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [10, 1, 1]
    assert parts[0].images.shape[1:] == (1, 5, 6) and parts[0].levels == 256
    values = torch.cat([part.images[:, 0, 0, 0] for part in parts])
    assert sorted(values.tolist()) == [20 * i for i in range(12)]


def test_colour_anywhere_makes_three_channels(tmp_path):
    folder = make_folder(tmp_path / "f" / "train", 3)
    make_folder(tmp_path / "f" / "valid", 2, mode="RGB")
    assert load(tmp_path / "f").images.shape == (3, 3, 5, 6)
    valid = load(tmp_path / "f", split="valid").images
    assert torch.equal(valid[1, :, 0, 0], torch.tensor([20, 0, 255], dtype=torch.uint8))
    with one_error(LookupError, "'test'", "train, valid"):
        load(folder.parent, split="test")


def test_broken_files_are_counted_or_refused(tmp_path):
    folder = make_folder(tmp_path / "train", 5)
    whole = (folder / "01.png").read_bytes()
    (folder / "01.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    data = load(tmp_path)
    assert data.skipped == 2 and data.images[:, 0, 0, 0].tolist() == [0, 40, 60, 80]
    with one_error(ValueError, "01.png", "readable image"):
        load(tmp_path, strict=True)
    for path in folder.glob("*.png"):
        path.write_bytes(b"broken")
    with one_error(ValueError, "at least one readable", "6 broken files of 6"):
        load(tmp_path)


def test_sizes_must_agree_or_be_made_to(tmp_path):
    folder = make_folder(tmp_path / "train", 3)
    Image.new("L", (9, 9), 255).save(folder / "big.png")
    with one_error(ValueError, "6x5", "9x9", "--size"):
        load(tmp_path)
    resized = load(tmp_path, size=4).images
    assert resized.shape == (4, 1, 4, 4) and resized[-1].min() == 255
    with one_error(ValueError, "at least 1 pixel", "0"):
        load(tmp_path, size=0)


def test_levels_and_sixteen_bit_files(tmp_path):
    folder = make_folder(tmp_path / "train", 1, value=255)
    Image.fromarray(np.full((5, 6), 0x8000, np.uint16)).save(folder / "deep.png")
    assert load(tmp_path).images[:, 0, 0, 0].tolist() == [255, 128]
    coarse = load(tmp_path, levels=4)
    assert coarse.levels == 4 and coarse.images[:, 0, 0, 0].tolist() == [3, 2]
    with one_error(ValueError, "2 to 256 levels", "300"):
        load(tmp_path, levels=300)


def test_folder_without_images(tmp_path):
    with one_error(ValueError, ".png", "none"):
        load(tmp_path)


# writing


def test_grid_holds_every_pixel():
    images = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 1, 3, 2) % 4
    picture = grid(images, 4, columns=3, side=6)
    assert picture.shape == (2 * 6 + 2, 3 * 4 + 2 * 2, 1)
    assert np.array_equal(picture[8:14:2, 6:10:2, 0], images[4, 0] * 85)
    assert (picture[:, 4:6] == 96).all() and (picture[8:, 12:] == 96).all()


def test_png_and_npz_can_be_read_back(tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (4, 3, 5, 5), dtype=np.uint8)
    picture = grid(images, 256)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
    (tmp_path / "a.npz").write_bytes(npz(images, 256))
    assert np.array_equal(read_npz(tmp_path / "a.npz")["images"], images)
    (tmp_path / "b.npz").write_bytes(npz(images, 256, torch.tensor([3, 1, 0, 3])))
    assert read_npz(tmp_path / "b.npz")["labels"].tolist() == [3, 1, 0, 3]
    with one_error(ValueError, ".png or .npz", ".gif"):
        writer(tmp_path / "a.gif")
    with one_error(OSError, "written", "got a file"):
        writer(tmp_path / "a.npz" / "b.png")


def test_image_data_keeps_whole_floats():
    data = image_data(np.array([[[0.0, 1.0]], [[1.0, 0.0]]], np.float32), None, "x")
    assert data.levels == 2 and data.images.flatten().tolist() == [0, 1, 1, 0]
