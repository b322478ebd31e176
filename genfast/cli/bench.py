"""`genfast bench`: how fast genfast is on this machine, beside plain PyTorch, and whether it is right."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genfast._text import shown
from genfast.benchmarks import machine
from genfast.benchmarks.differences import Difference, differences
from genfast.benchmarks.page import page
from genfast.benchmarks.rows import COMPILED, EAGER, Limits, Report, Row, Summary
from genfast.benchmarks.runner import PASSES, Case, many_shapes, measure
from genfast.benchmarks.suites import SUITES
from genfast.cli._command import command
from genfast.cli.options import out_paths, positive_int, warn
from genfast.cli.progress import counter
from genfast.io import write_bytes, write_json
from genfast.reports import html

AGAINST = (EAGER, COMPILED)
QUICK_SECONDS, QUICK_PASSES, QUICK_CASE = 65.0, 5, 0.3  # when the last pass begins no case more; of a case
SECONDS = 5.0  # of a case
HEADER = ("ms (quartiles)", "eager", "compile", "limit", "kept", "images/s", "match")


def options(parser: argparse.ArgumentParser) -> None:
    suites = "; ".join(f"{name} ({suite.help})" for name, suite in SUITES.items())
    parser.add_argument("suite", nargs="?", choices=list(SUITES), metavar="SUITE", help=f"{suites}; all if not given")
    parser.add_argument("--quick", action="store_true", help="few small cases, beside eager alone: 90 seconds")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose suite, name and shape contain this")
    text = "what to measure beside genfast: eager, compile, or both with a comma (both; with --quick eager)"
    parser.add_argument("--against", type=_against, metavar="LIST", help=text)
    parser.add_argument("--threads", type=positive_int, metavar="N", help="cores and threads to keep to (torch's own)")
    parser.add_argument("--json", metavar="FILE", help="write the result, which --compare reads")
    parser.add_argument("--html", metavar="FILE", help="write the result as one page, with figures")
    parser.add_argument("--compare", metavar="OLD.json", help="tell what has changed since that result")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--anyway", action="store_true", help="measure on a machine that is busy, or with more threads")


def _against(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(AGAINST):
        raise argparse.ArgumentTypeError(f"expected {' or '.join(AGAINST)}, or both with a comma; got {text}")
    return names


@command("bench", "how fast genfast is on this machine, beside plain PyTorch", options)
def run(args: argparse.Namespace) -> None:
    started = time.perf_counter()
    old = Report.read(args.compare) if args.compare else None
    out_paths(args, [Path(path) for path in (args.json, args.html) if path])
    cases = _cases(args)
    threads = args.threads or torch.get_num_threads()
    if not args.anyway and (why := machine.refusal(threads)):
        raise RuntimeError(why)
    about = machine.describe(machine.usable_cores(), threads)
    machine.keep_to(threads)
    limits = machine.limits(0.5 if args.quick else 2.0)
    for line in machine_lines(about, limits):
        print(line, flush=True)
    report = Report(about, limits, tuple(_measured(args, cases, started)))
    changes = differences(old, report) if old else []
    for line in (*table(report), *summary_lines(report), *(change_lines(old, report, changes) if old else ())):
        print(line)
    if args.json:
        write_json(args.json, report.as_json())
    if args.html:
        write_bytes(args.html, html(page(report, changes)).encode())


def _cases(args: argparse.Namespace) -> list[Case]:
    against = args.against or (AGAINST[:1] if args.quick else AGAINST)
    cases = []
    for name in [args.suite] if args.suite else SUITES:
        found = SUITES[name].cases(args.quick, against)
        if not found:
            warn(f"bench: {name} is left out: it needs the C++ kernels (genfast backends says why there are none)")
        cases += [case for case in found if args.only in str(case)]
    if not cases:
        raise ValueError(f"bench: --only must be part of the name of a case; got {args.only!r}")
    return cases


def _measured(args: argparse.Namespace, cases: Sequence[Case], started: float) -> list[Row]:
    neighbours = machine.Neighbours()
    passes = QUICK_PASSES if args.quick else PASSES
    with many_shapes(), counter(passes * len(cases), "case") as advance:
        rows = measure(
            cases,
            seconds=QUICK_CASE if args.quick else SECONDS,
            passes=passes,
            until=started + QUICK_SECONDS if args.quick else None,
            tell=lambda text: advance(1),
        )
    others = neighbours.cores()
    if others is not None and others > machine.AT_REST:
        warn(f"bench: others kept {others:.1f} cores busy while this was measured: the times are not those of rest")
    return rows


def machine_lines(about: Mapping[str, Any], limits: Limits) -> Iterator[str]:
    """What was measured on, and what it reaches."""
    isas = f"{about['isa']} of {', '.join(about['isas'])}" if about["isas"] else f"none ({about['cpp']})"
    yield f"CPU          {about['cpu']}, {about['threads']} threads on {about['cores']} cores"
    yield f"isa          {isas}"
    yield f"GPU          {about['gpu']}"
    yield f"software     genfast {about['genfast']}, torch {about['torch']}, Python {about['python']}"
    yield f"allocator    {about['allocator']}"
    yield f"load         {about['load_before']}"
    fma = f"{limits.fma_gflops:,.0f} GFLOP/s" if limits.fma_gflops else "not measured without the C++ kernels"
    copies = ", ".join(f"{rate:,.0f} GB/s of {_bytes(size)}" for size, rate in limits.copies_gbytes.items())
    yield f"limits       multiply-adds {fma}; torch's sgemm {limits.sgemm_gflops:,.0f} GFLOP/s"
    yield f"             copies {copies}"


def table(report: Report) -> Iterator[str]:
    """A line for each row, below the name of its suite."""
    lines = [(row, _cells(row, report.limits)) for row in report.rows]
    heads = ("", *HEADER)
    widths = [max(len(head), *(len(cells[i]) for _, cells in lines)) for i, head in enumerate(heads)]
    for suite in dict.fromkeys(row.suite for row in report.rows):
        yield ""
        yield _line((suite, *HEADER), widths)
        yield from (_line(cells, widths) for row, cells in lines if row.suite == suite)


def summary_lines(report: Report) -> Iterator[str]:
    """Geometric means, what is lost, and what is wrong."""
    summary = Summary.of(report.rows)
    yield ""
    for name, mean in (("eager PyTorch", summary.eager), ("torch.compile", summary.compiled)):
        if mean is not None:
            yield f"{name} takes {mean:.2f} times as long as genfast (geometric mean)"
    yield f"genfast is slower in {len(summary.lost)} of {summary.rows} rows"
    yield from (f"  {row.worst():.2f}x  {title(row)}" for row in summary.lost[:5])
    for row in summary.wrong:
        yield f"WRONG: {title(row)}: the result differs from the reference by {row.difference}"


def change_lines(old: Report, new: Report, changes: Sequence[Difference]) -> Iterator[str]:
    """What has changed, the worst first."""
    for name in ("cpu", "threads", "isa", "torch"):
        if old.machine.get(name) != new.machine[name]:
            yield f"other {name}: {shown(old.machine.get(name))} before, {new.machine[name]} now"
    called = sorted((change for change in changes if change.called), key=lambda change: -change.times)
    untold = sum(change.called is None for change in changes)
    yield f"{len(called)} of {len(changes)} rows have changed by more than their scatter"
    yield from (f"  {change.times:.2f} times as long  {title(change.row)}" for change in called)
    if untold:
        yield f"{untold} rows had too few passes to tell: measure longer, without --quick"
    if missing := len(new.rows) - len(changes):
        yield f"{missing} rows were not measured before"


def title(row: Row) -> str:
    """What tells a row from the others of its suite."""
    return f"{row.name} {row.shape} {row.dtype} {row.direction}"


def _cells(row: Row, limits: Limits) -> tuple[str, ...]:
    time, share = row.ours, row.share(limits)
    match = "" if row.match is None else f"{'yes' if row.match else 'NO'} {row.difference:.0e}"
    return (
        f"  {title(row)}",
        f"{time.median_ms:.3g} ({time.low_ms:.3g}-{time.high_ms:.3g})",
        _times(row, EAGER),
        _times(row, COMPILED),
        "" if share is None else f"{share:.0%}",
        "" if row.kept_bytes is None else _bytes(row.kept_bytes),
        "" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
        match,
    )


def _times(row: Row, contender: str) -> str:
    times = row.times_of(contender)
    return "" if times is None else f"{times:,.0f}x" if times >= 100 else f"{times:.2f}x"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths)))
    return "  ".join([first, *others]).rstrip()
