"""Run folders: the settings (config.json) and the trained model (model/)."""

from __future__ import annotations

import platform
import shutil
from datetime import datetime, timezone
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from genfast import models
from genfast._text import shown
from genfast._version import __version__
from genfast.io import read_json, write_json
from genfast.train.config import RunConfig

CONFIG = "config.json"
# What every run has, and what its data may have.
SETTINGS = {"model": str, "model_config": dict, "train": dict, "data": dict}
DATA = {"data": (str,), "data_root": (str,), "strict": (bool,), "size": (int,), "levels": (int,)}
STANDING = "equilibrium.png"  # the default plot of `genfast equilibrium`


def save_run(
    out: str | Path,
    model: str,
    model_config: dict[str, Any],
    train_config: RunConfig,
    data: dict[str, Any],
    **about: Any,
) -> None:
    """Write RUN/config.json. `about`: further entries, which resuming does not need."""
    settings = {"model": model, "model_config": model_config, "train": train_config.to_dict(), "data": data}
    write_json(Path(out) / CONFIG, settings | about)


def machine(device: torch.device) -> dict[str, Any]:
    """What the speed of a run depends on: the device, its threads and the versions; and the date."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _cpu(),
        "threads": torch.get_num_threads(),
        "genfast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load_run(out: str | Path) -> dict[str, Any]:
    """The settings of a run: model, model_config, train, data. FileNotFoundError, or ValueError without them."""
    path = Path(out) / CONFIG
    settings = read_json(path, "run")
    for key, kind in SETTINGS.items():
        if key not in settings:
            raise ValueError(f"{shown(path)}: expected the settings of a run; got none for {key!r}")
        if not isinstance(settings[key], kind):
            got = shown(repr(settings[key]), 100)
            raise ValueError(f"{shown(path)}: expected {key} as a {kind.__name__}; got {got}")
    for key, kinds in DATA.items():
        if not isinstance(value := settings["data"].get(key), (*kinds, NoneType)):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{shown(path)}: expected {key} of the data as {expected}; got {shown(repr(value), 100)}")
    return settings


def clear_run(out: str | Path) -> None:
    """Remove the files of an earlier run from `out`, and no others."""
    for name in ("checkpoint", "model", "samples", "classifier"):
        shutil.rmtree(Path(out) / name, ignore_errors=True)
    for name in (CONFIG, "metrics.jsonl", STANDING):
        (Path(out) / name).unlink(missing_ok=True)


def open_model(target: str | Path) -> Any:
    """The model of a run folder, of a model folder, of shipped weights by name, or of a Hub id."""
    folder = Path(target)
    if (folder / "model" / CONFIG).is_file():
        return models.load(folder / "model")
    if (folder / CONFIG).is_file() and (folder / "model.safetensors").is_file():
        return models.load(folder)
    if folder.is_dir():
        raise FileNotFoundError(f"{shown(folder)}: expected a run with a model; got a folder without model/{CONFIG}")
    if "/" in str(target):
        return models.load(str(target))
    model, name = shipped(target)
    try:
        return models.MODELS[model][0].pretrained(name)
    except FileNotFoundError as error:
        expected = "a run folder, a model folder or the name of shipped weights"
        raise FileNotFoundError(f"{shown(target)}: expected {expected}; {error}") from None


def shipped(target: str | Path) -> tuple[str, str]:
    """(model, name) of shipped weights: `pixelcnn-mnist` is (pixelcnn, mnist), and `mnist` that of the PixelRNN."""
    for model in models.MODELS:
        if str(target).startswith(f"{model}-"):
            return model, str(target).removeprefix(f"{model}-")
    return "pixelrnn", str(target)
