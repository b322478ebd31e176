"""`genfast interpolate`: images on a path from one image to another."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from genfast._text import shown
from genfast.cli._command import command
from genfast.cli._held_out import held_out, held_out_options
from genfast.cli.options import int_ge2, picture_path, positive_int
from genfast.data.grid import brightness, rows
from genfast.io import write_bytes
from genfast.tasks import embed, interpolate
from genfast.tasks._latent import check_latent_model
from genfast.tasks.interpolate import KINDS


def options(parser: argparse.ArgumentParser) -> None:
    held_out_options(parser, "FILE.png", "a row for each pair: an image, the path, the other image")
    parser.add_argument("-n", type=positive_int, default=8, help="pairs of held-out images, the first ones (8)")
    parser.add_argument("--steps", type=int_ge2, default=9, help="images on the path, both ends among them (9)")
    parser.add_argument("--kind", choices=KINDS, default="spherical", help="along an arc or straight (spherical)")


@command("interpolate", "images on a path from one image to another", options)
def run(args: argparse.Namespace) -> None:
    path = picture_path(args)
    model, data, labels = held_out(args, partial(check_latent_model, "interpolate"))
    pairs = min(args.n, len(data) // 2)
    if not pairs:
        raise ValueError(f"{data.name}: expected two images or more; got {len(data)}")
    ends = [slice(side, 2 * pairs, 2) for side in (0, 1)]
    a, b = (data.images[end] for end in ends)
    labels_a, labels_b = (None if labels is None else labels[end] for end in ends)
    start: Any = embed(model, a, labels_a)
    stop: Any = embed(model, b, labels_b)
    between = interpolate(model, start, stop, args.steps, kind=args.kind, labels=labels_a)
    columns = (brightness(images, data.levels) for images in (a, *between.unbind(1), b))
    write_bytes(path, rows(*columns))
    print(f"{shown(path)}: {pairs} pairs, each: an image, {args.steps} steps of a {args.kind} path, the other image")
