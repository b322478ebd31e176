"""`genfast equilibrium`: the state of the game between the two networks of a GAN."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from genfast.random import permutation
from genfast.train.config import is_adversarial
from genfast.train.inputs import check, inputs, labels_in_shares
from genfast.train.loop import pick_device
from genfast.train.metrics_log import read_metrics
from genfast.train.quality import STEPS, run_classifier
from genfast.train.run_data import data_of, held_out_data, load_data
from genfast.train.run_folder import STANDING, cache_of, open_model

NEEDED = ("accuracy_real", "accuracy_fake", "accuracy", "accuracy_count")
# Shares, and the slope.
DRAWN = ("accuracy_low", "accuracy_high", "d_real", "d_fake", "calibration_slope")
LAST = 0.1  # share of the records that the verdict is on; a single record may be far off


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


def monitored(run: str) -> list[dict[str, Any]]:
    """The records of RUN/metrics.jsonl that have the fields of an `EquilibriumMonitor`."""
    path = monitored_path(run)
    records = [record for record in read_metrics(path) if _is_monitored(record)]
    if not records:
        expected = f"records of an adversarial training, with {', '.join(NEEDED)}"
        raise ValueError(f"{shown(path)}: expected {expected}; got none")
    return records


def _is_monitored(record: dict[str, Any]) -> bool:
    """Whether a record has the fields of an `EquilibriumMonitor`, in their bounds."""
    if not all(name in record for name in (*NEEDED, *DRAWN)) or record["accuracy_count"] < 1:
        return False
    covered = "classes_hit" not in record or 0 <= record["classes_hit"] <= record.get("classes", 0) != 0
    return covered and all(0 <= record[name] <= 1 for name in (*NEEDED[:3], *DRAWN[:-1]))


def monitored_path(run: str) -> Path:
    """RUN/metrics.jsonl; FileNotFoundError if it is missing."""
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{shown(run)}: expected a run folder with a file metrics.jsonl; got none")
    return path


def pooled(records: list[dict[str, Any]]) -> metrics.Accuracy:
    """The discriminator's accuracy over the last tenth of the records, at least one."""
    last = records[-max(1, round(LAST * len(records))) :]
    total = sum(record["accuracy_count"] for record in last)
    real, fake, both = (sum(r[name] * r["accuracy_count"] for r in last) / total for name in NEEDED[:3])
    both = min(max(both, 0.0), 1.0)
    return metrics.Accuracy(real, fake, both, *metrics.wilson_interval(both, total), total)


def _samples(
    model: Any, source: dict[str, Any], training: ImageData, args: argparse.Namespace
) -> tuple[metrics.Coverage | None, float]:
    """(coverage or None, variance over that of the data) of samples."""
    samples = draw(model, args.images, seed=args.seed, labels=labels_in_shares(model, training, args.images, args.seed))
    variance = float(_total_variance(samples) / _total_variance(training.images))
    if training.labels is None:
        return None, variance
    held_out: Any = held_out_data(source, None, warn)
    settings: Any = {"device": pick_device(args.device), "seed": args.seed, "folder": cache_of(args.target)}
    with counter(STEPS, "step") as progress:
        classifier, _ = run_classifier(training, held_out, progress=progress, **settings)
    order = permutation(len(training), args.seed)  # a random subset
    real = classifier.features(training.images[order[: max(args.images, 1000)]])
    inside = metrics.looks_real(real, classifier.features(samples)).cpu()
    predicted = torch.where(inside, classifier.predict(samples).cpu(), -1)
    return metrics.mode_coverage(predicted, training.labels, training.classes), variance


def _total_variance(images: Tensor) -> Tensor:
    return images.double().flatten(1).var(0).sum().clamp(min=1e-12)
