"""`genfast denoise`: remove noise from images, and measure the error."""

from __future__ import annotations

import argparse

import torch

from genfast import metrics
from genfast.cli._command import command
from genfast.cli._engine import accepted, batch_size_of, first_held_out, restoring_options, steps_bar
from genfast.cli.options import nonnegative_int, number, picture_path, positive_int
from genfast.data.grid import brightness, rows
from genfast.io import write_bytes
from genfast.tasks import BitFlipNoise, GaussianNoise, denoise
from genfast.tasks._latent import refuse_codes
from genfast.tasks._noisy import METHODS, MOST_VALUES


def options(parser: argparse.ArgumentParser) -> None:
    restoring_options(parser)
    text = "bitflip:P (probability), or gaussian:SIGMA (of the whole range of levels)"
    parser.add_argument("--noise", required=True, type=_noise, metavar="NOISE", help=text)
    text = "estimate from the posterior: mean (best PSNR), map (fewest wrong values) or sample (mean)"
    parser.add_argument("--method", choices=METHODS, default="mean", help=text)
    parser.add_argument("--steps", type=nonnegative_int, default=200, help="steps of each chain (200)")
    text = "chains of each image (1 for the method sample, else 4)"
    parser.add_argument("--samples", type=positive_int, help=text)


@command("denoise", "remove noise from images, and measure the error", options)
def run(args: argparse.Namespace) -> None:
    path = picture_path(args.out)
    model, truth, given_labels, levels = first_held_out(args, lambda model: refuse_codes("denoise", model))
    noisy = args.noise.corrupt(truth, levels, seed=args.seed)
    samples = args.samples or (1 if args.method == "sample" else 4)  # the default of denoise
    size = batch_size_of(model, args.backend)
    size = args.batch_size or max(1, min(size, MOST_VALUES // (truth[0].numel() * levels)))
    with steps_bar(args.steps * samples, len(truth), size) as progress:
        result = denoise(
            model,
            noisy,
            args.noise,
            method=args.method,
            samples=samples,
            steps=args.steps,
            seed=args.seed,
            labels=given_labels,
            batch_size=size,
            backend=args.backend,
            progress=progress,
        )
    seen = args.noise.picture(noisy, levels)
    observed = (255 * seen.clamp(0, 1)).round().to(torch.uint8)
    clean = (brightness(images, levels) for images in (result.samples[0], result.images))
    write_bytes(path, rows(brightness(truth, levels), observed, *clean))
    before, after = metrics.psnr(seen * (levels - 1), truth, levels), metrics.psnr(result.images, truth, levels)
    print(f"{path}: {len(truth)} images, each: truth, noisy, a posterior sample, {args.method}")
    print(f"PSNR {before:.2f} dB noisy, {after:.2f} dB {args.method}; {accepted(result.acceptance)}")


def _noise(text: str) -> BitFlipNoise | GaussianNoise:
    kind, _, value = text.partition(":")
    kinds: dict[str, type[BitFlipNoise] | type[GaussianNoise]] = {"bitflip": BitFlipNoise, "gaussian": GaussianNoise}
    size = number(value)
    if kind not in kinds or size is None:
        raise argparse.ArgumentTypeError(f"expected bitflip:P or gaussian:SIGMA; got {text}")
    try:
        return kinds[kind](size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
