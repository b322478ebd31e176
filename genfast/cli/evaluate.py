"""`genfast evaluate`: likelihood of held-out images, or quality of samples, beside baselines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from genfast import metrics
from genfast.cli._command import command
from genfast.cli.options import (
    add_data,
    add_device,
    add_json,
    add_split,
    add_target,
    check_json,
    data_options,
    positive_int,
    say,
    warn,
    write_result,
)
from genfast.cli.progress import counter, draw, track
from genfast.train.evaluate import Evaluation, evaluate
from genfast.train.quality import SampleQuality


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add_data(parser)
    add_split(parser)
    add = parser.add_argument
    add("--batch", type=positive_int, default=250, help="images per batch (250)")
    add_device(parser)
    add(
        "--images",
        type=positive_int,
        help="only so many images: the first ones, for a GAN random ones (all)",
        metavar="N",
    )
    text = "importance samples of each image, for models with latents (5000)"
    add("--samples", type=positive_int, default=5000, help=text)
    add("--seed", type=int, default=0, help="of those samples; other likelihoods are exact (0)")
    text = "of a GAN's samples: classifier, pixels, or REAL.npz GENERATED.npz (a classifier, where there are labels)"
    add("--features", nargs="+", metavar="FEATURES", help=text)
    add_json(parser)
    add("--overwrite", action="store_true", help="replace the file of --json if it exists")


@command("evaluate", "likelihood of held-out images, beside baselines", options)
def run(args: argparse.Namespace) -> None:
    settings: Any = {"samples": args.samples, "seed": args.seed, "images": args.images, "features": args.features}
    where = args.target, data_options(args), args.split, args.batch, args.device
    settings |= {"draw": draw, "track": track, "bar": counter, "tell": warn}
    check_json(args)
    result = evaluate(*where, **settings, say=partial(say, args=args))
    if not write_result(args, result):
        for line in lines(result):
            print(line)


def lines(evaluation: Evaluation) -> Iterator[str]:
    """An evaluation as lines of text."""
    if evaluation.translation:
        yield f"{'':<20} {'mean error, %':>13} {'PSNR, dB':>9}"
        for name, (error, decibels) in evaluation.translation.items():
            yield f"{name:<20} {error:13.2f} {decibels:9.2f}"
    if evaluation.samples:
        yield from _sample_lines(evaluation.samples)
    if evaluation.nats:
        unit, values, digits = ("symbol", evaluation.dims, 4) if evaluation.of_symbols else ("image", 1, 3)
        yield f"{'':<20} {f'nats/{unit}':>10} {'bits/symbol' if evaluation.of_symbols else 'bits/dim':>9}"
        for name, nats in evaluation.nats.items():
            yield f"{name:<20} {nats / values:10.{digits}f} {metrics.bits_per_dim(nats, evaluation.dims):9.4f}"
    if evaluation.latents is not None:
        how = f"log-likelihood by {evaluation.importance_samples} importance samples; "
        used = f"{evaluation.active_latents} of {evaluation.latents} latents active"
        yield f"model: {how if evaluation.importance_samples else ''}{used}"
    if evaluation.codebook_use:
        uses = (
            f"{100 * share:.0f} % of {evaluation.codes} codes in use, perplexity {p:.1f}"
            for share, p in evaluation.codebook_use
        )
        yield f"model: a lower bound, by each image's own codes; {', '.join(uses)}"


def _sample_lines(quality: SampleQuality) -> Iterator[str]:
    if quality.features == "pixels":
        yield "features: pixels"
    if quality.accuracy is not None:
        right = f"{100 * quality.accuracy:.1f} % of the held-out images"
        yield f"features: of a classifier that names the class of {right}"
    columns = quality.columns
    yield f"{'':<20}" + "".join(f"{name:>17}" for name in columns)
    for row in next(iter(columns.values())):
        yield f"{row:<20}" + "".join(f"{column[row]:17.4f}" for column in columns.values())
    if (c := quality.classes) is None:
        return
    yield f"classes: {c.hit} of {c.classes} in {c.samples} samples, KL of their histogram {c.kl:.4f}"
    yield f"inception score by this classifier: {c.inception_score:.3f} of at most {c.classes}"
    if c.as_asked is not None:
        share = f"{100 * c.as_asked:.1f} % of the samples"
        yield f"asked for: {share} are taken for the class that they were asked to be of"
