"""Folders as people have them: links, classes, splits by any name, odd files; what is left out is told, by reason."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.files import one_error

from genfast.data import describe, load
from genfast.data.folder import image_files, is_grey, read_image

RAMP = np.arange(8 * 16, dtype=np.uint8).reshape(8, 16)


def save(path, value=0, size=(4, 4), mode="L", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
    return path


def save_array(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def png(width, height, bits, kind, raw):
    """The bytes of a PNG of a kind that Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def values(data):
    return data.images[:, 0, 0, 0].tolist()


# classes


def test_subfolders_are_classes(tmp_path):
    for i, name in enumerate(["cat", "dog", "cat", "eel"] * 5):
        save(tmp_path / name / f"{i}.png", 10 * i)
    data = load(tmp_path, split="all")
    assert data.class_names == ("cat", "dog", "eel") and data.classes == 3 and len(data.files) == len(data) == 20
    for file, label, value in zip(data.files, data.labels.tolist(), values(data), strict=True):
        assert file == f"{data.class_names[label]}/{value // 10}.png"
    assert describe(data).endswith("20 images of 4x4, grey, 256 levels, 3 classes (cat, dog, eel)")
    train = load(tmp_path)
    assert train.classes == 3 and len(train.files) == len(train.labels) == len(train) == 16


def test_classes_are_those_of_all_splits_and_numbers_are_in_their_order(tmp_path):
    for name in ("train/10/a.png", "train/9/b.png", "val/2/c.png"):
        save(tmp_path / name)
    save(tmp_path / "test" / "d.png")
    train, valid, test = (load(tmp_path, split=split) for split in ("train", "valid", "test"))
    assert train.class_names == valid.class_names == ("2", "9", "10") and train.classes == valid.classes == 3
    assert train.labels.tolist() == [2, 1] and valid.labels.tolist() == [0] and test.labels is None


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["a/1.png", "a/2.png"], None),  # one subfolder is a place, no class
        (["a/1.png", "b/2.png", "3.png"], "no labels, as 1 image beside its 2 subfolders"),
    ],
)
def test_what_is_no_class(tmp_path, names, note):
    for name in names:
        save(tmp_path / name)
    data = load(tmp_path, split="all")
    assert data.labels is None and data.class_names == ()
    assert data.notes == (() if note is None else (f"{tmp_path}: {note}",))


# links


def test_links_to_classes_splits_and_files_are_followed(tmp_path):
    store, root = tmp_path / "store", tmp_path / "data"
    for i in range(3):
        save(store / "x" / f"{i}.png", i)
    save(store / "one.png", 9)
    (root / "train").mkdir(parents=True)
    (root / "train" / "x").symlink_to(store / "x")
    (root / "train" / "y").mkdir()
    (root / "train" / "y" / "one.png").symlink_to(store / "one.png")
    (root / "valid").symlink_to(store / "x")
    train, valid = load(root), load(root, split="valid")
    assert values(train) == [0, 1, 2, 9] and train.labels.tolist() == [0, 0, 0, 1] and values(valid) == [0, 1, 2]


def test_loops_of_links_end(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    names = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert names == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png"]


def test_links_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("genfast.data.walk.MOST_LINKS", 100)
    for i in range(6):
        save(tmp_path / str(i) / "x.png")
    for i in range(6):
        for j in range(6):
            (tmp_path / str(i) / f"to{j}").symlink_to(tmp_path / str(j))
    with one_error(ValueError, "at most 100 linked folders"):
        image_files(tmp_path)


# splits


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_a_validation_split_by_any_name(tmp_path, name):
    save(tmp_path / "train" / "a.png", 1)
    save(tmp_path / name / "b.png", 2)
    assert values(load(tmp_path)) == [1] and values(load(tmp_path, split="valid")) == [2]
    save(tmp_path / "VALIDATION" / "c.png")
    with one_error(ValueError, "expected one subfolder 'valid'; got "):
        load(tmp_path)


def test_without_a_validation_split_a_tenth_of_train_is_held_out(tmp_path):
    for i in range(20):
        save(tmp_path / "train" / f"{i}.png", i)
    with one_error(LookupError, "expected a subfolder 'valid'; got only train"):
        load(tmp_path, split="valid")
    save(tmp_path / "test" / "x.png", 99)
    train, valid, test = (load(tmp_path, split=split) for split in ("train", "valid", "test"))
    assert (len(train), len(valid), values(test)) == (18, 2, [99])
    assert sorted(values(train) + values(valid)) == list(range(20))
    assert train.notes == valid.notes == (f"{tmp_path}: no 'valid': 2 of 20 images of 'train' held out as it",)


def test_all_are_all(tmp_path):
    for i, name in enumerate(["b/1.png", "a/train/2.png", "3.png"]):
        save(tmp_path / "one" / name, i)
    assert load(tmp_path / "one", split="all").files == ("3.png", "a/train/2.png", "b/1.png")
    for i, name in enumerate(["train/1.png", "val/2.png", "3.png"]):
        save(tmp_path / "two" / name, i)
    data = load(tmp_path / "two", split="all")
    assert data.files == ("3.png", "train/1.png", "val/2.png") and values(data) == [2, 0, 1]
    assert load(tmp_path / "two").notes == (f"{tmp_path / 'two'}: 1 image outside of train, valid not used",)
    digits = load("digits", split="all")
    assert len(digits) == 1797 and torch.equal(digits.images[:1297], load("digits").images) and digits.classes == 10
    assert len(load("digit-outlines", split="all")) == 1797


@pytest.mark.parametrize("split", ["valid", "test"])
def test_seven_images_are_too_few_to_split(tmp_path, split):
    for i in range(7):
        save(tmp_path / f"{i}.png")
    with one_error(ValueError, f"at least 10 images, so that one in 10 is for '{split}', or subfolders train.*; got 7"):
        load(tmp_path, split=split)
    for name in ("train/a.png", "test/b.png"):
        save(tmp_path / "two" / name)
    with one_error(ValueError, "at least 10 images in 'train' to hold one in 10 out for 'valid'.*; got 1"):
        load(tmp_path / "two", split="valid")


# what is skipped


def test_what_is_skipped_is_counted_by_reason_and_named_if_asked(tmp_path, monkeypatch):
    whole = save(tmp_path / "a.png", 7, (64, 64)).read_bytes()
    save(tmp_path / "deep.tif", 0.5, (64, 64), "F")
    for name, content in (("b.png", whole[:-30]), ("c.png", whole[:-40]), ("d.jpg", b""), ("e.gif", b"text")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "x.heic").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image, and nobody would think so")
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    save(tmp_path / "large.png", 0, (200, 51))
    data = load(tmp_path, split="all")
    assert data.skipped == 7 and values(data) == [7] and data.files == ("a.png",)
    kinds, skipped = data.notes
    assert kinds == f"{tmp_path}: 2 files skipped: of a kind that is not read (1 .heic, 1 .png)"
    assert skipped.startswith(f"{tmp_path}[all]: 7 of 8 files skipped: 2 damaged, ")
    for reason in ("1 empty", "1 no image", "1 links to nothing", "1 floats, whose range is not known"):
        assert reason in skipped
    assert "1 larger than Pillow's limit of 10000 pixels" in skipped and "--strict names them" in skipped
    names = ("b.png", "c.png", "d.jpg", "deep.tif", "e.gif", "gone.png", "large.png")
    with one_error(ValueError, "got 7 of 8 that are not: ", *(rf"{name} \(" for name in names)):
        load(tmp_path, split="all", strict=True)


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp"])
def test_the_first_frame_of_animations_is_used_and_told(tmp_path, ending):
    frames = [Image.new("L", (4, 4), value) for value in (40, 80, 120)]
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **_lossless(ending))
    save(tmp_path / f"b.{ending}", 200, **_lossless(ending))
    data = load(tmp_path, split="all")
    assert values(data) == [40, 200]
    assert data.notes == (f"{tmp_path}[all]: 1 file of several frames or pages: the first of each is used",)


def _lossless(ending):
    return {"lossless": True} if ending == "webp" else {}


def test_control_characters_of_names_are_escaped(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b\n\x1b[31m" / "2.png")
    (tmp_path / "a" / "x\n\x1b[31m.png").write_bytes(b"")
    data = load(tmp_path, split="all")
    assert data.class_names == ("a", r"b\n\x1b[31m") and describe(data).isprintable()
    with one_error(ValueError, r"x\\n\\x1b\[31m.png \("):
        load(tmp_path, split="all", strict=True)


def test_a_header_of_more_pixels_than_the_file_can_hold(tmp_path):
    save(tmp_path / "blank.png", 0, (9000, 9000), "1")
    bmp = bytearray(save(tmp_path / "a.bmp", 7).read_bytes())
    bmp[18:26] = struct.pack("<ii", 9000, 9000)
    (tmp_path / "a.bmp").write_bytes(bytes(bmp))
    data = load(tmp_path, split="all", size=4)
    assert data.files == ("blank.png",) and data.notes[0].endswith(
        "1 a size that the file cannot hold (--strict names them)"
    )


# depth


def test_one_scale_for_all_files_of_32_bits(tmp_path):
    for name, top in (("a", 200), ("b", 256), ("c", 60000)):
        save_array(tmp_path / f"{name}.tif", np.full((4, 4), top, np.int32))
    data = load(tmp_path, split="all")
    assert values(data) == [0, 1, 234]
    assert data.notes == (
        f"{tmp_path}[all]: 3 files of more than 8 bits, largest value 60000: read as 16 bits, of which the upper 8 "
        "are kept",
    )
    (tmp_path / "c.tif").unlink()
    (tmp_path / "b.tif").unlink()
    assert values(load(tmp_path, split="all")) == [200]
    assert values(load(tmp_path, split="all", bits=12)) == [200 >> 4]


def test_the_scale_is_one_for_all_splits(tmp_path):
    save_array(tmp_path / "train" / "a.tif", np.full((4, 4), 200, np.int32))
    save_array(tmp_path / "valid" / "b.tif", np.full((4, 4), 25600, np.int32))
    assert [values(load(tmp_path, split=split)) for split in ("train", "valid")] == [[0], [100]]


def test_floats_need_bits(tmp_path):
    for name, top in (("a", 200), ("b", 256), ("c", 60000)):
        save_array(tmp_path / f"{name}.tif", np.full((4, 4), top, np.float32))
    with one_error(ValueError, r"a.tif.*floats \(mode F\), whose range is not known; --bits"):
        load(tmp_path, split="all", strict=True)
    assert values(load(tmp_path, split="all", bits=16)) == [0, 1, 234]
    save_array(tmp_path / "d.tif", np.full((4, 4), 0.5, np.float32))
    with one_error(ValueError, r"1 of 4 that are not: d.tif \(expected whole numbers, as --bits says"):
        load(tmp_path, split="all", bits=16, strict=True)


def test_twelve_bits_in_sixteen(tmp_path):
    for i in range(3):
        save_array(tmp_path / f"{i}.png", np.full((4, 4), 1000 * i + 2000, np.uint16))
    data = load(tmp_path, split="all")
    assert values(data) == [7, 11, 15] and "read as 16 bits, which makes them dark: --bits 12" in data.notes[0]
    bright = load(tmp_path, split="all", bits=12)
    assert values(bright) == [125, 187, 250] and bright.notes == ()
    with one_error(ValueError, r"2.png \(expected pixels of 11 bits; got values from 4000 to 4000", "1.png"):
        load(tmp_path, split="all", bits=11, strict=True)
    for bits in (7, 33):
        with one_error(ValueError, f"expected 8 to 32 bits; got {bits}"):
            load(tmp_path, bits=bits)
    with one_error(ValueError, "digits: expected no bits"):
        load("digits", bits=12)


def test_sixteen_bits_of_grey_with_alpha_are_as_eight(tmp_path):
    pairs = [(0, 255), (100, 128), (200, 255)]
    deep = b"\0" + b"".join(struct.pack(">HH", value << 8 | 77, alpha << 8 | alpha) for value, alpha in pairs)
    (tmp_path / "16.png").write_bytes(png(3, 1, 16, 4, deep))
    (tmp_path / "8.png").write_bytes(png(3, 1, 8, 4, b"\0" + bytes(x for pair in pairs for x in pair)))
    data = load(tmp_path, split="all")
    assert data.images.shape == (2, 1, 1, 3) and torch.equal(data.images[0], data.images[1])


# formats


TURNED = {
    1: RAMP,
    2: RAMP[:, ::-1],
    3: RAMP[::-1, ::-1],
    4: RAMP[::-1],
    5: RAMP.T,
    6: np.rot90(RAMP, -1),
    7: np.rot90(RAMP, 2).T,
    8: np.rot90(RAMP, 1),
}


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_is_turned_whatever_its_compression(tmp_path, compression, dtype):
    for tag, expected in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        array = RAMP.astype(dtype) << (8 if dtype == np.uint16 else 0)
        Image.fromarray(array).save(tmp_path / "a.tif", exif=exif, compression=compression)
        assert np.array_equal(read_image(tmp_path / "a.tif", 1)[..., 0], expected), tag


def test_colours_of_every_mode(tmp_path):
    """Saturated colours are known in every mode; JPEG's are within its loss."""
    for name, mode, stored, expected, options in (
        ("cmyk.tif", "CMYK", (0, 255, 255, 0), (255, 0, 0), {}),
        ("cmyk.jpg", "CMYK", (0, 255, 255, 0), (255, 0, 0), {"quality": 100}),
        ("ycc.jpg", "RGB", (255, 0, 0), (255, 0, 0), {"quality": 100}),
        ("rgba.png", "RGBA", (200, 100, 0, 255), (200, 100, 0), {}),
        ("rgb.bmp", "RGB", (1, 2, 3), (1, 2, 3), {}),
        ("rgb.ppm", "RGB", (1, 2, 3), (1, 2, 3), {}),
        ("palette.png", "P", 0, (7, 8, 9), {}),
    ):
        image = Image.new(mode, (8, 8), stored)
        if mode == "P":
            image.putpalette([7, 8, 9])
        image.save(tmp_path / name, **options)
        pixel = read_image(tmp_path / name, 3)[4, 4].astype(int)
        assert np.abs(pixel - expected).max() <= (3 if name.endswith("jpg") else 0), name


def test_lab_is_converted_by_its_profile(tmp_path):
    from PIL import ImageCms

    lab = ImageCms.profileToProfile(
        Image.new("RGB", (4, 4), (200, 30, 60)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    lab.save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif", 3)[0, 0].astype(int) - (200, 30, 60)).max() <= 3
    assert abs(int(read_image(tmp_path / "a.tif", 1)[0, 0, 0]) - 84) <= 3


def test_greys_of_every_mode(tmp_path):
    big = b"P5 2 1 65535\n" + struct.pack(">HH", 0x1234, 0xFFFF)
    (tmp_path / "sixteen.pgm").write_bytes(big)
    (tmp_path / "twelve.pgm").write_bytes(b"P5 2 1 4095\n" + struct.pack(">HH", 0, 4095))
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "one.png")
    Image.fromarray(np.array([[0x1234, 0xFFFF]], ">u2")).save(tmp_path / "big.tif")
    for name, expected in (("sixteen.pgm", [0x12, 255]), ("twelve.pgm", [0, 255]), ("one.png", [0, 255])):
        assert read_image(tmp_path / name, 1)[0, :, 0].tolist() == expected and is_grey(tmp_path / name), name
    assert read_image(tmp_path / "big.tif", 1)[0, :, 0].tolist() == [0x12, 255]


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "tif", "webp"])
def test_a_file_that_is_cut_is_told_and_never_read(tmp_path, ending):
    noise = np.random.RandomState(0).randint(0, 256, (32, 32), dtype=np.uint8)
    whole = save_array(tmp_path / f"a.{ending}", noise).read_bytes()
    (tmp_path / f"b.{ending}").write_bytes(whole[: len(whole) // 2])
    data = load(tmp_path, split="all")
    assert data.files == (f"a.{ending}",) and data.skipped == 1 and "1 of 2 files skipped: 1 " in data.notes[0]


def test_images_beyond_the_limit_of_memory(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.bmp", i, (100, 100))
    with one_error(ValueError, "10 images 100x100: expected at most 90 kB of images.*; got 100 kB"):
        load(tmp_path, split="all", max_gb=9e-5)
    assert len(load(tmp_path, split="all", max_gb=1e-4)) == 10
