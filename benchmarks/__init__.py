"""Benchmarks: what genfast is measured against, and how; `genfast bench` runs them on any machine."""

from genfast.benchmarks.beside import Compared, compare
from genfast.benchmarks.differences import Difference, Interval, differences
from genfast.benchmarks.rows import Limits, Report, Row, Summary, Timing

__all__ = [
    "Compared",
    "Difference",
    "Interval",
    "Limits",
    "Report",
    "Row",
    "Summary",
    "Timing",
    "compare",
    "differences",
]
