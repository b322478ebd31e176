"""Data by their names: a name has one meaning, and pictures side by side are pairs."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from support.files import npz_bytes, one_error

from genfast.data import describe, load, locate

RANDOM = np.random.RandomState(0)


def save(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RANDOM.randint(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(path)
    return array


@pytest.mark.parametrize("name", ["photos", "digits", "mnist"])
def test_a_name_of_a_data_set_and_of_a_folder_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert locate(name)[1] == f"builtin:{name}"
    save(tmp_path / name / "train" / "1.png", (4, 4))
    with one_error(ValueError, f"data: expected builtin:{name} for the data set, or ./{name} for what lies here"):
        load(name)
    assert len(load(f"./{name}")) == 1 and locate(f"./{name}")[1] == str(tmp_path / name)
    assert locate(f"builtin:{name}")[1] == f"builtin:{name}"
    if name == "digits":
        assert len(load("builtin:digits", split="test")) == 300
    with one_error(FileNotFoundError, "expected digit-outlines", "got builtin:nothing"):
        load("builtin:nothing")


def test_names_are_located_wherever_one_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(npz_bytes(train=np.zeros((2, 3, 3), int)))
    assert locate("a.npz")[1] == str(tmp_path / "a.npz")
    assert locate(f"pairs:sub{os.sep}x")[1] == f"pairs:{tmp_path / 'sub' / 'x'}"


@pytest.mark.parametrize(("shape", "channels"), [((6, 16, 3), 3), ((6, 16), 1)])
def test_pictures_side_by_side_are_pairs(tmp_path, shape, channels):
    arrays = {
        f"{split}/{i}.png": save(tmp_path / split / f"{i}.png", shape) for split in ("train", "val") for i in (1, 2)
    }
    for split, folder in (("train", "train"), ("valid", "val")):
        data = load(f"pairs:{tmp_path}", split=split)
        assert data.source.shape == data.target.shape == (2, channels, 6, 8)
        assert data.files == (f"{folder}/1.png", f"{folder}/2.png")
        assert describe(data).startswith(f"{tmp_path}[{split}]: 2 pairs of 8x6, ")
        for i in (1, 2):
            whole = torch.from_numpy(arrays[f"{folder}/{i}.png"].reshape(6, 16, channels)).permute(2, 0, 1)
            assert torch.equal(torch.cat((data.source[i - 1], data.target[i - 1]), 2), whole)
    small = load(f"pairs:{tmp_path}", size=3)
    for i, side in enumerate((small.source, small.target)):
        half = (
            Image.fromarray(arrays["train/1.png"])
            .crop((8 * i + 1, 0, 8 * i + 7, 6))
            .resize((3, 3), Image.Resampling.BOX)
        )
        assert np.array_equal(side[0].permute(1, 2, 0).numpy().reshape(np.asarray(half).shape), half)
    save(tmp_path / "train" / "odd.png", (6, 15, 3))
    with one_error(
        ValueError, r"train/odd.png \(expected two images of one width side by side; got 15 pixels in all\)"
    ):
        load(f"pairs:{tmp_path}")


def test_pairs_without_a_validation_split(tmp_path):
    for i in range(10):
        save(tmp_path / "train" / f"{i}.png", (4, 8))
    save(tmp_path / "test" / "x.png", (4, 8))
    parts = [load(f"pairs:{tmp_path}", split=split) for split in ("train", "valid", "test", "all")]
    assert [len(part) for part in parts] == [9, 1, 1, 11] and "are held out as it" in parts[1].notes[0]
