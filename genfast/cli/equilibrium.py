"""`genfast equilibrium`: the state of the game between the two networks of a GAN."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from genfast import metrics
from genfast._text import shown
from genfast.cli import report
from genfast.cli._command import command
from genfast.cli.options import (
    add_data,
    add_device,
    add_out,
    data_options,
    int_ge2,
    picture_path,
    positive,
    positive_int,
    say,
    warn,
)
from genfast.cli.progress import counter, draw
from genfast.data import ImageData
from genfast.engine.protocols import Generator
from genfast.io import check_writable, write_bytes
from genfast.train.config import is_adversarial
from genfast.train.inputs import check, inputs, labels_in_shares
from genfast.train.loop import pick_device
from genfast.train.quality import STEPS, run_classifier
from genfast.train.run_data import data_of, held_out_data, load_data
from genfast.train.run_folder import STANDING, cache_of, open_model
from genfast.train.standing import monitored, monitored_path, pooled, samples_state


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="RUN", help="run folder of a GAN")
    add_data(parser)
    parser.add_argument("--images", type=int_ge2, default=1000, help="samples to judge (1000)", metavar="N")
    parser.add_argument("--gap", action="store_true", help="estimate the duality gap: train either side on")
    parser.add_argument(
        "--gap-steps", type=positive_int, default=40, help="updates of either side for it (40)", metavar="K"
    )
    text = "images on which it is measured, 11 times (256); more updates and images make it surer and slower"
    parser.add_argument("--gap-images", type=int_ge2, default=256, help=text, metavar="N")
    parser.add_argument("--gap-rate", type=positive, default=1e-3, help="their learning rate (0.001)", metavar="LR")
    parser.add_argument("--seed", type=int, default=0, help="of samples, classifier and gap (0)")
    add_out(parser, "FILE.png", f"where the plot goes (RUN/{STANDING}, which is replaced)", required=False)
    add_device(parser)


@command("equilibrium", "the state of the two networks of a GAN, in words and as a plot", options)
def run(args: argparse.Namespace) -> None:
    monitored_path(args.target)
    model = open_model(args.target).to(pick_device(args.device))
    if not is_adversarial(model):
        raise ValueError(f"{shown(args.target)}: expected a run of a GAN; got a {model.name}")
    records = monitored(args.target)
    path = picture_path(args) if args.out else Path(args.target) / STANDING
    check_writable(path.parent)
    source = data_of(args.target, data_options(args))
    training: Any = load_data(source, "train", warn)
    check(model, training)
    say(training)
    gap = None
    if args.gap:
        with counter(2 * args.gap_steps, "step") as progress:
            settings: Any = {"steps": args.gap_steps, "rate": args.gap_rate, "seed": args.seed}
            settings |= {"measured": args.gap_images}
            gap = metrics.duality_gap(model, inputs(model, training), progress=progress, **settings)
    coverage, variance = None, None
    draws = isinstance(model, Generator)
    if draws:  # the modes of translations are those of their sources
        coverage, variance = _samples(model, source, training, args)
    accuracy = pooled(records)
    verdict = metrics.verdict(accuracy, coverage, gap, variance=variance)
    print(f"{shown(args.target)}: {verdict}")
    last = records[-1]
    calibrated = f"D(x) {last['d_real']:.3f}, D(G(z)) {last['d_fake']:.3f}, slope {last['calibration_slope']:.3g}"
    print(f"  calibrated at step {last['step']}: {calibrated}")
    write_bytes(path, report.standing(records))
    print(f"{shown(path)}: accuracy, D(x), D(G(z)) and modes over the steps")


def _samples(
    model: Any, source: dict[str, Any], training: ImageData, args: argparse.Namespace
) -> tuple[metrics.Coverage | None, float]:
    """`samples_state` of samples, by a classifier where there are labels."""
    samples = draw(model, args.images, seed=args.seed, labels=labels_in_shares(model, training, args.images, args.seed))
    if training.labels is None:
        return samples_state(samples, training, None, args.seed)
    held_out: Any = held_out_data(source, None, warn)
    settings: Any = {"device": pick_device(args.device), "seed": args.seed, "folder": cache_of(args.target)}
    with counter(STEPS, "step") as progress:
        classifier, _ = run_classifier(training, held_out, progress=progress, **settings)
    return samples_state(samples, training, classifier, args.seed)
