"""Plots as SVG: as wide as a telephone, with text as text, in colours for light and dark pages."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from genfast.reports.blocks import Figure
from genfast.reports.numbers import number

WIDTH, HEIGHT = 340, 240  # units of the drawing, which are pixels on a telephone
INK = "#1d2733"  # becomes the colour of the page's text
# Between light and dark, so that they are seen on both.
COLOURS = ("#d9582b", "#3b82c4", "#2f9e6e", "#8b62c9", "#b0792a", "#c2477f", "#5f8a8b", "#8a94a0")
TONES = {"plain": COLOURS[1], "good": COLOURS[2], "bad": "#d64545", "muted": COLOURS[7]}
STYLE = {
    **{f"{name}.color": INK for name in ("text", "xtick", "ytick")},
    **{"axes.edgecolor": INK, "axes.labelcolor": INK, "axes.facecolor": "none", "axes.linewidth": 0.8},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.8},
    **{"font.size": 11, "axes.labelsize": 11, "xtick.labelsize": 10.5, "ytick.labelsize": 10.5},
    **{"legend.fontsize": 10.5, "text.parse_math": False, "svg.fonttype": "none", "path.simplify": True},
    "axes.formatter.use_mathtext": False,
}


@dataclass(frozen=True)
class Line:
    """A curve: `y` over `x`, and a band from `low` to `high`; `dashed` for a baseline, whose label stands beside it."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False
    tone: str | None = None


@dataclass(frozen=True)
class Bar:
    """A bar from 0 to `value`, with a whisker from `low` to `high`; `tone`: a key of `TONES`."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: str = "plain"
    note: str | None = None  # in the place of the value


@dataclass(frozen=True)
class Points:
    """A set of points; `notes`: words beside them."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    notes: Sequence[str] = ()
    tone: str | None = None


def lines(
    name: str,
    curves: Sequence[Line],
    *,
    alt: str,
    x: str,
    y: str,
    caption: str = "",
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    limits: tuple[float | None, float | None] = (None, None),
) -> Figure:
    """A line chart; the axes hold every point.

    Args:
        name: of the file, FILE.svg.
        curves: `Line`s.
        alt, caption: of the `Figure`.
        x, y: labels of the axes, with units.
        levels: label -> value of horizontal lines, such as baselines.
        log_x, log_y: whether an axis is logarithmic.
        limits: lowest and highest y; None: as the points need.
    Returns: Figure.
    """
    with _axes(name, alt, caption) as (axes, made):
        for colour, line in zip(_colours(curves), curves, strict=True):
            axes.plot(line.x, line.y, color=colour, label=line.label, ls="--" if line.dashed else "-")
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.25, lw=0)
        for (label, value), style in zip((levels or {}).items(), ("--", ":", "-.", (0, (1, 3))) * 8):
            axes.axhline(value, color=INK, lw=1, ls=style, label=label)
        axes.set(xlabel=x, ylabel=y)
        _scales(axes, log_x, log_y)
        axes.set_ylim(*limits)
        _legend(axes)
    return made[0]


def bars(
    name: str,
    rows: Sequence[Bar],
    *,
    alt: str,
    x: str,
    caption: str = "",
    levels: Mapping[str, float] | None = None,
    log: bool = False,
) -> Figure:
    """Horizontal bars, the first at the top, each below its label and value, with whiskers.

    Args:
        name, alt, caption: as of `lines`.
        rows: `Bar`s.
        x: label of the axis, with its unit.
        levels: label -> value of vertical lines, such as 1 for "as fast as PyTorch".
        log: whether the axis is logarithmic; a bar then begins at the lowest value.
    """
    if not rows:
        raise ValueError("bars: rows must hold at least one; got none")
    with _axes(name, alt, caption, 60 + 34 * len(rows) + (18 if levels else 0)) as (axes, made):
        places = np.arange(len(rows))
        axes.barh(places, [r.value for r in rows], 0.42, color=[TONES[r.tone] for r in rows], align="edge")
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place + 0.21] * 2, color=INK, lw=1.4, marker="|", ms=6)
            text: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": 10.5}
            axes.text(0, place - 0.06, row.label, ha="left", **text)
            axes.text(1, place - 0.06, row.note if row.note is not None else number(row.value, 3), ha="right", **text)
        for (label, value), style in zip((levels or {}).items(), ("--", ":", "-.") * 8):
            axes.axvline(value, color=INK, lw=1, ls=style, label=label)
        _scales(axes, log, False)
        axes.set(xlabel=x, yticks=[], ylim=(len(rows) - 0.4, -0.7))
        axes.spines["left"].set_visible(False)
        if levels:
            _legend(axes)
    return made[0]


def columns(
    name: str,
    categories: Sequence[str],
    groups: Mapping[str, Sequence[float]],
    *,
    alt: str,
    y: str,
    x: str = "",
    caption: str = "",
) -> Figure:
    """Upright bars side by side: a value of each group for each category, such as the share of each class.

    Args:
        name, alt, caption, x, y: as of `lines`.
        categories: below the bars.
        groups: label -> a value for each category.
    """
    with _axes(name, alt, caption) as (axes, made):
        places, width = np.arange(len(categories)), 0.8 / max(1, len(groups))
        for number_, (label, values) in enumerate(groups.items()):
            axes.bar(places - 0.4 + number_ * width, values, width, color=_colour(number_), align="edge", label=label)
        axes.set(xticks=places, xticklabels=categories, xlabel=x, ylabel=y)
        if sum(map(len, categories)) > 40:
            axes.tick_params("x", rotation=90)
        _legend(axes)
    return made[0]


def scatter(
    name: str,
    sets: Sequence[Points],
    *,
    alt: str,
    x: str,
    y: str,
    caption: str = "",
    roofs: Sequence[Line] = (),
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Points, and lines over them: with `roofs` and logarithmic axes a roofline.

    Args:
        name, alt, caption, x, y: as of `lines`.
        sets: `Points`.
        roofs: `Line`s.
        log_x, log_y: whether an axis is logarithmic.
    """
    with _axes(name, alt, caption, 280) as (axes, made):
        for roof, style in zip(roofs, ("-", "--", ":", "-.") * 8):
            axes.plot(roof.x, roof.y, color=INK, lw=1.2, ls=style, label=roof.label)
        for colour, points in zip(_colours(sets), sets, strict=True):
            axes.scatter(points.x, points.y, s=26, color=colour, label=points.label, lw=0, zorder=3)
            for note, *place in zip(points.notes, points.x, points.y):
                axes.annotate(note, place, (4, 3), textcoords="offset points", fontsize=9.5, color=colour)
        axes.set(xlabel=x, ylabel=y)
        _scales(axes, log_x, log_y)
        _legend(axes)
    return made[0]


def histogram(
    name: str,
    groups: Mapping[str, Any],
    *,
    alt: str,
    x: str,
    caption: str = "",
    bins: int = 30,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """How often values occur: the outline of a histogram of each group, all of the same bins, as shares.

    Args:
        name, alt, caption, x: as of `lines`.
        groups: label -> values [n].
        bins: how many.
        levels: label -> value of vertical lines, such as a statistic that was observed.
    """
    arrays = {label: np.asarray(values, np.float64).reshape(-1) for label, values in groups.items()}
    edges = np.histogram_bin_edges(np.concatenate([*arrays.values()]), bins)
    with _axes(name, alt, caption) as (axes, made):
        for number_, (label, values) in enumerate(arrays.items()):
            shares = np.histogram(values, edges)[0] / max(1, len(values))
            axes.stairs(shares, edges, color=_colour(number_), label=label, lw=1.8)
        for (label, value), style in zip((levels or {}).items(), ("--", ":", "-.") * 8):
            axes.axvline(value, color=INK, lw=1.2, ls=style, label=label)
        axes.set(xlabel=x, ylabel="share", ylim=(0, None))
        _legend(axes)
    return made[0]


@contextmanager
def _axes(name: str, alt: str, caption: str, height: float = HEIGHT) -> Iterator[tuple[Any, list[Figure]]]:
    """Axes to draw on, and a list which holds the `Figure` afterwards."""
    try:
        import matplotlib
        from matplotlib.figure import Figure as Drawing
    except ImportError:
        raise ImportError("plot: expected the package matplotlib; pip install matplotlib") from None
    made: list[Figure] = []
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        drawing = Drawing(figsize=(WIDTH / 72, height / 72), layout="constrained")
        yield drawing.subplots(), made
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", transparent=True)
    made.append(Figure(name, _portable(buffer.getvalue()), alt, caption))


def _portable(svg: str) -> str:
    """A plot of matplotlib with the ink and the font of the page, alone on white."""
    unused = r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<\?xml.*?\?>|<!DOCTYPE.*?>"
    svg = re.sub(unused, "", svg, flags=re.DOTALL)
    svg = re.sub(r"(font(?:-family)?:[^;\"']*)'[^;\"]*", r"\1system-ui, sans-serif", svg)
    svg = svg.replace(INK, "currentColor").strip()
    return svg.replace("<svg ", f'<svg style="color: {INK}; background: #fff; stroke-linejoin: round" ', 1)


def _colour(number_: int) -> str:
    return COLOURS[number_ % len(COLOURS)]


def _colours(parts: Sequence[Line] | Sequence[Points]) -> list[str]:
    return [TONES[part.tone] if part.tone else _colour(number_) for number_, part in enumerate(parts)]


def _scales(axes: Any, log_x: bool, log_y: bool) -> None:
    """The scales, and tick labels with separators of thousands."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    for axis, log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        low, high = sorted(axis.get_data_interval())
        if log:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        if not log or high < 30 * low:
            axis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
            axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: number(_short(value), 3))


def _short(value: float) -> float | int:
    """A value of a tick without the rounding errors of its computation."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded == math.floor(rounded) and abs(rounded) < 1e15 else rounded


def _legend(axes: Any) -> None:
    """A legend above the axes, where it hides nothing, if there is more than one thing to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        wide = max(map(len, labels)) > 20
        axes.figure.legend(handles, labels, loc="outside upper left", ncols=1 if wide else 2, handlelength=1.6)
