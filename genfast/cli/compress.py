"""`genfast compress`: images to a small file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from genfast import metrics
from genfast._text import shown
from genfast.cli._command import command
from genfast.cli.options import (
    add_data,
    add_device,
    add_out,
    add_split_of_folder,
    add_target,
    data_options,
    out_path,
    positive_int,
    say,
    warn,
)
from genfast.cli.progress import counter
from genfast.data.reading import read_images
from genfast.engine.protocols import CodeModel
from genfast.io import write_bytes
from genfast.metrics.codecs import classical_sizes, codec_table
from genfast.metrics.rate_distortion import table
from genfast.tasks import compress
from genfast.train.inputs import check
from genfast.train.loop import pick_device
from genfast.train.run_data import all_of_a_folder, data_of, first_images, held_out_data
from genfast.train.run_folder import open_model


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    text = "image files of one size, any size, or a folder of images; without them, held-out images of the data"
    parser.add_argument("images", nargs="*", metavar="IMAGES", help=text)
    add_out(parser, "FILE", "the compressed file, of all images")
    text = "refuse to lose anything, as a vq-vae does; all other models are lossless without it"
    parser.add_argument("--lossless", action="store_true", help=text)
    text = "put the weights into the file, which then needs no model to be read"
    parser.add_argument("--with-model", action="store_true", help=text)
    text = "images that can only be read together; fewer are read faster alone and take more space (256, of a VAE 4096)"
    parser.add_argument("--block", type=positive_int, help=text)
    add_data(parser)
    add_split_of_folder(parser)
    parser.add_argument("-n", type=positive_int, help="the first so many images (all)")
    add_device(parser)


@command("compress", "images to a small file: lossless by an autoregressive model, or a vq-vae's codes", options)
def run(args: argparse.Namespace) -> None:
    path = out_path(args)
    model = on_device(open_model(args.target), args.device)
    has_codes = isinstance(model, CodeModel)
    images, labels = _images(args, model)
    with counter(len(images), "image") as progress:
        data = compress(
            model,
            images,
            labels=labels,
            lossless=True if args.lossless else None,
            with_model=args.with_model,
            block=args.block,
            progress=progress,
        )
    write_bytes(path, data)
    size = f"{images.shape[3]}x{images.shape[2]}"
    bits = "" if has_codes or not images.numel() else f", {8 * len(data) / images.numel():.4f} bits a dimension"
    print(f"{shown(path)}: {len(images)} images of {size}, {model.spec.levels} levels, {len(data)} bytes{bits}")
    if len(images) and has_codes:
        print("\n".join(table(metrics.rate_distortion(model, images))))
    elif len(images):
        print("\n".join(codec_table(classical_sizes(images.numpy()), images.numel())))


def on_device(model: Any, device: str) -> Any:
    """The model where it codes: a lossless one stays on the CPU, whose sums are the same everywhere."""
    return model.to(pick_device("cpu" if device == "auto" and not isinstance(model, CodeModel) else device))


def _images(args: argparse.Namespace, model: Any) -> tuple[Tensor, Tensor | None]:
    """The images, [N, C, H, W], of files, a folder, or held-out ones; and their labels, if the model needs them."""
    options = data_options(args)
    if args.images and (len(args.images) > 1 or not Path(args.images[0]).is_dir()):
        if args.data or args.split or args.n:
            raise ValueError("compress: expected image files, or options of held-out images; got both")
        if model.spec.classes and not isinstance(model, CodeModel):
            raise ValueError("compress: expected --data with labels for a conditional model; got image files")
        channels, levels = model.spec.channels, model.spec.levels
        if not isinstance(model, CodeModel) and (channels == 1 or levels < 256):
            kind = f"{'grey' if channels == 1 else 'RGB'}, {levels} levels"
            warn(f"compress: what loses nothing are the images as they are read: {kind}")
        return read_images(args.images, channels, levels, args.bits, warn), None
    if args.images:
        if args.data:
            raise ValueError("compress: expected a folder of images, or --data; got both")
        options["data"] = args.images[0]
    data = held_out_data(data_of(args.target, options), args.split or all_of_a_folder(options), warn)
    data = first_images(data, args.n)
    say(data)
    has_codes = isinstance(model, CodeModel)
    if has_codes:
        check(model, data)
    return data.images, data.labels if model.spec.classes and not has_codes else None
