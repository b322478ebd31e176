"""Data on the command line: which they are is said first, all of a folder is used, and a run finds them again."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from genfast.data import load
from genfast.models import build
from genfast.train.checkpoint import load_checkpoint

TINY = ["--hidden", 3, "--layers", 1, "--head", 3, "--batch", 4, "--eval-every", 5, "--device", "cpu"]
RANDOM = np.random.RandomState(0)


def picture(path, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.randint(0, 2, size[::-1], dtype=np.uint8) * 255).save(path)


@pytest.fixture
def folder(tmp_path):
    """20 images of 6x5 in three classes."""
    for i in range(20):
        picture(tmp_path / "images" / "cde"[i % 3] / f"{i:02}.png")
    return tmp_path / "images"


@pytest.fixture
def vae(tmp_path):
    torch.manual_seed(0)
    build("vae", height=5, width=6, levels=2, latent=3, network="mlp", hidden=8, layers=1).save_pretrained(
        tmp_path / "vae"
    )
    return tmp_path / "vae"


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def test_train_says_which_data_and_keeps_the_names_of_classes(genfast, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", "gated-pixelcnn", "--data", "images", "--levels", 2, "--conditional", *TINY]
    code, out, err = genfast(*train, "--out", "r", "--steps", 2)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == (
        f"{folder}[train]: 16 images of 6x5, grey, 2 levels, 3 classes (c, d, e); 2 to validate on"
    )
    settings = json.loads((tmp_path / "r" / "config.json").read_text())
    assert settings["class_names"] == ["c", "d", "e"] and settings["model_config"]["classes"] == 3
    assert settings["data"]["data"] == str(folder), "wherever the run is read"
    code, out, err = genfast("evaluate", "r")
    assert (code, err) == (0, "") and out.splitlines()[0].startswith(f"{folder}[test]: 2 images of 6x5, grey, 2 levels")


def test_a_name_of_a_data_set_beside_a_folder(genfast, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(10):
        picture(tmp_path / "digits" / f"{i}.png")
    train = ["train", "pixelcnn", *TINY, "--steps", 1, "--out"]
    code, out, err = genfast(*train, "a", "--data", "digits")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected builtin:digits for the data set, or ./digits for what lies here; got digits, which is both" in err
    assert genfast(*train, "b", "--data", "./digits", "--levels", 2)[1].startswith(
        f"{tmp_path}/digits[train]: 8 images"
    )
    assert genfast(*train, "c", "--data", "builtin:digits")[1].startswith("digits[train]: 1297 images of 8x8, grey, 16")
    assert genfast("evaluate", "c", "--images", 5)[1].startswith("digits[test], the first 5: 5 images of 8x8")
    presets = ["train", "pixelcnn", "--preset", "digits", *TINY, "--steps", 1, "--out", "d"]
    assert genfast(*presets)[1].startswith("digits[train]: 1297 images"), "a preset names a data set"


def test_a_run_whose_data_moved_and_that_is_to_last_longer(genfast, folder, tmp_path):
    train = ["train", "pixelcnn", "--data", folder, "--levels", 2, *TINY]
    assert genfast(*train, "--steps", 10, "--out", tmp_path / "whole")[0] == 0
    run = tmp_path / "run"
    assert genfast(*train, "--steps", 10, "--out", run, "--minutes", 1e-9)[0] == 0
    moved = tmp_path / "elsewhere" / "pictures"
    moved.parent.mkdir()
    folder.rename(moved)
    resume = ["train", "pixelcnn", "--out", run, "--resume"]
    code, _, err = genfast(*resume)
    assert code == 2 and f"got {folder}; with --resume, --data says where" in err
    before = (run / "config.json").read_bytes()
    other = tmp_path / "other"
    for i in range(20):
        picture(other / f"{i:02}.png")
    code, _, err = genfast(*resume, "--data", other)
    assert code == 2 and "expected the same training and validation images to resume" in err
    code, _, err = genfast(*resume, "--data", moved, "--levels", 4)
    assert code == 2 and "levels: expected 2 as in the run to resume; got 4" in err
    assert (run / "config.json").read_bytes() == before
    code, out, err = genfast(*resume, "--data", moved)
    assert (code, err) == (0, "") and out.startswith(f"{moved}[train]: 16 images")
    assert weights(run) == weights(tmp_path / "whole")
    assert json.loads((run / "config.json").read_text())["data"]["data"] == str(moved)
    # Longer: from the last step on, and again without the option.
    code, _, err = genfast(*resume, "--steps", 9)
    assert code == 2 and "steps: expected at least 10 as in the run to resume; got 9" in err
    code, _, err = genfast(*resume, "--steps", 20, "--minutes", 1e-9)
    assert code == 0 and "steps: 20 instead of 10: the learning rate goes on as if" in err and "at step 11 of 20" in err
    assert genfast(*resume)[0] == 0
    state = load_checkpoint(run)[1]
    assert state["step"] == state["train"]["steps"] == 20
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 20 and records[-1]["lr"] < records[-2]["lr"]


def test_epochs_may_be_more_where_epochs_are_counted(genfast, folder, tmp_path):
    train = ["train", "pixelcnn", "--data", folder, "--levels", 2, *TINY, "--out", tmp_path / "r"]
    assert genfast(*train, "--epochs", 2)[0] == 0
    resume = ["train", "pixelcnn", "--out", tmp_path / "r", "--resume"]
    assert "steps: expected 10000 as in the run to resume; got 20000" in genfast(*resume, "--steps", 20000)[2]
    assert genfast(*resume, "--epochs", 3)[0] == 0 and load_checkpoint(tmp_path / "r")[1]["step"] == 12


def test_embed_takes_all_of_a_folder_and_names_the_files(genfast, folder, vae, tmp_path):
    every = load(folder, split="all", levels=2)
    embed = ["embed", vae, "--data", folder, "--levels", 2, "--out", tmp_path / "z.npz"]
    code, out, err = genfast(*embed, "--neighbours", tmp_path / "n.png", "-n", 4, "-k", 3)
    assert (code, err) == (0, "") and out.startswith(
        f"{folder}[all]: 20 images of 6x5, grey, 2 levels, 3 classes (c, d,"
    )
    arrays = np.load(tmp_path / "z.npz")
    assert arrays["name"].tolist() == list(every.files) and arrays["label"].tolist() == every.labels.tolist()
    assert "4 images, each beside its 3 nearest of 20 other images" in out and f"rows: {every.files[0]}, " in out
    assert "labels: no accuracy" in out and "linear probe" not in out, "no image is judged by itself"
    picture = np.asarray(Image.open(tmp_path / "n.png"))
    distance = torch.cdist(*[torch.from_numpy(arrays["mean"]).double()] * 2).fill_diagonal_(torch.inf)
    for i, row in enumerate(distance[:4].argsort(1)[:, :3].tolist()):
        for j, number in enumerate([i, *row]):
            cell = picture[i * 47 : i * 47 + 45, j * 56 : j * 56 + 54]
            assert np.array_equal(cell[4::9, 4::9], 255 * every.images[number, 0].numpy()), (i, j)
    code, out, _ = genfast(*embed, "--split", "test", "--overwrite")
    assert code == 0 and len(np.load(tmp_path / "z.npz")["mean"]) == 2 and "linear probe" in out
    few = [*embed[:4], "--levels", 2, "--out", tmp_path / "p.parquet"]
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert genfast(*few)[0] == 0 and pyarrow.read_table(tmp_path / "p.parquet")["name"].to_pylist() == list(every.files)


@pytest.mark.parametrize(
    ("command", "options", "names"),
    [
        ("reconstruct", [], ["{}"]),
        ("denoise", ["--noise", "bitflip:0.1", "--steps", 2], ["{}"]),
        ("inpaint", ["--mask", "lower", "--steps", 2, "--results", 2], ["{}-1", "{}-2"]),
    ],
)
def test_a_folder_of_results_has_the_names_of_the_files(genfast, folder, vae, tmp_path, command, options, names):
    every, out = load(folder, split="all", levels=2), tmp_path / "out"
    argv = [command, vae, "--data", folder, "--levels", 2, *options]
    code, text, err = genfast(*argv, "--out", out)
    assert (code, err) == (0, "") and text.startswith(f"{folder}[all]: 20 images") and f"{out}: 20 images" in text
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert written == sorted(f"{name.format(file[:-4])}.png" for file in every.files for name in names)
    assert Image.open(out / written[0]).size == (6, 5)
    if command == "inpaint":
        for file, image in zip(every.files, every.images, strict=True):
            upper = np.asarray(Image.open(out / f"{file[:-4]}-1.png"))[:2]
            assert np.array_equal(upper, 255 * image[0, :2].numpy())
    code, text, _ = genfast(*argv, "--out", tmp_path / "grid.png", "-n", 3)
    assert code == 0 and f": {', '.join(every.files[:3])}" in text
    code, _, err = genfast(*argv, "--out", folder / "out")
    assert code == 2 and "expected a folder outside of" in err and not (folder / "out").exists()
    valid = [*argv, "--out", out, "--split", "valid"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    code, _, err = genfast(*valid)
    assert code == 2 and "expected a name that is free, or --overwrite" in err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before
    code, text, _ = genfast(*valid, "--overwrite")
    assert code == 0 and text.startswith(f"{folder}[valid]: 2 images")


def test_limits_and_depth_are_options(genfast, tmp_path):
    for i in range(20):
        array = RANDOM.randint(0, 4096, (5, 6)).astype(np.uint16)
        (tmp_path / "deep").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "deep" / f"{i}.png")
    train = ["train", "pixelcnn", "--data", tmp_path / "deep", *TINY, "--steps", 1]
    code, _, err = genfast(*train, "--out", tmp_path / "a")
    assert code == 0 and "read as 16 bits, which makes them dark: --bits 12" in err
    code, _, err = genfast(*train, "--bits", 12, "--out", tmp_path / "b")
    assert (code, err) == (0, "") and json.loads((tmp_path / "b" / "config.json").read_text())["data"]["bits"] == 12
    code, _, err = genfast(*train, "--max-gb", 1e-7, "--out", tmp_path / "c")
    assert code == 2 and "expected at most 100 bytes of images, as --max-gb says; got 480 bytes" in err


def test_a_note_on_a_folder_is_told_once(genfast, folder, tmp_path):
    (folder / "c" / "x.heic").write_bytes(b"")
    train = ["train", "pixelcnn", "--data", folder, "--levels", 2, *TINY, "--steps", 1, "--out", tmp_path / "r"]
    code, _, err = genfast(*train)
    assert code == 0 and err == f"{folder}: 1 file skipped: of a kind that is not read (1 .heic)\n"
