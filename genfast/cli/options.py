"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genfast._text import MESSAGE, shown
from genfast.data import CHOICES, ImageData, PairData, datasets, describe
from genfast.io import writable_folder

DATA_OPTIONS = ("data", "data_root", "size", "levels", "bits", "max_gb", "strict")


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def nonnegative_int(text: str) -> int:
    """A whole number of at least 0."""
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def int_ge2(text: str) -> int:
    """A whole number of at least 2."""
    return _number(text, int, lambda value: value >= 2, "a whole number of at least 2")


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def label_list(text: str) -> list[int]:
    """Whole numbers, separated by commas."""
    return [_number(part, int, lambda value: True, "whole numbers such as 0,1,2") for part in text.split(",")]


def _number(text: str, kind: type, fits: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"expected {expected}; got {text}")
    return value


def picture_path(out: str) -> Path:
    """FILE.png as a path; its folder is made, and must be writable."""
    path = Path(out)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{shown(path)}: expected a name ending in .png; got {path.suffix or 'no ending'}")
    writable_folder(path.parent)
    return path


def add_target(parser: argparse.ArgumentParser) -> None:
    """The model."""
    parser.add_argument("target", metavar="RUN", help="run folder, model folder, or mnist")


def add_data(parser: argparse.ArgumentParser) -> None:
    """The options of `genfast.data.load`, but for the split."""
    known = [f"{dataset.name} ({dataset.help})" for dataset in datasets()]
    text = f"{', '.join(known)}, codes:RUN (the codes of a vq-vae, to train its prior), or builtin:NAME of these"
    parser.add_argument("--data", metavar="DATA", help=text.replace("%", "%%"))
    parser.add_argument("--data-root", metavar="PATH", help="where mnist or mnist-binary is: file, folder or dataset")
    text = "N x N pixels: patches of photos, a folder's images, pairs"
    parser.add_argument("--size", type=positive_int, help=text, metavar="N")
    parser.add_argument("--levels", type=positive_int, help="levels to keep of photos, folder or .npz", metavar="L")
    add_files(parser)
    text = "memory that the images may take, in GB (half of the memory; compressed files 100 times their size)"
    parser.add_argument("--max-gb", type=positive, help=text, metavar="GB")


def add_files(parser: argparse.ArgumentParser) -> None:
    """The options of how image files are read."""
    text = "of the whole numbers in image files of more than 8 bits (16)"
    parser.add_argument("--bits", type=positive_int, help=text, metavar="BITS")
    parser.add_argument("--strict", action="store_true", help="refuse a folder with a file that cannot be read")


def add_split(parser: argparse.ArgumentParser) -> None:
    """--split, of commands that measure."""
    parser.add_argument("--split", choices=CHOICES, help="default: test, or valid if there is none")


def add_split_of_folder(parser: argparse.ArgumentParser) -> None:
    """--split, of commands that do something to images."""
    text = "default: all of a folder that --data names; else test, or valid if there is none"
    parser.add_argument("--split", choices=CHOICES, help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda (auto)")


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of the options of `add_data`."""
    return {name: getattr(args, name) for name in DATA_OPTIONS}


def number(text: str) -> float | None:
    """The number in a text, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def warn(text: str) -> None:
    """Print one line to standard error."""
    print(shown(text, MESSAGE), file=sys.stderr)


def say(data: ImageData | PairData) -> None:
    """Print which data a command uses."""
    print(shown(describe(data), MESSAGE), flush=True)
