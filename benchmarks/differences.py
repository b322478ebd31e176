"""What has changed between two results: only what their scatter does not explain.

A pass over all rows gives one time for each: of its fastest call, in units of the calibration loop that ran beside it,
so that a machine that is slower as a whole has not changed anything. The interval of a row is that of its passes
without the outermost ones, a little widened. A difference is called where two intervals have no point in common. If
the passes of both runs scatter alike, whatever their distribution, that happens by chance in at most 1 of 125 rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from genfast.benchmarks.rows import Report, Row

CHANCE = 0.008  # of a false alarm in a row, from the order of the passes alone
WIDENED = 0.015  # at each end: where a program lies in memory is other in every process
FEWEST = 5  # passes


@dataclass(frozen=True)
class Interval:
    """Of the time of a row, in calls of the calibration loop."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return math.sqrt(self.low * self.high)

    def meets(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Difference:
    """A row of both results.

    Attributes:
        row: of the new one.
        times: how many times as long as before it takes, measured in calls of the calibration loop.
        called: whether that is more than scatter; None where there were too few passes to tell.
        old, new: the intervals, None of too few passes.
    """

    row: Row
    times: float
    called: bool | None
    old: Interval | None
    new: Interval | None


def differences(old: Report, new: Report) -> list[Difference]:
    """Of the rows that both results have, in the order of the new one."""
    before = {row.key: row for row in old.rows}
    return [_difference(before[row.key], row) for row in new.rows if row.key in before]


def interval(row: Row) -> Interval | None:
    """Of the passes of a row; None of too few."""
    ratios = sorted(_ratios(row))
    if len(ratios) < FEWEST:
        return None
    fast, slow = trimmed(len(ratios))
    kept = ratios[fast : len(ratios) - slow]
    return Interval(kept[0] / (1 + WIDENED), kept[-1] * (1 + WIDENED))


@cache
def trimmed(passes: int) -> tuple[int, int]:
    """How many of the fastest and of the slowest passes may be left out for `CHANCE`: as many as possible, and more of
    the slow ones, in which somebody was in the way."""
    pairs = [(fast, fast + more) for fast in range(passes // 3) for more in range(3) if 2 * fast + more < passes - 1]
    return max((pair for pair in pairs if chance(passes, *pair) <= CHANCE), key=lambda p: (sum(p), p), default=(0, 0))


def chance(passes: int, fast: int, slow: int) -> float:
    """That the intervals of two sets of passes from one distribution have no point in common.

    All orders of the 2n passes are as likely. Counted are those in which the (fast+1)-smallest of one set lies above
    the (n-slow)-smallest of the other: j of the one, at most `fast`, stand before that place, in any order, and `slow`
    of the other and the rest of the one behind it.
    """
    n = passes
    orders = sum(math.comb(n - slow - 1 + j, j) * math.comb(slow + n - j, slow) for j in range(fast + 1))
    return 2 * orders / math.comb(2 * n, n)


def _difference(old: Row, new: Row) -> Difference:
    intervals = interval(old), interval(new)
    times = _median(_ratios(new)) / _median(_ratios(old))
    before, now = intervals
    called = None if before is None or now is None else not before.meets(now)
    return Difference(new, times, called, before, now)


def _ratios(row: Row) -> list[float]:
    return [ms / beside for ms, beside in zip(row.ours.passes_ms, row.calibration_ms, strict=True)]


def _median(values: Sequence[float]) -> float:
    values = sorted(values)
    return values[len(values) // 2]
