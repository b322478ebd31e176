"""The data that the settings of a run name, and subsets of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from genfast.data import ImageData, PairData, dataset_names, load
from genfast.random import permutation
from genfast.train.codes import code_data, is_codes
from genfast.train.presets import PRESETS
from genfast.train.run_folder import load_run, shipped

# A function that shows a message to the user, such as that files were skipped.
Tell = Callable[[str], None]


def silent(text: str) -> None:
    """Discards the message."""


def load_data(source: dict[str, Any], split: str, tell: Tell = silent) -> ImageData | PairData:
    """One split of the data that the settings of a run name."""
    if not source.get("data"):
        raise ValueError(f"data: expected --data {dataset_names()}; got none")
    if is_codes(source):
        return code_data(source, split, load_data)
    data = load(
        source["data"],
        root=source.get("data_root"),
        split=split,
        strict=bool(source.get("strict")),
        size=source.get("size"),
        levels=source.get("levels"),
    )
    if data.skipped:
        tell(f"{data.name}: {data.skipped} broken files skipped")
    return data


def data_of(target: str | Path, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of the data in the options, else those of the run, or of the preset of shipped weights."""
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


def first_images(data: ImageData | PairData, count: int | None) -> ImageData | PairData:
    """The first `count` images; all for None."""
    if count is None or count >= len(data):
        return data
    if isinstance(data, PairData):
        source, target = data.source[:count], data.target[:count]
        return replace(data, source=source, target=target, name=f"{data.name}, the first {count}")
    labels = None if data.labels is None else data.labels[:count]
    return replace(data, images=data.images[:count], labels=labels, name=f"{data.name}, the first {count}")


def any_images(data: ImageData, count: int | None, seed: int) -> ImageData:
    """`count` random images, all for None: so that a file sorted by class still gives all classes."""
    if count is None or count >= len(data):
        return data
    rows = permutation(len(data), seed)[:count]
    labels = None if data.labels is None else data.labels[rows]
    return replace(data, images=data.images[rows], labels=labels, name=f"{data.name}, any {count}")
