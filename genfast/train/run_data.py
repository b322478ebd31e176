"""The data that the settings of a run name, and subsets of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from genfast.data import ALL, BUILTIN, DATASETS, ImageData, PairData, dataset_names, load, locate
from genfast.random import permutation
from genfast.train.codes import PREFIX as CODES
from genfast.train.codes import code_data, is_codes
from genfast.train.presets import PRESETS
from genfast.train.run_folder import load_run, shipped

# A function that shows a message to the user, such as that files were skipped.
Tell = Callable[[str], None]


def silent(text: str) -> None:
    """Discards the message."""


def once(tell: Tell) -> Tell:
    """`tell` that leaves out a message that it was called with before: splits of a folder have notes in common."""
    told: set[str] = set()

    def tell_once(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    return tell_once


def named(options: dict[str, Any]) -> dict[str, Any]:
    """Options of data whose `data` and `data_root` mean the same in every folder: built-in sets, or absolute paths.

    Raises: as `genfast.data.locate`.
    """
    data, root = options.get("data"), options.get("data_root")
    if data and is_codes(options):
        data = CODES + os.path.abspath(data.removeprefix(CODES))
    elif data:
        data = locate(data)[1]
    if root and os.path.exists(root):
        root = os.path.abspath(root)
    return options | {key: value for key, value in (("data", data), ("data_root", root)) if value}


def load_data(source: dict[str, Any], split: str, tell: Tell = silent) -> ImageData | PairData:
    """One split of the data that the settings of a run name."""
    if not source.get("data"):
        raise ValueError(f"data: expected --data {dataset_names()}; got none")
    if is_codes(source):
        return code_data(source, split, load_data)
    name = source["data"]
    # What settings call so is a data set, whatever lies in the present folder; a folder has its whole path there.
    if name in DATASETS and DATASETS[name].matches is None:
        name = BUILTIN + name
    data = load(
        name,
        root=source.get("data_root"),
        split=split,
        strict=bool(source.get("strict")),
        size=source.get("size"),
        levels=source.get("levels"),
        bits=source.get("bits"),
        max_gb=source.get("max_gb"),
    )
    for note in data.notes:
        tell(note)
    return data


def data_of(target: str | Path, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of the data in the options, else those of the run, or of the preset of shipped weights."""
    options = named(options)
    if options["data"]:
        return options
    given = {k: v for k, v in options.items() if v}
    model, name = shipped(target)
    if name in PRESETS.get(model, {}) and not Path(target).exists():
        return {"data": PRESETS[model][name].data} | given
    if (Path(target) / "model").is_dir():  # otherwise its config.json is that of a model, which names no data
        with suppress(FileNotFoundError):
            return load_run(target)["data"] | given
    return options


def held_out_data(source: dict[str, Any], split: str | None, tell: Tell = silent) -> ImageData | PairData:
    """The split of that name; None: the test split, or the validation split if there is no test."""
    if split:
        return load_data(source, split, tell)
    try:
        return load_data(source, "test", tell)
    except LookupError as error:
        tell(f"{error}; valid is used instead")
        return load_data(source, "valid", tell)


def all_of_a_folder(options: dict[str, Any]) -> str | None:
    """The split "all" if the options name a folder of images, else None: the default of what is done to images."""
    data = options.get("data")
    return ALL if data and not is_codes(options) and locate(data)[0].matches is Path.is_dir else None


def first_images(data: ImageData | PairData, count: int | None) -> ImageData | PairData:
    """The first `count` images; all for None."""
    if count is None or count >= len(data):
        return data
    return data.select(slice(count), f"{data.name}, the first {count}")


def any_images(data: ImageData, count: int | None, seed: int) -> ImageData:
    """`count` random images, all for None: so that a file sorted by class still gives all classes."""
    if count is None or count >= len(data):
        return data
    return data.select(permutation(len(data), seed)[:count], f"{data.name}, any {count}")
