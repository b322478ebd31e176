"""What image files may be: turned, transparent, deep, of a palette, hidden."""

import numpy as np
import pytest
import torch
from PIL import Image

from genfast.data import load
from genfast.data.folder import image_files, is_grey, read_image

RAMP = np.arange(8 * 16, dtype=np.uint8).reshape(8, 16)


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
@pytest.mark.parametrize("tag, turned", [(6, np.rot90(RAMP, -1)), (3, RAMP[::-1, ::-1]), (2, RAMP[:, ::-1])])
def test_an_image_is_turned_as_its_camera_says(tmp_path, ending, tag, turned):
    exif = Image.Exif()
    exif[0x0112] = tag
    packed = {"jpg": {"quality": 100}, "tif": {"compression": "tiff_lzw"}}.get(ending, {})
    Image.fromarray(RAMP).save(tmp_path / f"a.{ending}", exif=exif, **packed)
    pixels = read_image(tmp_path / f"a.{ending}", 1)[..., 0].astype(int)
    assert pixels.shape == turned.shape and np.abs(pixels - turned).max() <= (2 if ending == "jpg" else 0)


def test_floats_and_more_than_16_bits_are_refused_by_name(tmp_path):
    for name, array, text in (
        ("floats.tif", RAMP / np.float32(127), r"got floats \(mode F\)"),
        ("deep.tif", RAMP.astype(np.int32) << 16, r"got values from 0 to 8323072 \(mode I\)"),
        ("negative.tif", RAMP.astype(np.int32) - 9, r"got values from -9 to 118 \(mode I\)"),
    ):
        folder = tmp_path / name.removesuffix(".tif")
        (folder / "train").mkdir(parents=True)
        Image.fromarray(array).save(folder / "train" / name)
        for strict in (True, False):
            with pytest.raises(ValueError, match=f"{name}.*expected pixels of 8 or 16 bits; {text}"):
                load(folder, strict=strict)


def test_32_bits_that_hold_8_or_16(tmp_path):
    for factor in (1, 256):
        Image.fromarray(RAMP.astype(np.int32) * 2 * factor).save(tmp_path / "a.tif")
        assert np.array_equal(read_image(tmp_path / "a.tif", 1)[..., 0], RAMP * 2)
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png", 1).max() == 0, "16 bits stay 16 bits"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_black(tmp_path, mode):
    colour = np.full((4, 4, len(mode) - 1), 77, np.uint8)
    alpha = np.array([0, 51, 128, 255], np.uint8)[None, :, None].repeat(4, 0)
    Image.fromarray(np.concatenate((colour, alpha), 2)).save(tmp_path / "a.png")
    expected = 77 * (alpha / 255)
    for channels in (1, 3):
        assert np.abs(read_image(tmp_path / "a.png", channels) - expected).max() <= 1
    assert is_grey(tmp_path / "a.png") == (mode == "LA")


def test_a_transparent_colour_of_a_palette_lies_on_black(tmp_path):
    image = Image.fromarray(np.eye(4, dtype=np.uint8), "P")
    image.putpalette([90, 90, 90, 200, 200, 200])
    image.save(tmp_path / "a.png", transparency=0)
    assert np.array_equal(read_image(tmp_path / "a.png", 1)[..., 0], 200 * np.eye(4, dtype=int))


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_a_palette_of_greys_is_one_channel(tmp_path, ending):
    for name, palette, channels in (("grey", [9, 9, 9, 200, 200, 200], 1), ("red", [9, 9, 9, 200, 0, 0], 3)):
        (tmp_path / name / "train").mkdir(parents=True)
        image = Image.fromarray(np.eye(4, dtype=np.uint8), "P")
        image.putpalette(palette)
        path = tmp_path / name / "train" / f"a.{ending}"
        image.save(path)
        with Image.open(path) as kept:
            assert kept.mode == "P"
        images = load(tmp_path / name).images
        assert images.shape == (1, channels, 4, 4)
        assert torch.equal(images[0, 0].int(), 9 + (191 * torch.eye(4)).int())


def test_hidden_files_are_no_images(tmp_path):
    root = tmp_path / ".cache" / "images"
    for name in ("1.png", "a/2.png", "._1.png", ".trash/3.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RAMP).save(root / name)
    assert [path.relative_to(root).as_posix() for path in image_files(root)] == ["1.png", "a/2.png"]
