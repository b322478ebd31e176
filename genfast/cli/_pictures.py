"""Shared by the commands that write one picture of many images, or a folder with a picture of each."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor

from genfast._text import shown
from genfast.cli.options import data_options, picture_path
from genfast.data import ImageData, PairData, locate
from genfast.data.grid import png
from genfast.io import writable_folder, write_bytes
from genfast.train.codes import is_codes


def picture_or_folder(args: argparse.Namespace) -> tuple[Path, bool]:
    """(path, whether it is a folder) of --out: FILE.png, or a folder, which is made and must be writable.

    Raises: ValueError for a folder inside the folder of the data, whose images stay as they are.
    """
    path = Path(args.out)
    if path.suffix and not path.is_dir():
        return picture_path(args.out), False
    options = data_options(args)
    if options["data"] and not is_codes(options):
        dataset, name = locate(options["data"])
        source = Path(name.removeprefix(dataset.prefix or ""))
        if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
            expected = f"a folder outside of {source}, whose images stay as they are"
            raise ValueError(f"{path}: expected {expected}; got one inside")
    return writable_folder(path), True


def write_each(folder: Path, data: ImageData | PairData, results: Sequence[Tensor]) -> None:
    """Write a PNG of each image [C, H, W] of 0..255, by the name of its file, or by its number.

    Of several `results`, sets of images [n, C, H, W], the names end in -1, -2 ...
    """
    for number, images in enumerate(results, 1):
        ending = f"-{number}" if len(results) > 1 else ""
        for name, image in zip(_names(data), images, strict=True):
            path = folder / f"{name}{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, png(image.permute(1, 2, 0).numpy()))


def say_rows(files: Sequence[str], what: str = "rows") -> None:
    """Print which files the rows, or images, of a picture are, if they have names."""
    if files:
        print(f"{what}: {', '.join(map(shown, files))}")


def _names(data: ImageData | PairData) -> list[str]:
    """A name for each image, without its ending where that leaves one of a name."""
    if not data.files:
        return [f"{i:05d}" for i in range(len(data))]
    bare = [str(PurePosixPath(file).with_suffix("")) for file in data.files]
    count = Counter(bare)
    return [name if count[name] == 1 else file for name, file in zip(bare, data.files, strict=True)]
