"""Measures cases: in passes over all of them, so that what comes and goes on a machine meets every case alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from genfast._native import backends
from genfast._text import first_line, shown
from genfast.benchmarks import machine, timing
from genfast.benchmarks.matching import Match
from genfast.benchmarks.rows import COMPILED, Row, Timing

CALIBRATION = "calibration"
PASSES = 11
LEAST_TURN = 0.06  # seconds of a case in a pass


@dataclass
class Prepared:
    """A case that is ready to run.

    Attributes:
        contenders: name -> a call; genfast first.
        scales: contender -> what its call stands for, in calls of genfast; 1 if it is not there.
        missing: contender -> why there is none.
        images: of a call.
        check: compares the result with the reference; None where nothing else computes it.
        work: (FLOPs, bytes) of a call.
        kept: bytes kept for the backward pass.
    """

    contenders: dict[str, Callable[[], Any]]
    scales: Mapping[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    images: int = 0
    check: Callable[[], Match] | None = None
    work: Callable[[], tuple[int, int]] | None = None
    kept: Callable[[], int] | None = None


@dataclass(frozen=True)
class Case:
    """One computation that is measured.

    Attributes:
        suite, name, shape, dtype, direction: as of a `Row`.
        prepare: makes its arguments and contenders, in every pass anew: memory lies elsewhere each time.
    """

    suite: str
    name: str
    shape: str
    dtype: str
    direction: str
    prepare: Callable[[], Prepared]

    def __str__(self) -> str:
        return f"{self.suite} {self.name} {self.shape} {self.dtype} {self.direction}"


Tell = Callable[[str], None]


def measure(
    cases: Sequence[Case],
    *,
    seconds: float = 5.0,
    passes: int = PASSES,
    until: float | None = None,
    tell: Tell = lambda text: None,
) -> list[Row]:
    """A `Row` for each case.

    Args:
        cases: what to measure.
        seconds: of timing for a case, in all passes together.
        passes: over all cases.
        until: of `time.perf_counter`: what is done by then is given, after one pass at least.
        tell: called with a line before each case.
    """
    measured = [_Measured(case) for case in cases]
    calibrate = machine.calibration()
    for number in range(passes):
        for place, one in enumerate(measured):
            if number and until is not None and time.perf_counter() > until:
                break
            tell(f"pass {number + 1} of {passes}, {place + 1} of {len(measured)}: {one.case}")
            one.run(max(LEAST_TURN, seconds / passes), calibrate, first=number == 0)
    return [one.row() for one in measured]


class _Measured:
    """A case, and what is known of it so far."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.estimates: dict[str, float] = {}
        self.passes: dict[str, list[list[float]]] = {}
        self.about: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        self.scales: Mapping[str, float] = {}

    def run(self, seconds: float, calibrate: Callable[[], Any], first: bool) -> None:
        prepared = self.case.prepare()
        if first:
            self.about = _about(prepared)
            self.missing = dict(prepared.missing)
        if first and COMPILED in prepared.contenders:
            why = _why_not(prepared.contenders[COMPILED])
            if why is not None:
                self.missing[COMPILED] = why
        contenders = {name: run for name, run in prepared.contenders.items() if name not in self.missing}
        times = timing.turns({CALIBRATION: calibrate, **contenders}, seconds, self.estimates)
        self.scales = prepared.scales
        for name, calls in times.items():
            self.passes.setdefault(name, []).append(calls)
        del prepared, contenders
        gc.collect()  # before the next case takes as much

    def row(self) -> Row:
        case, passes = self.case, dict(self.passes)
        calibration = passes.pop(CALIBRATION)
        times = {name: Timing.of(calls, self.scales.get(name, 1.0)) for name, calls in passes.items()}
        return Row(
            case.suite,
            case.name,
            case.shape,
            case.dtype,
            case.direction,
            times,
            self.missing,
            calibration_ms=tuple(1e3 * min(calls) for calls in calibration),
            **self.about,
        )


def _about(prepared: Prepared) -> dict[str, Any]:
    """What is found out once."""
    flops, moved = prepared.work() if prepared.work else (0, 0)
    match = prepared.check() if prepared.check else None
    return {
        "flops": flops,
        "bytes": moved,
        "kept_bytes": prepared.kept() if prepared.kept else None,
        "images": prepared.images,
        "match": match.matches if match else None,
        "difference": match.difference if match else None,
    }


def _why_not(compiled: Callable[[], Any]) -> str | None:
    """The reason why torch.compile cannot serve, as without a compiler; None if it can. Its first call compiles."""
    try:
        compiled()
    except Exception as error:  # of torch.compile: many kinds, of several packages
        return shown(f"{type(error).__name__}: {first_line(error)}", 200)
    return None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of a function for the shapes that it is called with."""
    return torch.compile(function, dynamic=False)


def many_shapes() -> Any:
    """A context in which torch.compile keeps code for as many shapes and settings of a function as there are cases."""
    config: Any = torch._dynamo.config
    return config.patch(recompile_limit=256)


def on_reference(run: Callable[[], Any]) -> Callable[[], Any]:
    """The call in plain PyTorch, where genfast has kernels of its own."""

    def run_on_reference() -> Any:
        with backends.reference_only():
            return run()

    return run_on_reference
