"""`genfast reconstruct`: images after encoding and decoding, beside the images."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from genfast import metrics
from genfast._text import shown
from genfast.cli._command import command
from genfast.cli._held_out import held_out, held_out_options
from genfast.cli._pictures import each_path, picture_or_folder, say_rows, write_each
from genfast.cli.options import positive_int
from genfast.cli.progress import track
from genfast.data.grid import brightness, grid, png
from genfast.engine.protocols import Reconstructor
from genfast.io import write_bytes
from genfast.train.inputs import batches, inputs
from genfast.train.run_data import first_images

ACROSS = 10  # images in a row of a picture
SHOWN = 20  # images in a picture


def options(parser: argparse.ArgumentParser) -> None:
    text = "FILE.png (the images, and below them their reconstructions), or a folder for a PNG of each"
    held_out_options(parser, "OUT", text)
    parser.add_argument(
        "-n", type=positive_int, help=f"images, the first ones ({SHOWN} for FILE.png, all for a folder)"
    )
    parser.add_argument("--batch", type=positive_int, default=250, help="images per batch (250)")


@command("reconstruct", "images after encoding and decoding, beside the images", options)
def run(args: argparse.Namespace) -> None:
    path, is_folder = picture_or_folder(args)
    model, data, _ = held_out(args, _check)
    count = args.n or (len(data) if is_folder else SHOWN)
    targets = each_path(args, path, first_images(data, count)) if is_folder else []
    parts = track(batches(inputs(model, data), args.batch), "batch")
    reconstructed = torch.cat([model.eval().reconstruct(*part).cpu() for part in parts])
    sides = [brightness(images[:count], data.levels) for images in (data.images, reconstructed)]
    if is_folder:
        write_each(targets, sides[1:])
    else:
        write_bytes(path, png(grid(_stacked(*sides), 256, columns=min(ACROSS, len(sides[0])))))
    wrong = (
        f", {100 * float((reconstructed != data.images).double().mean()):.2f} % of bits wrong"
        if data.levels == 2
        else ""
    )
    print(f"{shown(path)}: {len(sides[0])} images{'' if is_folder else ', truth above, reconstruction below'}")
    say_rows(() if is_folder else data.files[:count], "images")
    psnr = metrics.psnr(reconstructed, data.images, data.levels)
    print(f"{data.name}: {len(reconstructed)} images, PSNR {psnr:.2f} dB{wrong}")


def _check(model: Any) -> None:
    reconstructs = isinstance(model, Reconstructor)
    if not reconstructs:
        raise TypeError(f"reconstruct: model must have latents or codes; got {model.name}")


def _stacked(*sets: Tensor) -> Tensor:
    """Rows of images that alternate between several sets: [rows * sets * ACROSS, C, H, W]."""
    across = min(ACROSS, len(sets[0]))
    filled = [torch.cat((s, s.new_full((-len(s) % across, *s.shape[1:]), 96))) for s in sets]
    return torch.stack([s.unflatten(0, (-1, across)) for s in filled], 1).flatten(0, 2)
