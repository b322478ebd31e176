"""Run folders: their settings (config.json), their one writer, and what in them is a run's and what is not."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from genfast import models
from genfast._text import shown
from genfast._version import __version__
from genfast.folders import COMMITTED, OF_FIRST_VERSION, commit, finish, member, only_writer, sweep
from genfast.io import json_bytes, read_json
from genfast.train.checkpoint import STATE, is_checkpoint
from genfast.train.config import RunConfig

CONFIG = "config.json"
# What every run has, and what its data may have.
SETTINGS = {"model": str, "model_config": dict, "train": dict, "data": dict}
DATA = {"data": (str,), "data_root": (str,), "strict": (bool,), "size": (int,), "levels": (int,)}
STANDING = "equilibrium.png"  # the default plot of `genfast equilibrium`
MARKER = "genfast_run"  # in config.json: the version of the folder's layout
FILES = (CONFIG, "metrics.jsonl", STANDING)
FOLDERS = ("checkpoint", "model", "samples", "classifier")
CLASSIFIER = r"classifier/[0-9a-f]{8}-\d+-\d+/"
WRITTEN = re.compile(
    rf"config\.json|metrics\.jsonl|equilibrium\.png|checkpoint/state\.safetensors|samples/step-\d{{7,}}\.png"
    rf"|(model/|{CLASSIFIER})(config\.json|model\.safetensors)|{CLASSIFIER}accuracy\.json"
)
BEGINNING = (STATE, CONFIG)  # what a run has from its first moment on, all or none


def run_settings(
    model: str, model_config: dict[str, Any], train_config: RunConfig, data: dict[str, Any], **about: Any
) -> dict[str, Any]:
    """The content of RUN/config.json. `about`: further entries, which resuming does not need."""
    settings = {"model": model, "model_config": model_config, "train": train_config.to_dict(), "data": data}
    return {MARKER: 1} | settings | about


@contextmanager
def run_writer(
    out: str | Path, *, resume: bool = False, overwrite: bool = False, settings: bool = True
) -> Iterator[Path]:
    """Hold the run folder `out`, which is made if missing, as its only writer; nothing in it has changed yet.

    `settings`: whether config.json will be written.

    Raises: RuntimeError if another process writes there; FileExistsError for a run that is neither resumed nor
        overwritten, or for files in the places of a run's that no run wrote; ValueError for links in these places.
    """
    with only_writer(out) as out:
        _check_links(out)
        if not resume:  # of what is resumed the checkpoint is read before anything is written
            _check_places(out, settings)
        finish(out, BEGINNING, partial(clear_run, out))
        if not (resume or overwrite) and (out / STATE).exists():
            raise FileExistsError(f"{shown(out)}: expected an empty folder, --resume or --overwrite; got a run")
        if is_run(out):
            for folder in (out, *(folder for name in (*FOLDERS, "classifier/*") for folder in out.glob(name))):
                if folder == out or not folder.is_symlink():
                    sweep(folder, OF_FIRST_VERSION)
        yield out


def begin_run(out: Path, settings: dict[str, Any] | None, checkpoint: bytes) -> None:
    """Make `out` a run with these settings and this checkpoint, in one step, in the place of an earlier one."""
    files = {STATE: checkpoint} | ({} if settings is None else {CONFIG: json_bytes(settings)})
    commit(out, files, partial(clear_run, out))


def _check_links(out: Path) -> None:
    """ValueError for a link where a run has a file or folder: what it points to is not the run's."""
    for path in (out / name for name in (*FILES, *FOLDERS)):
        kind = "folder" if path.name in FOLDERS else "file"
        if path.is_symlink():
            raise ValueError(f"{shown(path)}: expected a {kind} of the run; got a link to {shown(path.readlink())}")
        if path.exists() and path.is_dir() != (kind == "folder"):
            raise ValueError(f"{shown(path)}: expected a {kind} of the run; got something else")


def _check_places(out: Path, settings: bool) -> None:
    """FileExistsError for what no run wrote, and one would: it is never replaced or removed."""
    there = [out / name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    if not settings:
        there = [path for path in there if path.name != CONFIG or has_settings(out)]
    if is_run(out):
        there = [path for path in there if path.name == CONFIG and not has_settings(out)]
    if there:
        expected = "an empty folder, or one of a run"
        raise FileExistsError(f"{shown(out)}: expected {expected}; got {there[0].name}, which no run of genfast wrote")


def cache_of(target: str | Path) -> Path | None:
    """The run in which what is computed of it may be kept; None for what is no run."""
    out = Path(target)
    return out if is_run(out) and not (out / "classifier").is_symlink() else None


def is_run(out: Path) -> bool:
    """Whether a folder is a run, which may be one that a kill left at its beginning, or one without settings."""
    return (out / COMMITTED).is_dir() or has_settings(out) or is_checkpoint(out)


def has_settings(out: Path) -> bool:
    """Whether config.json is that of a run; version 0.1.0 did not mark it."""
    try:
        settings = read_json(out / CONFIG, "run")
    except (OSError, ValueError):
        return False
    return MARKER in settings or all(name in settings for name in SETTINGS)


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
    """Remove the files that a run wrote to `out`, the checkpoint first, and the folders that are empty then."""
    out = Path(out)
    there = [out / name for name in FILES]
    kept = [] if has_settings(out) else [out / CONFIG]
    for name in FOLDERS:
        if not (out / name).is_symlink():
            there += sorted((out / name).rglob("*"), reverse=True)
    there.sort(key=lambda path: path.name != Path(STATE).name)
    for path in there:
        is_file = path.is_file() and not path.is_symlink()
        if is_file and path not in kept and WRITTEN.fullmatch(path.relative_to(out).as_posix()):
            path.unlink()
    for folder in [*(path for path in there if path.is_dir()), *(out / name for name in FOLDERS)]:
        with suppress(OSError):  # files of others are in it, or it is a link
            folder.rmdir()


def open_model(target: str | Path) -> Any:
    """The model of a run folder, of a model folder, of shipped weights by name, or of a Hub id."""
    folder = Path(target)
    if member(folder / "model", CONFIG).is_file():
        return models.load(folder / "model")
    if member(folder, CONFIG).is_file() and member(folder, "model.safetensors").is_file():
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
