"""`genfast sample`: draw images from a model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genfast._text import shown
from genfast.cli._command import command
from genfast.cli._engine import engine_options
from genfast.cli._sequences import sample_sequences, sequence_options
from genfast.cli.options import (
    add_device,
    add_out,
    add_target,
    label_list,
    nonnegative_int,
    out_path,
    positive,
    positive_int,
)
from genfast.cli.progress import counter, draw
from genfast.data.grid import writer
from genfast.engine.arguments import check_count
from genfast.engine.decoder import engine_of
from genfast.models import SequenceModel
from genfast.tasks import sample_shards
from genfast.train.loop import pick_device
from genfast.train.run_folder import open_model


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add("-n", type=positive_int, help="images to draw (64), or sequences (1)")
    text = (
        "FILE.png (a grid), FILE.npz (the levels), or a folder of .npz files; an interrupted run continues; of a model "
    )
    add_out(parser, "OUT", text + "of sequences FILE.txt, FILE.wav or FILE.npz (a text is printed)", required=False)
    sequence_options(parser)
    add("--seed", type=int, default=0, help="same seed, same images (0)")
    add("--first", type=nonnegative_int, default=0, help="number of the first image; image i does not depend on it (0)")
    text = "classes to draw, in a cycle, such as 0,1,2 (all classes of a conditional model)"
    add("--label", "--labels", dest="labels", type=label_list, action="extend", metavar="K", help=text)
    add("--shard", type=positive_int, help="images of a file in a folder (1000)")
    engine_options(parser)
    add_device(parser)
    add("--temperature", type=positive, default=1.0, help="below 1: likelier images (1.0)")


@command("sample", "draw images from a model", options)
def run(args: argparse.Namespace) -> None:
    model = open_model(args.target).to(pick_device(args.device))
    if isinstance(model, SequenceModel):
        check_count("sample", args.n or 1, args.first, args.seed, args.temperature)
        sample_sequences(args, model, sample_labels(model, args.n or 1, args.labels, args.first))
        return
    if args.out is None:
        raise ValueError("out: expected --out FILE.png, FILE.npz or a folder; got none")
    if args.length is not None or args.prompt is not None:
        raise ValueError(f"sample: expected no --length and no --prompt for a {model.name}, whose images have a size")
    path = Path(args.out)
    is_folder = path.suffix.lower() not in (".png", ".npz") and (path.is_dir() or not path.suffix)
    write = None if is_folder else writer(out_path(args))  # a wrong suffix or folder raises before the work
    n = args.n or 64
    check_count("sample", n, args.first, args.seed, args.temperature)
    labels = sample_labels(model, n, args.labels, args.first)
    options = {"seed": args.seed, "first": args.first, "temperature": args.temperature, "backend": args.backend}
    _ = engine_of(model, backend=args.backend).backend  # compiles the program, whose time is not part of the rate
    start, drawn = time.perf_counter(), n
    if write is None:
        with counter(n, "image") as progress:
            drawn = sample_shards(
                model,
                n,
                path,
                labels=labels,
                shard=args.shard or 1000,
                batch_size=args.batch_size,
                progress=progress,
                **options,
            )
    else:
        images = draw(model, n, labels=labels, batch_size=args.batch_size, **options)
        write(images, model.spec.levels, labels)
    rate = f"{drawn / (time.perf_counter() - start):.0f} images/s"
    there = f"{n - drawn} there already, {rate}" if drawn else "all there already"
    print(f"{shown(path)}: {n} images, {rate if drawn == n else there}")


def sample_labels(model: Any, count: int, labels: list[int] | None = None, first: int = 0) -> Tensor | None:
    """The labels [count] of samples from number `first` on: `labels`, or all classes, in a cycle.

    None for an unconditional model.
    """
    classes = model.spec.classes
    if not classes:
        if labels:
            raise ValueError(f"labels: expected none, as this {model.name} is not conditional; got {labels}")
        return None
    cycle = labels or list(range(classes))
    if wrong := [label for label in cycle if not 0 <= label < classes]:
        raise ValueError(f"labels: expected 0 to {classes - 1}; got {wrong[0]}")
    place = first % len(cycle) + torch.arange(count, dtype=torch.int64, device="cpu")
    return torch.tensor(cycle, dtype=torch.int64, device="cpu")[place % len(cycle)]
