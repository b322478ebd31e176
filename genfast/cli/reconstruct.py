"""`genfast reconstruct`: images after encoding and decoding, beside the images."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from genfast import metrics
from genfast.cli._command import command
from genfast.cli._held_out import held_out, held_out_options
from genfast.cli.options import picture_path, positive_int
from genfast.cli.progress import track
from genfast.data.grid import brightness, grid, png
from genfast.engine.protocols import Reconstructor
from genfast.io import write_bytes
from genfast.train.inputs import batches, inputs

ACROSS = 10  # images in a row of a picture


def options(parser: argparse.ArgumentParser) -> None:
    held_out_options(parser, "FILE.png", "the images, and below them their reconstructions")
    parser.add_argument("-n", type=positive_int, default=20, help="images, the first of the held-out ones (20)")
    parser.add_argument("--batch", type=positive_int, default=250, help="images per batch (250)")


@command("reconstruct", "images after encoding and decoding, beside the images", options)
def run(args: argparse.Namespace) -> None:
    path = picture_path(args.out)
    model, data, _ = held_out(args)
    reconstructs = isinstance(model, Reconstructor)
    if not reconstructs:
        raise TypeError(f"reconstruct: model must have latents or codes; got {model.name}")
    parts = track(batches(inputs(model, data), args.batch), "batch")
    reconstructed = torch.cat([model.eval().reconstruct(*part).cpu() for part in parts])
    shown = [brightness(images[: args.n], data.levels) for images in (data.images, reconstructed)]
    write_bytes(path, png(grid(_stacked(*shown), 256, columns=min(ACROSS, len(shown[0])))))
    wrong = (
        f", {100 * float((reconstructed != data.images).double().mean()):.2f} % of bits wrong"
        if data.levels == 2
        else ""
    )
    print(f"{path}: {len(shown[0])} images, truth above, reconstruction below")
    psnr = metrics.psnr(reconstructed, data.images, data.levels)
    print(f"{data.name}: {len(reconstructed)} images, PSNR {psnr:.2f} dB{wrong}")


def _stacked(*sets: Tensor) -> Tensor:
    """Rows of images that alternate between several sets: [rows * sets * ACROSS, C, H, W]."""
    across = min(ACROSS, len(sets[0]))
    filled = [torch.cat((s, s.new_full((-len(s) % across, *s.shape[1:]), 96))) for s in sets]
    return torch.stack([s.unflatten(0, (-1, across)) for s in filled], 1).flatten(0, 2)
