"""The registry of data sets: a file of this folder registers those that it reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from genfast import _registry
from genfast._text import shown
from genfast.data._images import ImageData
from genfast.data.pair_data import PairData


@dataclass(frozen=True)
class DataRequest:
    """One split of a data set, as `genfast.data.load` is asked for it; its arguments are the attributes."""

    name: str
    root: str | Path | None
    split: str
    strict: bool
    size: int | None
    levels: int | None
    bits: int | None = None
    max_gb: float | None = None


Reader = Callable[[DataRequest], "ImageData | PairData"]
R = TypeVar("R", bound=Reader)
BUILTIN = "builtin:"  # before the name of a data set that comes with the package


@dataclass(frozen=True)
class Dataset:
    """A data set, or a kind of files.

    Attributes:
        name: its name; `KIND:REST` for all names that begin with `KIND:`; a description, if `matches` is given.
        help: one line for the command line.
        options: those of "size", "levels" and "bits" that `read` follows; `load` refuses the others.
        matches: decides whether a path is of this kind; None: `name` decides.
        reads_all: whether `read` takes the split "all"; otherwise `load` joins the splits.
        read: the function that reads it.
    """

    name: str
    help: str
    options: tuple[str, ...]
    matches: Callable[[Path], bool] | None
    reads_all: bool
    read: Reader

    @property
    def prefix(self) -> str | None:
        """`KIND:`, or None."""
        kind, colon, _ = self.name.partition(":")
        return kind + colon if colon else None


# name -> data set; filled by `register_dataset`.
DATASETS: dict[str, Dataset] = {}


def register_dataset(
    name: str,
    help: str,
    *,
    options: tuple[str, ...] = (),
    matches: Callable[[Path], bool] | None = None,
    reads_all: bool = False,
) -> Callable[[R], R]:
    """Decorator of the function that reads a data set: `load` and the option --data then know it."""

    def register(read: R) -> R:
        dataset = Dataset(name, help, options, matches, reads_all, read)
        _registry.add(DATASETS, "data set", name, dataset, read.__module__)
        return read

    return register


def datasets() -> list[Dataset]:
    """All data sets in the order of their names: first plain names, then prefixes, then kinds of files."""
    return sorted(DATASETS.values(), key=lambda d: (d.matches is not None, d.prefix is not None, d.name))


def dataset_names() -> str:
    """The names of all data sets, for an error."""
    *others, last = (dataset.name for dataset in datasets())
    return f"{', '.join(others)} or {last}"


def locate(name: str) -> tuple[Dataset, str]:
    """(data set, name) of what a user calls data, where the name has no second meaning and holds in every folder.

    That is the name of a built-in set with `builtin:` before it, or an absolute path, with its prefix if it has one.

    Raises: FileNotFoundError for an unknown name; ValueError for a built-in set beside a folder or file of that name.
    """
    plain = name.removeprefix(BUILTIN)
    if plain in DATASETS and DATASETS[plain].prefix is None and DATASETS[plain].matches is None:
        if plain == name and _of_path(name) is not None:
            choices = f"{BUILTIN}{name} for the data set, or .{os.sep}{name} for what lies here"
            raise ValueError(f"data: expected {choices}; got {name}, which is both")
        return DATASETS[plain], BUILTIN + plain
    for dataset in DATASETS.values():
        if dataset.prefix is not None and name.startswith(dataset.prefix):
            return dataset, dataset.prefix + os.path.abspath(name.removeprefix(dataset.prefix))
    found = _of_path(name)
    if found is None:
        raise FileNotFoundError(f"data: expected {dataset_names()}; got {shown(name)}")
    return found, os.path.abspath(name)


def _of_path(name: str) -> Dataset | None:
    for dataset in DATASETS.values():
        with suppress(OSError, ValueError):  # no name of a file: too long, or with a zero byte
            if name and dataset.matches is not None and dataset.matches(Path(name)):
                return dataset
    return None
