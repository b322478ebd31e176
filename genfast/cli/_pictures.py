"""Shared by the commands that write one picture of many images, or a folder with a picture of each."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch import Tensor

from genfast._text import shown
from genfast.cli.options import data_options, out_paths, picture_path
from genfast.data import ImageData, PairData, locate
from genfast.data.grid import png
from genfast.io import check_writable, write_bytes
from genfast.train.codes import is_codes


def picture_or_folder(args: argparse.Namespace) -> tuple[Path, bool]:
    """(path, whether it is a folder) of --out: FILE.png, or a folder that can be written.

    Raises: ValueError for a folder inside the folder of the data, whose images stay as they are.
    """
    path = Path(args.out)
    if path.suffix and not path.is_dir():
        return picture_path(args), False
    options = data_options(args)
    if options["data"] and not is_codes(options):
        dataset, name = locate(options["data"])
        source = Path(name.removeprefix(dataset.prefix or ""))
        if source.is_dir() and path.resolve().is_relative_to(source.resolve()):
            expected = f"a folder outside of {shown(source)}, whose images stay as they are"
            raise ValueError(f"{shown(path)}: expected {expected}; got one inside")
    check_writable(path)
    return path, True


def each_path(args: argparse.Namespace, folder: Path, data: ImageData | PairData, results: int = 1) -> Sequence[Path]:
    """`out_paths` of a PNG of each result of each image, in this order: by the name of its file, or by its number.

    Of several results the names end in -1, -2 ...
    """
    endings = [f"-{number}" for number in range(1, results + 1)] if results > 1 else [""]
    return out_paths(args, [folder / f"{name}{ending}.png" for ending in endings for name in _names(data)])


def write_each(paths: Sequence[Path], results: Sequence[Tensor]) -> None:
    """Write a PNG of each image [C, H, W] of 0..255 of the results, sets of images [n, C, H, W], to `each_path`."""
    for path, image in zip(paths, (image for images in results for image in images), strict=True):
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
