"""Lossless codecs without a model: their files hold the images, and their sizes are those of the files."""

import bz2
import io
import lzma

import numpy as np
import pytest
from PIL import Image

from genfast.metrics import classical_sizes, codecs

CODECS = ("png", "webp", "jpeg-xl", "bz2", "xz")
# Not at the least size that a codec takes, prime in number, and not square.
GREY = np.random.default_rng(0).integers(0, 256, (7, 1, 9, 12), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (5, 3, 8, 6), dtype=np.uint8)


def ramps(count):
    """Smooth images, each of which is the one before moved by a column."""
    return (np.add.outer(np.arange(count), np.add.outer(np.arange(12), np.arange(12))) % 200).astype(np.uint8)[:, None]


def decoded(name, data):
    """A picture [H, W, C]."""
    if name == "jpeg-xl":
        array = pytest.importorskip("imagecodecs").jpegxl_decode(data)
    else:
        image = Image.open(io.BytesIO(data))
        array = np.asarray(image.convert("RGB" if name == "webp" else image.mode))
    return array[..., None] if array.ndim == 2 else array


def cut(picture, shape):
    channels, height, width = shape
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    cells = picture.reshape(rows, height, columns, width, -1).transpose(0, 2, 4, 1, 3)
    return cells.reshape(rows * columns, -1, height, width)[:, :channels]


@pytest.mark.parametrize("name", CODECS[:3])
@pytest.mark.parametrize("images", [GREY, COLOR], ids=["grey", "colour"])
def test_the_pictures_hold_the_images(name, images):
    encode, missing = codecs._picture_codecs()[name]
    if missing:
        pytest.skip(missing)
    files = [encode(picture, False) for picture in codecs.mosaic(images, 100)]
    got = np.concatenate([cut(decoded(name, file), images.shape[1:]) for file in files])
    np.testing.assert_array_equal(got[: len(images)], images)
    assert classical_sizes(images)[f"{name} one"].size == sum(map(len, files))
    alone = [encode(image, False) for image in images.transpose(0, 2, 3, 1)]
    np.testing.assert_array_equal(
        np.stack([decoded(name, f) for f in alone])[..., : images.shape[1]], images.transpose(0, 2, 3, 1)
    )
    assert classical_sizes(images)[f"{name} each"].size == sum(map(len, alone))


@pytest.mark.parametrize("name, unpack", [("bz2", bz2.decompress), ("xz", lzma.decompress)])
def test_bytes_are_those_of_the_images(name, unpack):
    pack = {"bz2": bz2.compress, "xz": codecs._xz}[name]
    assert unpack(pack(GREY.tobytes())) == GREY.tobytes()
    sizes = classical_sizes(GREY)
    assert sizes[f"{name} one"].size == len(pack(GREY.tobytes()))
    assert sizes[f"{name} each"].size == sum(len(pack(image.tobytes())) for image in GREY)


def test_xz_is_as_good_as_its_command():
    data = ramps(900).tobytes()
    assert len(codecs._xz(data)) <= len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def test_mosaics_are_nearly_square_and_fit():
    images = np.arange(1000, dtype=np.uint16).astype(np.uint8).reshape(1000, 1, 1, 1).repeat(4, 2).repeat(2, 3)
    (picture,) = codecs.mosaic(images, 1000)
    assert picture.shape == (4 * 23, 2 * 45, 1) and not picture[-4:, -2 * 35 :].any()
    pictures = codecs.mosaic(images, 20)
    assert {max(p.shape) for p in pictures} <= set(range(21)) and len(pictures) == 20
    got = np.concatenate([cut(p, (1, 4, 2)) for p in pictures])
    np.testing.assert_array_equal(got[:1000], images)


def test_images_share_what_they_have_in_common():
    sizes = classical_sizes(ramps(30))
    for name in CODECS:
        if sizes[f"{name} one"].size is not None:
            assert sizes[f"{name} one"].size < sizes[f"{name} each"].size, name
    noise = classical_sizes(GREY)
    assert all(GREY.size < size.size < 12 * GREY.size for size in noise.values() if size.size is not None)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (3, 4)])
def test_a_bit_for_each_of_two_levels(values):
    fair = np.random.default_rng(0).integers(0, 2, (40, 1, 16, 16), dtype=np.uint8)
    images = np.array(values, np.uint8)[fair]
    sizes = classical_sizes(images)
    for name in ("png one", "bz2 one", "xz one"):
        assert sizes[name].note == "a bit for each level"
        assert images.size // 8 < sizes[name].size < 1.2 * images.size // 8 + 100, name
    flat = classical_sizes(np.full((40, 1, 16, 16), 7, np.uint8))
    assert flat["xz one"].size < 200


def test_many_images_are_measured_on_some(monkeypatch):
    images = ramps(200)
    whole = classical_sizes(images)
    monkeypatch.setattr(codecs, "MOST_FILES", 50)
    monkeypatch.setitem(codecs.MOST_PIXELS, "png", 100 * 144)
    monkeypatch.setattr(codecs, "MOST_BYTES", 150 * 144)
    part = classical_sizes(images)
    assert part["png each"].note == "scaled from 50 of 200 images"
    assert part["png one"].note == "scaled from 100 of 200 images"
    assert part["xz one"].note == "scaled from 150 of 200 images"
    for name in ("png each", "xz each", "bz2 each"):
        assert part[name].size == pytest.approx(whole[name].size, rel=0.05) and not whole[name].note
    taken, count = codecs._spread(images, "each", 9999)
    assert count == 200 and np.array_equal(taken, images[::4])


def test_what_cannot_be_had_says_why():
    sizes = classical_sizes(GREY.reshape(7, 2, 9, 6))
    assert sizes["png one"] == codecs.CodecSize(None, "needs 1 or 3 channels; these have 2")
    assert sizes["xz one"].size == classical_sizes(GREY)["xz one"].size
    wide = classical_sizes(np.zeros((2, 1, 1, 16384), np.uint8))
    assert wide["webp each"] == codecs.CodecSize(None, "needs sides of at most 16383 pixels")
    assert wide["png each"].size is not None


@pytest.mark.parametrize(
    "images, error, message",
    [
        (np.zeros((0, 1, 2, 2), np.uint8), ValueError, r"not empty; got \(0, 1, 2, 2\)"),
        (np.zeros((1, 2, 2), np.uint8), ValueError, r"shape \[N, C, H, W\]"),
        (np.zeros((1, 1, 2, 2), np.int64), TypeError, "uint8 levels; got int64"),
    ],
)
def test_other_images_are_refused(images, error, message):
    with pytest.raises(error, match=message):
        classical_sizes(images)
