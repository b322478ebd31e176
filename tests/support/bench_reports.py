"""Reports of the benchmark that nobody measured."""

import numpy as np
from support.pieces import made_layer, normal
from torch import nn

from genfast.benchmarks import Limits, Report, Row, Timing, compare, differences

MACHINE = {
    **{"cpu": "a CPU", "cores": 2, "threads": 2, "isa": "x86-64-v3", "isas": ["x86-64-v3"], "cpp": "compiled"},
    **{"gpu": "none", "allocator": "glibc 2.36", "load_before": 0.1, "genfast": "0.1.0", "torch": "2.13.0"},
    **{"numpy": "2.0", "python": "3.11", "date": "2026-01-01 00:00 UTC"},
}
LIMITS = Limits(100.0, 80.0, {2**18: 60.0, 2**29: 10.0})


def timing(ms, passes=(1.0,) * 11):
    return Timing(ms, 0.95 * ms, 1.1 * ms, 100, tuple(ms * p for p in passes))


def row(name="op", ours=1.0, eager=2.0, compiled=None, suite="ops", **others):
    """A row of these medians in ms."""
    times = {"genfast": timing(ours)}
    times |= {key: timing(ms) for key, ms in (("eager", eager), ("compile", compiled)) if ms}
    about = {"flops": 2_000_000, "bytes": 1_000_000, "kept_bytes": 1000, "match": True, "difference": 1e-7}
    about |= {"calibration_ms": (1.0,) * 11} | others
    return Row(suite, name, about.pop("shape", "B=1"), "float32", about.pop("direction", "forward"), times, **about)


def report(*rows):
    return Report(MACHINE, LIMITS, tuple(rows))


def scattered(random, rows, passes=11, speed=1.0, slower=1.0, scatter=0.02):
    """A run of a machine that is `speed` times as slow as a whole and drifts, of programs that are `slower`.

    Each pass of a row has what the machine was like at that moment, which the calibration has too; a scatter of its
    own; and at times somebody in the way, which makes it slower only.
    """
    made = []
    for number in range(rows):
        moment = speed * np.exp(0.2 * np.sin(number / 9 + np.arange(passes)) + 0.05 * random.randn(passes))
        own = slower * np.exp(scatter * random.randn(passes)) * (1 + 0.5 * (random.rand(passes) < 0.05))
        ms = (3.0 + number) * moment * own
        times = {"genfast": Timing(float(np.median(ms)), float(ms.min()), float(ms.max()), 11 * passes, tuple(ms))}
        calibration = tuple(5.0 * moment * np.exp(0.003 * random.randn(passes)))
        made.append(Row("ops", f"op {number}", "B=1", "float32", "forward", times, calibration_ms=calibration))
    return report(*made)


def beside():
    """What two layers compute, not how long they take."""
    layers = {"mine": nn.ReLU(), "genfast": made_layer("BiasAct")}
    made = compare(layers, [normal(2, 4, 3, 3).requires_grad_()], seconds=0.0, passes=1)
    return [(row.direction, row.match, row.difference, row.kept_bytes) for row in made.rows]


def changes():
    old, new = (report(row(ours=ms)) for ms in (1.0, 2.0))
    return [(change.times, change.called, change.old, change.new) for change in differences(old, new)]


CALLS = {"benchmarks.compare": beside, "benchmarks.differences": changes}  # of support/public.py
