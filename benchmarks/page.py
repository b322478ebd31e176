"""A result as one page: bars beside plain PyTorch, a roofline, images a second against the batch, and every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genfast.benchmarks.differences import Difference
from genfast.benchmarks.rows import COMPILED, EAGER, Limits, Report, Row, Summary
from genfast.reports import Bar, Block, Figure, Line, Mark, Page, Points, Section, Table, bars, lines, scatter
from genfast.reports.blocks import Cell
from genfast.reports.numbers import number

NAMES = {EAGER: "eager PyTorch", COMPILED: "torch.compile"}
COLUMNS = ("case", "ms", "quartiles", "eager", "compile", "of the limit", "kept, MB", "images/s", "match")
MOST_BARS = 60  # of a figure
LONGEST = 38  # characters of the name of a bar
NOTES = (
    "Times are medians of calls in turns. A ratio above 1 says how many times as long as genfast the other takes; its "
    "whisker goes from quartile to quartile of both.",
    "The limit of a row is the time that its arithmetic takes at the rate of multiply-adds, or its memory at that "
    "of a copy of that size, whichever is longer; both were measured in the same run. The arithmetic is that of the "
    "reference: products, and one operation for each element of everything else.",
    "Match: the result was compared with the reference in this run; the number is the largest difference, relative to "
    "the largest value.",
)


def page(report: Report, changes: Sequence[Difference] = ()) -> Page:
    """The page of a report, and of what has changed since another."""
    summary, machine = Summary.of(report.rows), report.machine
    means = ((summary.eager, "times as long by eager PyTorch"), (summary.compiled, "times as long by torch.compile"))
    facts: list[tuple[Cell, str]] = [
        (number(mean, 3), f"{words}, geometric mean") for mean, words in means if mean is not None
    ]
    facts += [(len(summary.lost), f"of {summary.rows} rows lost"), (len(summary.wrong), "results that are not right")]
    sections = [Section(title, blocks) for title, blocks in _sections(report, changes) if blocks]
    return Page(
        "genfast bench",
        f"{machine['cpu']}: {machine['threads']} threads, {machine['cores']} cores, instruction set {machine['isa']}.",
        sections,
        facts=facts,
        commands=(
            ("genfast bench --json FILE", "the same as data"),
            ("genfast bench --compare FILE", "what has changed since"),
        ),
        machine={**machine, "device": machine["cpu"]},
        notes=NOTES,
    )


def _sections(report: Report, changes: Sequence[Difference]) -> Iterator[tuple[str, list[Block]]]:
    if changes:
        yield "What has changed", [_changes(changes)]
    for suite in dict.fromkeys(row.suite for row in report.rows):
        rows = [row for row in report.rows if row.suite == suite]
        drawn: list[Block] = [figure for name in NAMES if (figure := _bars(suite, name, rows))]
        if suite == "sampling" and len({row.images for row in rows}) > 1:
            drawn.append(_batches(rows))
        yield suite.capitalize(), [*drawn, _table(rows, report.limits)]
    roofline = _roofline(report)
    yield "Arithmetic and memory", [roofline] if roofline else []


def _bars(suite: str, contender: str, rows: Sequence[Row]) -> Figure | None:
    """How many times as long another takes, losses in red, worst first."""
    found = sorted((row for row in rows if contender in row.times), key=lambda row: row.times_of(contender) or 0.0)
    if not found:
        return None
    made, lost = [], 0
    for row in found[:MOST_BARS]:
        other, ours, ratio = row.times[contender], row.ours, row.times_of(contender) or 0.0
        lost += ratio < 1
        low, high = other.low_ms / ours.high_ms, other.high_ms / ours.low_ms
        tone = "bad" if ratio < 1 else "good"
        made.append(Bar(_short(row), ratio, low, high, tone, f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.2f}x"))
    words = f"{suite} beside {NAMES[contender]}: times as long as genfast"
    shown = f"the {MOST_BARS} smallest of {len(found)}" if len(found) > MOST_BARS else f"{len(found)} rows"
    return bars(
        f"{suite}-{contender}",
        made,
        alt=f"{words}, {shown}; {lost} below 1",
        x="times as long as genfast",
        caption=f"{words}. Below 1, in red, genfast is slower. → forward, ⇄ forward and backward.",
        levels={"as fast": 1.0},
        log=True,
    )


def _batches(rows: Sequence[Row]) -> Figure:
    curves = []
    for name in dict.fromkeys(row.name for row in rows):
        same = sorted((row for row in rows if row.name == name), key=lambda row: row.images)
        batches = [row.images for row in same]
        rates = [row.images_per_s or 0.0 for row in same]
        low, high = ([1e3 * row.images / ms for row, ms in zip(same, found)] for found in _quartiles(same))
        curves.append(Line(name, batches, rates, low, high))
    words = "Images a second against the images of a batch"
    return lines(
        "batches", curves, alt=words, x="images of a batch", y="images/s", caption=f"{words}.", log_x=True, log_y=True
    )


def _quartiles(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """The slower and the faster times."""
    return [row.ours.high_ms for row in rows], [row.ours.low_ms for row in rows]


def _roofline(report: Report) -> Figure | None:
    """What was achieved against arithmetic intensity, below what the machine allows."""
    rows, limits = [row for row in report.rows if row.flops and row.bytes], report.limits
    if not rows:
        return None
    sets = []
    for suite in dict.fromkeys(row.suite for row in rows):
        same = [row for row in rows if row.suite == suite]
        x, y = [row.flops / row.bytes for row in same], [row.flops / row.ours.median_ms / 1e6 for row in same]
        sets.append(Points(suite, x, y))
    intensities = [row.flops / row.bytes for row in rows]
    ends = min(intensities) / 2, max(*intensities, limits.gflops / limits.copy_gbytes) * 2
    roofs = []
    for label, gbytes in (("memory", limits.copy_gbytes), ("cache", max(limits.copies_gbytes.values()))):
        corner = limits.gflops / gbytes
        x = [ends[0], *([corner] if ends[0] < corner < ends[1] else []), ends[1]]
        roofs.append(Line(f"limit, data in {label}", x, [min(limits.gflops, gbytes * at) for at in x]))
    words = "GFLOP/s achieved against FLOPs for each byte that must be read or written"
    return scatter(
        "roofline",
        sets,
        alt=f"{words}, below the limits of the machine",
        x="FLOPs a byte",
        y="GFLOP/s",
        caption=f"{words}. The flat part is the rate of multiply-adds, the slope that of a copy.",
        roofs=roofs,
        log_x=True,
        log_y=True,
    )


def _table(rows: Sequence[Row], limits: Limits) -> Table:
    return Table(
        COLUMNS, [_cells(row, limits) for row in rows], "Every row; times of eager and compile over genfast's."
    )


def _cells(row: Row, limits: Limits) -> list[Cell]:
    time, share = row.ours, row.share(limits)
    match = None if row.match is None else Mark(f"{row.difference:.0e}", "good" if row.match else "bad")
    return [
        _label(row),
        f"{time.median_ms:.3g}",
        f"{time.low_ms:.3g} to {time.high_ms:.3g}",
        *(_ratio(row.times_of(name)) for name in NAMES),
        None if share is None else f"{share:.0%}",
        None if row.kept_bytes is None else f"{row.kept_bytes / 1e6:.3g}",
        None if row.images_per_s is None else round(row.images_per_s),
        match,
    ]


def _ratio(times: float | None) -> Mark | None:
    return None if times is None else Mark(f"{times:.2f}x", "good" if times >= 1 else "bad")


def _changes(changes: Sequence[Difference]) -> Table:
    called = [change for change in changes if change.called]
    rows: list[list[Cell]] = [
        [_label(change.row), Mark(f"{change.times:.2f}x", "bad" if change.times > 1 else "good")]
        for change in sorted(called, key=lambda change: -change.times)
    ]
    caption = f"{len(called)} of {len(changes)} rows differ by more than their scatter."
    return Table(("case", "times as long as before"), rows, caption)


def _short(row: Row) -> str:
    """What fits above a bar on a telephone."""
    text = f"{row.name} {row.shape}".strip()
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return f"{text} {'⇄' if row.direction == 'forward+backward' else '→'}"


def _label(row: Row) -> str:
    return f"{row.name} {row.shape} {row.dtype} {row.direction}".replace("forward+backward", "both ways")
