"""`genfast compare`: families of models on the same data, with the same budget, in one report."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from genfast import reports
from genfast._text import shown
from genfast.cli._command import command
from genfast.cli.options import add_data, add_json, beside, check_json, data_options, positive_int, warn, write_result
from genfast.cli.progress import progress_bar
from genfast.train.comparison import FAMILIES, Comparison, compare, compare_runs
from genfast.train.comparison.families import TITLES

UNITS = {"s": 1 / 60, "m": 1.0, "h": 60.0, "": 1.0}


def minutes(text: str) -> float:
    """A time such as 90s, 10m or 2h, in minutes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m or 2h; got {text}")
    return float(found[1]) * UNITS[found[2]]


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="finished runs to compare; none: families are trained on --data")
    add_data(parser)
    add("--out", required=True, metavar="FOLDER", help="where the report goes, and the runs that are trained")
    add("--overwrite", action="store_true", help="replace the report, the runs and the file of --json")
    text = "time of the CPU, of all threads together, to train each model: 90s, 10m, 2h (10m)"
    add("--budget", type=minutes, default=10.0, metavar="TIME", help=text)
    text = f"those to train: {', '.join(family.model for family in FAMILIES)} (all that fit the data)"
    add("--families", nargs="+", choices=list(TITLES), metavar="MODEL", help=text)
    add("--seeds", type=positive_int, default=1, metavar="N", help="trainings of each family (1)")
    add("--seed", type=int, default=0, help="the first of their seeds, and that of the measures (0)")
    add("--threads", type=positive_int, help="threads of the CPU (default: torch's choice)")
    add_json(parser)


@command("compare", "train families of models with one budget, and compare them in a report", options)
def run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    if args.threads:
        torch.set_num_threads(args.threads)
    reports.check_report(out, args.overwrite)
    check_json(args)

    def say(text: str) -> None:
        print(shown(text, 2000), file=beside(args), flush=True)

    if args.runs:
        made = compare_runs(args.runs, data_options(args), seed=args.seed, tell=warn, say=say)
    else:
        settings: Any = {"minutes": args.budget, "seeds": args.seeds, "seed": args.seed, "overwrite": args.overwrite}
        chosen = [family for family in FAMILIES if not args.families or family.model in args.families]
        made = compare(data_options(args), out, **settings, families=chosen, bar=progress_bar, tell=warn, say=say)
    page = reports.comparison_page(made, str(out))
    index = reports.write_report(out, page, made.result, overwrite=args.overwrite)
    if not write_result(args, made.result):
        for line in lines(made.result):
            print(line)
        print(f"report: {shown(index)}")


def lines(result: Comparison) -> Iterator[str]:
    """A comparison as lines of text."""
    yield f"{'':<24}{'bits/value':>11}{'file':>8}{'detail':>8}{'FD':>9}{'images/s':>10}  faults"
    for one in result.models:
        detail = one.sharpness.detail.value if one.sharpness else None
        rate = one.images_per_second.value if one.images_per_second else None
        cells = (one.bits_per_dim, one.file_bits, detail, one.distances.get("Frechet distance"))
        texts = [reports.number(value, 3) for value in cells]
        found = ", ".join(one.faults.found) if one.faults and one.faults.found else "none found"
        name = shown(reports.label(one, result), 24)
        yield f"{name:<24}{texts[0]:>11}{texts[1]:>8}{texts[2]:>8}{texts[3]:>9}{reports.number(rate, 3):>10}  {found}"
    yield ""
    for claim in result.claims:
        value = "" if claim.value is None else f" {claim.value}"
        yield f"{claim.verdict:<10} {claim.sentence}"
        yield f"{'':<10}{value} {claim.how}"
    for title, reason in result.left_out.items():
        yield f"left out: {title}: {shown(reason)}"
