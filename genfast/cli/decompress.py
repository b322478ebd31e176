"""`genfast decompress`: images from a compressed file."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor

from genfast._text import shown
from genfast.cli._command import command
from genfast.cli.compress import on_device
from genfast.cli.options import add_device, add_out, out_path, out_paths, positive_int
from genfast.cli.progress import counter
from genfast.data.grid import brightness, png, writer
from genfast.io import read_bytes, write_bytes
from genfast.tasks import decompress, file_info
from genfast.tasks._codes import MOST_BYTES
from genfast.train.run_folder import open_model


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the output of genfast compress")
    text = (
        "run folder, model folder or name of the model that wrote the file; none if the file holds it or it is shipped"
    )
    parser.add_argument("--model", metavar="RUN", help=text)
    text = "FILE.png (a grid, or the image as it is if there is one), FILE.npz (the levels), or a folder of .png files"
    add_out(parser, "OUT", text)
    text = "most bytes of memory for the images and the decoding of one; a file that needs more is refused (2 GiB)"
    parser.add_argument("--max-bytes", type=positive_int, default=MOST_BYTES, metavar="BYTES", help=text)
    add_device(parser)


@command("decompress", "images from a file of genfast compress", options)
def run(args: argparse.Namespace) -> None:
    path = Path(args.out)
    is_folder = path.suffix.lower() not in (".png", ".npz") and (path.is_dir() or not path.suffix)
    write = None if is_folder else writer(out_path(args))
    model = on_device(open_model(args.model), args.device) if args.model else None
    data = read_bytes(args.file, "decompress", args.max_bytes)
    try:
        info = file_info(data)
        with counter(info.count, "image") as progress:
            images = decompress(data, model, max_bytes=args.max_bytes, progress=progress)
    except ValueError as error:
        raise ValueError(f"{shown(args.file)}: {error}") from None
    if write is None:
        targets = out_paths(args, [path / f"image-{index:05d}.png" for index in range(len(images))])
        for target, image in zip(targets, _pictures(images, info.levels), strict=True):
            write_bytes(target, png(image))
    elif len(images) == 1 and path.suffix.lower() == ".png":
        write_bytes(path, png(_pictures(images, info.levels)[0]))
    else:
        write(images, info.levels)
    print(f"{shown(path)}: {len(images)} images of {images.shape[3]}x{images.shape[2]}")


def _pictures(images: Tensor, levels: int) -> list[np.ndarray]:
    """Images as arrays [H, W, C] of 0..255."""
    return [np.ascontiguousarray(image) for image in brightness(images, levels).numpy().transpose(0, 2, 3, 1)]
