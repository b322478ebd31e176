"""`genfast audit`: what varies in a set of images, and where the set is biased."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from genfast import reports
from genfast._text import MESSAGE, shown
from genfast.audit import Audit, Column, audit, label_column, read_column, weights_csv
from genfast.audit.latents import check_audited
from genfast.audit.page import page
from genfast.cli._command import command
from genfast.cli.options import (
    add_data,
    add_device,
    add_json,
    add_out,
    beside,
    check_json,
    data_options,
    nonnegative_int,
    positive,
    positive_int,
    say,
    warn,
    write_result,
)
from genfast.cli.progress import counter, progress_bar
from genfast.data import ALL, CHOICES, ImageData, locate
from genfast.io import write_bytes
from genfast.random import permutation
from genfast.train.loop import pick_device
from genfast.train.run_data import Tell, data_of, load_data, named, once
from genfast.train.run_folder import machine, open_model
from genfast.train.start import start

RUN, WEIGHTS = "run", "weights.csv"
MODEL = {"latent": 16, "network": "conv", "hidden": 16, "layers": 1}
TRAINING = {
    "batch": 64,
    "lr": 3e-3,
    "betas": (0.9, 0.999),
    "warmup": 100,
    "ema": 0.99,
    "eval_every": 200,
    "steps": 20_000,
}


def options(parser: argparse.ArgumentParser) -> None:
    text = "run folder, model folder or name of shipped weights of a VAE or VQ-VAE; without it a VAE is trained"
    parser.add_argument("target", nargs="?", metavar="RUN", help=text)
    add_data(parser)
    text = "default: all of a folder or .npz that --data names, else train"
    parser.add_argument("--split", choices=CHOICES, help=text)
    text = "a set to compare with: a split of the same data, or other DATA (test, where the split is train by default)"
    parser.add_argument("--against", metavar="DATA2", help=text)
    text = "a column known beside the pixels: FILE.csv:NAME, NAME of --csv, or label; may be given again"
    parser.add_argument("--column", action="append", default=[], metavar="NAME", help=text)
    parser.add_argument("--csv", metavar="FILE.csv", help="where the columns are")
    parser.add_argument("--images", type=positive_int, help="only so many images, random ones (all)", metavar="N")
    add_out(parser, "FOLDER", "the report: index.html, report.json, pictures and weights.csv")
    add_json(parser)
    parser.add_argument("--seed", type=nonnegative_int, default=0, help="of permutations, clusters and training (0)")
    parser.add_argument("--minutes", type=positive, default=2.0, help="to train for, without RUN (2)")
    add_device(parser)


@command("audit", "what varies in a set of images, and where the set is biased", options)
def run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    reports.check_report(out, args.overwrite, (WEIGHTS,))
    check_json(args)
    if not (args.target or args.data):
        raise ValueError("audit: expected RUN, --data DATA or both; got neither")
    data, other, columns = _data(args, once(warn))
    model = _model(args, out)
    result = audit(model, data, against=other, columns=columns, seed=args.seed, bar=counter)
    about = machine(pick_device(args.device))
    made = page(result, data.images, None if other is None else other.images, machine=about, commands=_next(args, out))
    content = result.to_dict()
    index = reports.write_report(out, made, content, overwrite=args.overwrite, ours=(WEIGHTS,))
    write_bytes(out / WEIGHTS, weights_csv(result.weights, data.files))
    if not write_result(args, content):
        for line in lines(result):
            print(shown(line, MESSAGE))
        print(f"report: {shown(index)}, weights: {shown(out / WEIGHTS)}")


def lines(result: Audit) -> Iterator[str]:
    """An audit as lines of text."""
    count = len(result.findings)
    yield f"{count or 'no'} finding{'' if count == 1 else 's'} in {result.images} images"
    for finding in result.findings:
        yield f"  {finding.kind}: {finding.text} (p {finding.p:.3g})"
    follows = (f"{row.latent} ({row.follows or 'no property'})" for row in result.latents[: min(10, result.carrying)])
    yield f"{result.carrying} latents carry information{': ' if result.carrying else ''}{', '.join(follows)}"
    smallest = result.power.smallest
    found = "none" if smallest is None else f"{100 * smallest:.0f}/{100 * (1 - smallest):.0f} or more"
    yield f"ties with what images show that would have been found: {found}"


def _source(args: argparse.Namespace) -> dict[str, Any]:
    return data_of(args.target, data_options(args)) if args.target else named(data_options(args))


def _data(args: argparse.Namespace, tell: Tell) -> tuple[ImageData, ImageData | None, list[Column]]:
    """The images to audit, those to compare with, and the columns."""
    source = _source(args)
    whole = bool(args.data) and locate(args.data)[0].reads_all
    split = args.split or (ALL if whole else "train")
    data: Any = load_data(source, split, tell)
    say(data, args)
    columns = [_column(args, text, data) for text in args.column]
    other: Any = None
    if args.against in CHOICES:
        other = load_data(source, args.against, tell)
    elif args.against:
        other = load_data(source | named({"data": args.against}), ALL, tell)
    elif not args.split and not whole:
        with suppress(LookupError):  # data without a test split
            other = load_data(source, "test", tell)
    if other is not None:
        say(other, args)
    if args.images and args.images < len(data):
        rows = permutation(len(data), args.seed)[: args.images].sort().values
        columns = [replace(column, codes=column.codes[rows]) for column in columns]
        data = data.select(rows, f"{data.name}, any {args.images}")
        if other is not None and args.images < len(other):
            rows = permutation(len(other), args.seed)[: args.images].sort().values
            other = other.select(rows, f"{other.name}, any {args.images}")
    return data, other, columns


def _column(args: argparse.Namespace, text: str, data: ImageData) -> Column:
    if args.csv:
        return read_column(args.csv, text, data)
    if text == "label":
        return label_column(data)
    path, _, name = text.rpartition(":")
    if not path:
        raise ValueError(f"column: expected FILE.csv:NAME, NAME with --csv FILE.csv, or label; got {shown(text)}")
    return read_column(path, name, data)


def _model(args: argparse.Namespace, out: Path) -> Any:
    """The model of RUN; without it one that is trained, into FOLDER/run."""
    if args.target:
        model = open_model(args.target)
        check_audited(model)
        return model.to(pick_device(args.device))
    start(
        out / RUN,
        model="vae",
        model_options=MODEL,
        train_options=TRAINING | {"seed": args.seed, "device": args.device},
        data_options=data_options(args),
        conditional=False,
        overwrite=args.overwrite,
        minutes=args.minutes,
        bar=progress_bar,
        tell=warn,
        say=partial(print, file=beside(args), flush=True),
    )
    return open_model(out / RUN).to(pick_device(args.device))


def _next(args: argparse.Namespace, out: Path) -> list[tuple[str, str]]:
    """Commands that look closer."""
    target = shlex.quote(shown(args.target or out / RUN))
    data = f" --data {shlex.quote(shown(args.data))}" if args.data else ""
    return [
        (f"genfast traverse {target}{data} --out latents.png", "Every latent, from one image"),
        (f"genfast embed {target}{data} --out vectors.npz --neighbours near.png", "The vectors, and similar images"),
    ]
