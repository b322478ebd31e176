"""What a measurement gives: a row for each case, and a report of rows, machine and limits; and both as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genfast._text import shown
from genfast.io import read_json

OURS, EAGER, COMPILED = "genfast", "eager", "compile"
LAYOUT = 1  # of the JSON
KIND = "genfast bench"
MOST_PASSES = 100


@dataclass(frozen=True)
class Timing:
    """How long a call takes, in ms.

    Attributes:
        median_ms, low_ms, high_ms: median and quartiles of all calls.
        calls: how many there were.
        passes_ms: of each pass over all rows, its fastest call.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    calls: int
    passes_ms: tuple[float, ...]

    @classmethod
    def of(cls, passes: Sequence[Sequence[float]], scale: float = 1.0) -> Timing:
        """Of the seconds of the calls of each pass; `scale`: what a call stands for, in calls."""
        calls = [seconds for part in passes for seconds in part]
        low, median, high = (1e3 * scale * float(q) for q in np.quantile(calls, (0.25, 0.5, 0.75)))
        return cls(median, low, high, len(calls), tuple(1e3 * scale * min(part) for part in passes))


@dataclass(frozen=True)
class Limits:
    """What the machine reached in this run on the same threads; None where it was not measured.

    Attributes:
        fma_gflops: fused multiply-adds in registers, two FLOPs each, by the C++ kernels' own loop.
        sgemm_gflops: torch's float32 matrix product.
        copies_gbytes: bytes that a copy reads and writes -> how many of them in a second: what is small stays in a
            cache.
    """

    fma_gflops: float | None
    sgemm_gflops: float
    copies_gbytes: Mapping[int, float]

    @property
    def copy_gbytes(self) -> float:
        """Of the largest copy."""
        return self.copies_gbytes[max(self.copies_gbytes)]

    def gbytes(self, nbytes: float) -> float:
        """Of the largest copy that is no larger, or of the smallest."""
        fitting = [size for size in self.copies_gbytes if size <= nbytes] or [min(self.copies_gbytes)]
        return self.copies_gbytes[max(fitting)]

    @property
    def gflops(self) -> float:
        """The rate that no kernel exceeds."""
        return max(self.fma_gflops or 0.0, self.sgemm_gflops)

    def best_ms(self, flops: float, nbytes: float) -> float:
        """The time of so much arithmetic or of so much memory, whichever takes longer."""
        return max(flops / self.gflops, nbytes / self.gbytes(nbytes)) / 1e6


@dataclass(frozen=True)
class Row:
    """A case: one computation, by genfast and by others.

    Attributes:
        suite, name, shape, dtype, direction: which computation; together they are unlike those of any other row.
        times: contender -> Timing; "genfast" first, then as far as there are any "eager", "compile" and others.
        missing: contender -> why it was not measured.
        flops, bytes: of a call at least: the arithmetic of the reference, and what is read and written once.
        kept_bytes: memory that the forward pass of genfast keeps for the backward pass; None without one.
        images: of a call; 0 where there are none.
        match: whether the result was that of the reference; None where nothing else computes it.
        difference: the largest from the reference, relative to its largest value.
        calibration_ms: of each pass, the fastest call of the loop that is measured beside the contenders.
    """

    suite: str
    name: str
    shape: str
    dtype: str
    direction: str
    times: Mapping[str, Timing]
    missing: Mapping[str, str] = field(default_factory=dict)
    flops: int = 0
    bytes: int = 0
    kept_bytes: int | None = None
    images: int = 0
    match: bool | None = None
    difference: float | None = None
    calibration_ms: tuple[float, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return self.suite, self.name, self.shape, self.dtype, self.direction

    @property
    def ours(self) -> Timing:
        return next(iter(self.times.values()))

    @property
    def images_per_s(self) -> float | None:
        return self.images / self.ours.median_ms * 1e3 if self.images else None

    def times_of(self, contender: str) -> float | None:
        """How many times as long as genfast a contender takes; None if it was not measured."""
        return self.times[contender].median_ms / self.ours.median_ms if contender in self.times else None

    def share(self, limits: Limits) -> float | None:
        """The time that the machine's limits allow, of the time taken; None where the work is not known."""
        return limits.best_ms(self.flops, self.bytes) / self.ours.median_ms if self.flops or self.bytes else None

    def is_lost(self) -> bool:
        """Whether another way to compute it is faster."""
        return any((self.times_of(name) or math.inf) < 1 for name in (EAGER, COMPILED))

    def worst(self) -> float:
        """The smallest of the ratios to the others; infinite without others."""
        return min((self.times_of(name) or math.inf for name in (EAGER, COMPILED)), default=math.inf)


def geometric_mean(ratios: Iterable[float]) -> float | None:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else None


@dataclass(frozen=True)
class Summary:
    """Of rows: geometric means of the times of the others, the rows that are lost, the worst of them first, those whose
    result was not that of the reference, and how many rows there are."""

    eager: float | None
    compiled: float | None
    lost: tuple[Row, ...]
    wrong: tuple[Row, ...]
    rows: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Summary:
        eager, compiled = (
            geometric_mean(ratio for row in rows if (ratio := row.times_of(name)) is not None)
            for name in (EAGER, COMPILED)
        )
        lost = sorted((row for row in rows if row.is_lost()), key=Row.worst)
        return cls(eager, compiled, tuple(lost), tuple(row for row in rows if row.match is False), len(rows))


@dataclass(frozen=True)
class Report:
    """A run of the benchmark.

    Attributes:
        machine: what it was measured on, as `genfast.benchmarks.machine.describe` tells it.
        limits: what that machine reached.
        rows: of all suites.
    """

    machine: Mapping[str, Any]
    limits: Limits
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as values of JSON; `read` is the way back."""
        return {"kind": KIND, "layout": LAYOUT, **dataclasses.asdict(self)}

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """A report that `genfast bench --json` wrote.

        Raises: FileNotFoundError; ValueError for what is none.
        """
        return _report(read_json(path, "bench"), path)


def _report(value: dict[str, Any], path: str | Path) -> Report:
    if value.get("kind") != KIND or value.get("layout") != LAYOUT:
        got = value.get("kind"), value.get("layout")
        raise ValueError(f"bench: expected a result of genfast bench of layout {LAYOUT} in {shown(path)}; got {got}")
    try:
        machine, limits = _object(value["machine"], "machine"), _limits(_object(value["limits"], "limits"))
        rows = [_row(_object(row, f"rows[{i}]")) for i, row in enumerate(_list(value["rows"], "rows"))]
    except KeyError as error:
        raise ValueError(f"bench: expected {error} in {shown(path)}; got none") from None
    except _Unfit as error:
        raise ValueError(f"bench: expected {error} in {shown(path)}") from None
    keys = {row.key for row in rows}
    if len(keys) < len(rows):
        raise ValueError(f"bench: expected a row for each case in {shown(path)}; got one twice")
    return Report(machine, limits, tuple(rows))


class _Unfit(ValueError):
    """What is wrong with a part of a file: "a number ...; got ..."."""


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unfit(f"an object as {name}; got {type(value).__name__}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Unfit(f"a list as {name}; got {type(value).__name__}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _Unfit(f"a text as {name}; got {type(value).__name__}")
    return value


def _number(value: Any, name: str, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e18:
        raise _Unfit(f"a number of at least {least:g} as {name}; got {shown(value)}")
    return value


def _time(value: Any, name: str) -> float:
    return _number(value, name, 1e-9)


def _limits(value: dict[str, Any]) -> Limits:
    fma = value["fma_gflops"]
    copies = {
        _size(size): _time(rate, "copies_gbytes")
        for size, rate in _object(value["copies_gbytes"], "copies_gbytes").items()
    }
    if not copies:
        raise _Unfit("a rate as copies_gbytes; got none")
    return Limits(
        None if fma is None else _time(fma, "fma_gflops"), _time(value["sgemm_gflops"], "sgemm_gflops"), copies
    )


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _Unfit(f"whole numbers of bytes in copies_gbytes; got {shown(text)}")
    return int(text)


def _timing(value: dict[str, Any]) -> Timing:
    low, median, high = (_time(value[name], name) for name in ("low_ms", "median_ms", "high_ms"))
    passes = tuple(_time(ms, "passes_ms") for ms in _list(value["passes_ms"], "passes_ms"))
    return Timing(median, low, high, int(_number(value["calls"], "calls", 1)), passes)


def _row(value: dict[str, Any]) -> Row:
    suite, name, shape, dtype, direction = (
        _text(value[word], word) for word in ("suite", "name", "shape", "dtype", "direction")
    )
    times = {name: _timing(_object(t, "times")) for name, t in _object(value["times"], "times").items()}
    if not times:
        raise _Unfit("a time in each row; got none")
    calibration = tuple(_time(ms, "calibration_ms") for ms in _list(value["calibration_ms"], "calibration_ms"))
    if not 1 <= len(calibration) <= MOST_PASSES:
        raise _Unfit(f"1 to {MOST_PASSES} passes as calibration_ms; got {len(calibration)}")
    if any(len(timing.passes_ms) != len(calibration) for timing in times.values()):
        raise _Unfit(f"as many passes_ms as calibration_ms, {len(calibration)}; got others")
    match, kept, difference = value["match"], value["kept_bytes"], value["difference"]
    if match is not None and not isinstance(match, bool):
        raise _Unfit(f"true, false or null as match; got {shown(match)}")
    return Row(
        suite,
        name,
        shape,
        dtype,
        direction,
        times=times,
        missing={name: _text(why, "missing") for name, why in _object(value["missing"], "missing").items()},
        flops=int(_number(value["flops"], "flops")),
        bytes=int(_number(value["bytes"], "bytes")),
        kept_bytes=None if kept is None else int(_number(kept, "kept_bytes")),
        images=int(_number(value["images"], "images")),
        match=match,
        difference=None if difference is None else _number(difference, "difference"),
        calibration_ms=calibration,
    )
