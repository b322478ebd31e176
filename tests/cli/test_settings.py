"""`genfast train --config` and `--print-config`: what is printed is what is run, and a run's own file repeats it."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.files import idx_bytes

from genfast.models import MODELS

yaml = pytest.importorskip("yaml")
TINY = ["--hidden", "2", "--layers", "1", "--head", "4", "--steps", "2", "--batch", "2", "--threads", "1"]


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)
    np.savez("noise.npz", images=random.randint(0, 3, (40, 4, 4)), labels=np.arange(40) % 2, levels=3)
    return "noise.npz"


def settings_of(run):
    settings = json.loads((run / "config.json").read_text())
    return {key: settings[key] for key in ("model", "model_config", "train", "data")}


@pytest.mark.parametrize("model", MODELS)
def test_what_is_printed_is_read(genfast, model, images, tmp_path):
    code, out, err = genfast("train", model, "--data", images, "--steps", "7", "--print-config")
    assert (code, err) == (0, "")
    content = yaml.safe_load(out)
    assert content["model"] == model and content["train"]["steps"] == 7 and content["data"] == {"data": images}
    (tmp_path / "my.yaml").write_text(out)
    assert genfast("train", model, "--config", "my.yaml", "--print-config") == (0, out, "")
    (tmp_path / "my.json").write_text(json.dumps(content))
    assert genfast("train", model, "--config", "my.json", "--print-config") == (0, out, "")
    changed = yaml.safe_load(genfast("train", model, "--config", "my.yaml", "--seed", "3", "--print-config")[1])
    assert changed["train"] == content["train"] | {"seed": 3}


@pytest.mark.parametrize("conditional", [True, False])
def test_a_file_is_the_options(genfast, images, tmp_path, conditional):
    options = [*TINY, "--lr", "1e-3", "--conditional" if conditional else "--no-conditional"]
    assert genfast("train", "gated-pixelcnn", "--data", images, *options, "--out", "one")[0] == 0
    printed = genfast("train", "gated-pixelcnn", "--data", images, *options, "--print-config")[1]
    (tmp_path / "my.yaml").write_text(printed.replace("lr: 0.001", "lr: 1e-3"))  # which YAML takes for a text
    assert "lr: 1e-3" in (tmp_path / "my.yaml").read_text()
    for number, file in enumerate(("my.yaml", "one/config.json")):
        code, _, err = genfast("train", "gated-pixelcnn", "--config", file, "--threads", "1", "--out", f"two{number}")
        assert code == 0, err
        one, two = settings_of(tmp_path / "one"), settings_of(tmp_path / f"two{number}")
        assert one["model_config"].items() <= two["model_config"].items(), "what is printed has all fields"
        assert {**one, "model_config": 0} == {**two, "model_config": 0}
        weights = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("one", f"two{number}")]
        assert weights[0] == weights[1]


def test_options_override_a_file(genfast, images, tmp_path):
    settings = {
        "preset": "digits",
        "model_config": {"hidden": 6},
        "train": {"epochs": 2.0, "budget": 3.0, "lr": 0.1},
        "data": {"data": "elsewhere", "size": 9},
    }
    (tmp_path / "my.json").write_text(json.dumps(settings))
    out = genfast("train", "pixelcnn", "--config", "my.json", "--steps", "5", "--data", images, "--print-config")[1]
    content = yaml.safe_load(out)
    assert content["preset"] == "digits" and content["model_config"]["hidden"] == 6
    assert content["train"]["steps"] == 5 and content["train"]["epochs"] == 0 and "budget" not in content["train"]
    assert content["train"]["lr"] == 0.1 and content["data"] == {"data": images}


@pytest.mark.parametrize(
    "content, error",
    [
        ("model: vae", "my.yaml: expected settings of a pixelcnn; got those of a vae"),
        ("model_config: {hiden: 3}", "my.yaml: model_config: expected fields of PixelCNNConfig; got hiden"),
        ("train: {lr: high}", "my.yaml: train: lr must be a number; got high"),
        ("train: 3", "my.yaml: expected settings as --print-config prints them; got train: 3"),
        ("data: {data: digits, sise: 16}", "my.yaml: data: expected data (a text), data_root (a text), size (a whole"),
        ("data: {data: 2024}", "my.yaml: data: expected data (a text), data_root (a text), size (a whole number)"),
        ("data: {size: 0, levels: true}", "my.yaml: data: expected data (a text)"),
        ("steps: 3", "my.yaml: expected model, preset, conditional, model_config, train, data; got steps"),
        ("- 3", "my.yaml: expected model, preset, conditional, model_config, train, data; got a list"),
        ("a: [", "my.yaml: expected YAML; got"),
        ("train: &a {lr: 1}\nmodel_config: *a", "my.yaml: expected YAML; got an alias"),
    ],
)
def test_settings_that_are_refused(genfast, tmp_path, monkeypatch, content, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(content)
    code, out, err = genfast("train", "pixelcnn", "--config", "my.yaml", "--data", "digits", "--out", "run")
    assert (code, out) == (2, "") and err.startswith(f"genfast: error: {error}"), err
    assert not (tmp_path / "run").exists()


def test_what_goes_not_together(genfast, images):
    code, _, err = genfast("train", "pixelcnn", "--config", "x.json", "--resume", "--out", "run")
    assert (
        code == 2
        and err == "genfast: error: --config: expected no --resume, which has the settings of its run; got both\n"
    )
    Path("my.yaml").write_text(genfast("train", "pixelrnn", "--preset", "mnist", "--print-config")[1])
    code, _, err = genfast("train", "pixelrnn", "--config", "my.yaml", "--preset", "digits", "--print-config")
    assert code == 2 and "--preset: expected mnist or none, beside a file with all that this preset sets" in err
    code, _, err = genfast("train", "pixelcnn", "--data", images)
    assert code == 2 and err == "genfast: error: --out: expected the folder of the run; got none\n"


def test_the_summary(genfast, images):
    out = genfast("train", "pixelcnn", "--data", images, *TINY, "--out", "run")[1].splitlines()
    assert out[0].startswith("noise.npz[train]: 32 images of 4x4") or "images of 4x4" in out[0]
    assert out[1].startswith("pixelcnn of ") and out[1].endswith(
        " parameters; 2 updates of 2 images; on cpu, 1 threads"
    )


def test_tensorboard(genfast, images, tmp_path):
    folder = tmp_path / "board"
    arguments = ["train", "pixelcnn", "--data", images, *TINY, "--log-every", "1", "--out", "run"]
    code, _, err = genfast(*arguments, "--tensorboard", folder)
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        assert code == 2 and err.startswith("genfast: error: --tensorboard: expected the package tensorboard; got")
        return
    assert code == 0, err
    board = EventAccumulator(str(folder))
    board.Reload()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = [(record["step"], pytest.approx(record["train_nats"])) for record in records if "train_nats" in record]
    assert [(event.step, event.value) for event in board.Scalars("train_nats")] == logged


def test_the_help_lists_every_command_by_its_task(genfast):
    out = genfast("--help")[1]
    assert "train and measure:" in out and "others:" not in out
    for name in ("train", "sample", "compress", "info"):
        assert f"\n  {name} " in out


def test_the_test_images_of_mnist_are_enough_to_evaluate(genfast, tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (12, 28, 28)).astype(np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    code, out, err = genfast("evaluate", "mnist", "--data-root", tmp_path, "--images", "2")
    assert code == 0 and "independent pixels" not in out and "gzip" in out
    assert err.startswith("no baseline of independent pixels, which training images make: mnist-binary: expected")
