"""Run folders: what was asked for (config.json), and the model that came out (model/)."""

import platform
import shutil
from datetime import datetime, timezone
from pathlib import Path

import torch

from genfast import models
from genfast._version import __version__
from genfast.io import read_json, write_json

CONFIG = "config.json"
STANDING = "equilibrium.png"  # where `genfast equilibrium` draws, if not told otherwise


def save_run(out, model, model_config, train_config, data, **about):
    """Write RUN/config.json; `about` it: what resuming does not need."""
    settings = {"model": model, "model_config": model_config, "train": train_config.to_dict(), "data": data}
    write_json(Path(out) / CONFIG, settings | about)


def machine(device):
    """What a run's speed depends on: the device and its threads, the versions, and the date."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _cpu(),
        "threads": torch.get_num_threads(),
        "genfast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load_run(out):
    """The settings of a run: model, model_config, train, data."""
    settings = read_json(Path(out) / CONFIG, "run")
    missing = [key for key in ("model", "model_config", "train", "data") if key not in settings]
    if missing:
        raise ValueError(f"{Path(out) / CONFIG}: expected the settings of a run; got none for {missing[0]!r}")
    return settings


def clear_run(out):
    """Remove what an earlier run left in `out`, and nothing else."""
    for name in ("checkpoint", "model", "samples", "classifier"):
        shutil.rmtree(Path(out) / name, ignore_errors=True)
    for name in (CONFIG, "metrics.jsonl", STANDING):
        (Path(out) / name).unlink(missing_ok=True)


def open_model(target):
    """The model of a run folder, of a model folder, by the name of shipped weights, or by a Hub id."""
    folder = Path(target)
    if (folder / "model" / CONFIG).is_file():
        return models.load(folder / "model")
    if (folder / CONFIG).is_file() and (folder / "model.safetensors").is_file():
        return models.load(folder)
    if folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a run with a model; got a folder without model/{CONFIG}")
    if "/" in str(target):
        return models.load(str(target))
    model, name = shipped(target)
    try:
        return models.MODELS[model][0].pretrained(name)
    except FileNotFoundError as error:
        expected = "a run folder, a model folder or the name of shipped weights"
        raise FileNotFoundError(f"{target}: expected {expected}; {error}") from None


def shipped(target):
    """(model, name) of weights that come with the package: `mnist` is the PixelRNN's, `pixelcnn-mnist` not."""
    for model in models.MODELS:
        if str(target).startswith(f"{model}-"):
            return model, str(target).removeprefix(f"{model}-")
    return "pixelrnn", str(target)
