"""`genfast sample`: draw images from a model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from genfast.cli._command import command
from genfast.cli._engine import engine_options
from genfast.cli.options import add_device, add_target, labels, nonnegative_int, positive, positive_int
from genfast.cli.progress import counter, draw
from genfast.data.grid import writer
from genfast.engine.arguments import check_count
from genfast.engine.decoder import engine_of
from genfast.tasks import sample_shards
from genfast.train.loop import pick_device
from genfast.train.run_folder import open_model


def options(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add("-n", type=positive_int, default=64, help="images to draw (64)")
    text = "FILE.png (a grid), FILE.npz (the levels), or a folder for .npz files, finished if it was begun"
    add("--out", required=True, metavar="OUT", help=text)
    add("--seed", type=int, default=0, help="same seed, same images (0)")
    add(
        "--first", type=nonnegative_int, default=0, help="number of the first image; image i is the same in any set (0)"
    )
    text = "classes to draw, again and again, such as 0,1,2 (a conditional model: all of them)"
    add("--label", "--labels", dest="labels", type=labels, action="extend", metavar="K", help=text)
    add("--shard", type=positive_int, default=1000, help="images of a file in a folder (1000)")
    engine_options(parser)
    add_device(parser)
    add("--temperature", type=positive, default=1.0, help="below 1: likelier images (1.0)")


@command("sample", "draw images from a model", options)
def run(args: argparse.Namespace) -> None:
    path = Path(args.out)
    is_folder = path.suffix.lower() not in (".png", ".npz") and (path.is_dir() or not path.suffix)
    write = None if is_folder else writer(path)  # a wrong ending or folder is found before the work
    check_count("sample", args.n, args.first, args.seed, args.temperature)
    model = open_model(args.target).to(pick_device(args.device))
    chosen = sample_labels(model, args.n, args.labels, args.first)
    options = {"seed": args.seed, "first": args.first, "temperature": args.temperature, "backend": args.backend}
    _ = engine_of(model, backend=args.backend).backend  # compiles the model's program, which is no part of the rate
    start, drawn = time.perf_counter(), args.n
    if is_folder:
        with counter(args.n, "image") as progress:
            drawn = sample_shards(
                model,
                args.n,
                path,
                labels=chosen,
                shard=args.shard,
                batch_size=args.batch_size,
                progress=progress,
                **options,
            )
    else:
        write(draw(model, args.n, labels=chosen, batch_size=args.batch_size, **options), model.spec.levels, chosen)
    rate = f"{drawn / (time.perf_counter() - start):.0f} images/s"
    there = f"{args.n - drawn} there already, {rate}" if drawn else "all there already"
    print(f"{path}: {args.n} images, {rate if drawn == args.n else there}")


def sample_labels(model: nn.Module, count: int, labels: list[int] | None = None, first: int = 0) -> Tensor | None:
    """The labels of `count` samples from number `first` on, [count]: those given, or all classes, again and again;
    None without classes."""
    classes = model.spec.classes
    if not classes:
        if labels:
            raise ValueError(f"labels: expected none, as this {model.name} is not conditional; got {labels}")
        return None
    labels = labels or range(classes)
    if wrong := [label for label in labels if not 0 <= label < classes]:
        raise ValueError(f"labels: expected 0 to {classes - 1}; got {wrong[0]}")
    return torch.tensor(labels)[(first % len(labels) + torch.arange(count)) % len(labels)]
