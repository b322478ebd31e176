"""`genfast traverse`: what each latent of a VAE does."""

from __future__ import annotations

import argparse
from functools import partial

from genfast.cli._command import command
from genfast.cli._held_out import held_out, held_out_options
from genfast.cli.options import int_ge2, nonnegative_int, picture_path, positive, positive_int
from genfast.data.grid import brightness, rows
from genfast.io import write_bytes
from genfast.tasks import traverse
from genfast.tasks._latent import check_latent_model
from genfast.tasks.results import Traversal

CARRIED = 0.01  # nats from which on a latent is listed


def options(parser: argparse.ArgumentParser) -> None:
    held_out_options(parser, "FILE.png", "a row for each latent, the most active first")
    parser.add_argument("--image", type=nonnegative_int, default=0, help="which held-out image to begin with (0)")
    parser.add_argument("--steps", type=int_ge2, default=9, help="values of a latent (9)")
    text = "largest value of a latent, in standard deviations of the prior (3)"
    parser.add_argument("--span", type=positive, default=3.0, help=text)
    parser.add_argument("--latents", type=positive_int, default=10, help="rows, at most (10)")


@command("traverse", "what each latent of a VAE does", options)
def run(args: argparse.Namespace) -> None:
    path = picture_path(args)
    model, data, labels = held_out(args, partial(check_latent_model, "traverse"))
    if args.image >= len(data):
        raise ValueError(f"image: expected 0 to {len(data) - 1} of {data.name}; got {args.image}")
    one = slice(args.image, args.image + 1)
    moved = traverse(
        model,
        data.images[one],
        steps=args.steps,
        span=args.span,
        labels=None if labels is None else labels[one],
        reference=data.images if labels is None else None,
    )
    shown = moved.images[0, : args.latents]
    write_bytes(path, rows(*(brightness(images, data.levels) for images in shown.unbind(1))))
    active = int((moved.kl >= CARRIED).sum())
    print(
        f"{path}: {len(shown)} of {model.latent_size} latents, {args.steps} values from -{args.span:g} to {args.span:g}"
    )
    print(f"{active} latents carry {CARRIED} nats or more: {', '.join(_named(moved))}")


def _named(moved: Traversal) -> list[str]:
    return [f"{latent} ({kl:.2f})" for latent, kl in zip(moved.latents.tolist(), moved.kl.tolist()) if kl >= CARRIED]
