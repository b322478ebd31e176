"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from genfast._text import MESSAGE, shown
from genfast.data import CHOICES, ImageData, PairData, datasets, describe
from genfast.io import check_free, check_writable, json_bytes, write_bytes
from genfast.reports import plain

WRITTEN = ("out", "neighbours", "json", "html")  # options that name what a command writes
OF_MODEL = ("model", "checkpoint", "config.json", "metrics.jsonl", "model.safetensors")  # what is read of a RUN
# The options of `add_data`, with the kinds of their values.
DATA_OPTIONS: dict[str, Any] = {
    **{"data": str, "data_root": str, "size": int, "levels": int, "bits": int},
    **{"max_gb": (int, float), "strict": bool},
}


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


def add_out(parser: argparse.ArgumentParser, metavar: str, text: str, *, required: bool = True) -> None:
    """--out and --overwrite."""
    parser.add_argument("--out", required=required, metavar=metavar, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def out_path(args: argparse.Namespace, out: str | None = None) -> Path:
    """--out, or another file to write, before any work: in a folder that can be written, in the place of nothing.

    Raises: FileExistsError for what is there, which takes --overwrite; ValueError for what the command reads, which is
        never replaced.
    """
    return out_paths(args, [Path(args.out if out is None else out)])[0]


def out_paths(args: argparse.Namespace, paths: Sequence[Path]) -> Sequence[Path]:
    """`out_path` of several files."""
    inputs = list(_inputs(args))
    for path in paths:
        for option, read in inputs if path.exists() else ():
            if os.path.samefile(read, path) or _holds(read, path, OF_MODEL if option == "target" else ()):
                expected = "another file than those that are read"
                raise ValueError(f"{shown(path)}: expected {expected}; got one of {shown(read)}")
        check_free(path, args.overwrite)
    for folder in dict.fromkeys(path.parent for path in paths):
        check_writable(folder)
    return paths


def picture_path(args: argparse.Namespace, out: str | None = None) -> Path:
    """`out_path` of a FILE.png."""
    path = Path(args.out if out is None else out)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{shown(path)}: expected a name ending in .png; got {shown(path.suffix) or 'no ending'}")
    return out_path(args, out)


def _inputs(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """(option, path) of the files and folders that exist among the values of the options that name what is read."""
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if name not in WRITTEN and isinstance(text, str):
                # also codes:RUN, pairs:FOLDER
                yield from ((name, Path(path)) for path in (text, text.partition(":")[2]) if os.path.exists(path))


def _holds(folder: Path, path: Path, names: Sequence[str]) -> bool:
    """Whether a path lies in a folder, under one of these names if there are any."""
    path, folder = path.resolve(), folder.resolve()
    return path.is_relative_to(folder) and (not names or path.relative_to(folder).parts[:1] in {(n,) for n in names})


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json, of a command that has --overwrite."""
    text = "write the same numbers as JSON to a file; - prints them in the place of the text"
    parser.add_argument("--json", metavar="FILE", help=text)


def check_json(args: argparse.Namespace) -> None:
    """Before any work: that the file of --json can be written. Raises: as `out_path`."""
    if args.json not in (None, "-"):
        out_path(args, args.json)


def write_result(args: argparse.Namespace, result: Any) -> bool:
    """Write a result as --json asks; whether it was printed in the place of text."""
    if args.json is None:
        return False
    content = json_bytes(plain(result))
    if args.json != "-":
        write_bytes(args.json, content)
        return False
    sys.stdout.write(content.decode())
    return True


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


def say(data: ImageData | PairData, args: argparse.Namespace | None = None) -> None:
    """Print which data a command uses: on stderr where its --json goes to stdout."""
    print(shown(describe(data), MESSAGE), file=beside(args), flush=True)


def beside(args: argparse.Namespace | None) -> TextIO:
    """Where a command prints beside its result."""
    return sys.stderr if args is not None and args.json == "-" else sys.stdout
