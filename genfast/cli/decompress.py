"""`genfast decompress`: images from a compressed file."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor

from genfast.cli._codes import open_code_model
from genfast.cli._command import command
from genfast.cli.options import add_device, add_out, add_target, out_path
from genfast.data.grid import brightness, png, writer
from genfast.io import write_bytes
from genfast.tasks import decompress


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("file", metavar="FILE", help="the output of genfast compress with the same model")
    text = "FILE.png (a grid, or the image as it is if there is one), FILE.npz (the levels), or a folder of .png files"
    add_out(parser, "OUT", text)
    add_device(parser)


@command("decompress", "images from a file of genfast compress", options)
def run(args: argparse.Namespace) -> None:
    path = Path(args.out)
    is_folder = path.suffix.lower() not in (".png", ".npz") and (path.is_dir() or not path.suffix)
    write = None if is_folder else writer(out_path(args))
    model = open_code_model(args)
    try:
        images = decompress(model, Path(args.file).read_bytes())
    except ValueError as error:
        raise ValueError(f"{args.file}: {error}") from None
    levels = model.spec.levels
    if write is None:
        targets = [out_path(args, str(path / f"image-{index:05d}.png")) for index in range(len(images))]
        for target, image in zip(targets, _pictures(images, levels), strict=True):
            write_bytes(target, png(image))
    elif len(images) == 1 and path.suffix.lower() == ".png":
        write_bytes(path, png(_pictures(images, levels)[0]))
    else:
        write(images, levels)
    print(f"{path}: {len(images)} images of {images.shape[3]}x{images.shape[2]}")


def _pictures(images: Tensor, levels: int) -> list[np.ndarray]:
    """Images as arrays [H, W, C] of 0..255."""
    return [np.ascontiguousarray(image) for image in brightness(images, levels).numpy().transpose(0, 2, 3, 1)]
