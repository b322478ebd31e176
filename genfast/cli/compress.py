"""`genfast compress`: images to a small file."""

from __future__ import annotations

import argparse
from typing import Any

from torch import Tensor

from genfast import metrics
from genfast._text import shown
from genfast.cli._codes import open_code_model
from genfast.cli._command import command
from genfast.cli.options import (
    add_data,
    add_device,
    add_out,
    add_split,
    add_target,
    data_options,
    out_path,
    positive_int,
    say,
    warn,
)
from genfast.data.reading import read_images
from genfast.io import write_bytes
from genfast.metrics.rate_distortion import table
from genfast.tasks import compress
from genfast.train.inputs import check
from genfast.train.run_data import data_of, held_out_data


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    text = "image files of one size, any size; without them, held-out images of the data"
    parser.add_argument("images", nargs="*", metavar="IMAGES", help=text)
    add_out(parser, "FILE", "the compressed file, of all images")
    add_data(parser)
    add_split(parser)
    parser.add_argument("-n", type=positive_int, help="held-out images, the first ones (all)")
    add_device(parser)


@command("compress", "images to a small file by a vq-vae's codes, beside JPEG", options)
def run(args: argparse.Namespace) -> None:
    path = out_path(args)
    model = open_code_model(args)
    levels, images = model.spec.levels, _images(args, model)
    data = compress(model, images)
    write_bytes(path, data)
    size = f"{images.shape[3]}x{images.shape[2]}"
    print(f"{shown(path)}: {len(images)} images of {size}, {levels} levels, {len(data)} bytes")
    for line in table(metrics.rate_distortion(model, images)):
        print(line)


def _images(args: argparse.Namespace, model: Any) -> Tensor:
    """The images of the files, or the first held-out images: uint8 [N, C, H, W]."""
    if args.images:
        if args.data or args.split or args.n:
            raise ValueError("compress: expected image files, or options of held-out images; got both")
        return read_images(args.images, model.spec.channels, model.spec.levels, args.bits, warn)
    data = held_out_data(data_of(args.target, data_options(args)), args.split, warn)
    check(model, data)
    say(data)
    return data.images[: args.n]
