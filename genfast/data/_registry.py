"""The registry of data sets: a file of this folder registers those that it reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from genfast import _registry
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


Reader = Callable[[DataRequest], "ImageData | PairData"]
R = TypeVar("R", bound=Reader)


@dataclass(frozen=True)
class Dataset:
    """A data set, or a kind of files.

    Attributes:
        name: its name; `KIND:REST` for all names that begin with `KIND:`; a description, if `matches` is given.
        help: one line for the command line.
        options: those of "size" and "levels" that `read` follows; `load` refuses the others.
        matches: decides whether a path is of this kind; None: `name` decides.
        read: the function that reads it.
    """

    name: str
    help: str
    options: tuple[str, ...]
    matches: Callable[[Path], bool] | None
    read: Reader

    @property
    def prefix(self) -> str | None:
        """`KIND:`, or None."""
        kind, colon, _ = self.name.partition(":")
        return kind + colon if colon else None


# name -> data set; filled by `register_dataset`.
DATASETS: dict[str, Dataset] = {}


def register_dataset(
    name: str, help: str, *, options: tuple[str, ...] = (), matches: Callable[[Path], bool] | None = None
) -> Callable[[R], R]:
    """Decorator of the function that reads a data set: `load` and the option --data then know it."""

    def register(read: R) -> R:
        _registry.add(DATASETS, "data set", name, Dataset(name, help, options, matches, read), read.__module__)
        return read

    return register


def datasets() -> list[Dataset]:
    """All data sets in the order of their names: first plain names, then prefixes, then kinds of files."""
    return sorted(DATASETS.values(), key=lambda d: (d.matches is not None, d.prefix is not None, d.name))


def dataset_names() -> str:
    """The names of all data sets, for an error."""
    *others, last = (dataset.name for dataset in datasets())
    return f"{', '.join(others)} or {last}"


def find_dataset(name: str) -> Dataset | None:
    """The data set of a name: first by the whole name, then by its prefix, then by the file or folder that it names."""
    if name in DATASETS and DATASETS[name].matches is None:
        return DATASETS[name]
    for dataset in DATASETS.values():
        if dataset.prefix is not None and name.startswith(dataset.prefix):
            return dataset
    for dataset in DATASETS.values():
        with suppress(OSError, ValueError):  # no name of a file: too long, or with a zero byte
            if dataset.matches is not None and dataset.matches(Path(name)):
                return dataset
    return None
