"""A difference between two results is called where there is one, and by chance in at most 1 of 100 rows."""

import itertools

import numpy as np
import pytest
from support.bench_reports import report, row, scattered

from genfast.benchmarks import differences
from genfast.benchmarks.differences import CHANCE, FEWEST, chance, interval, trimmed
from genfast.benchmarks.runner import PASSES

ROWS = 1000


def called(old, new):
    found = differences(old, new)
    assert len(found) == ROWS
    return np.mean([difference.called for difference in found])


@pytest.mark.parametrize("passes, fast, slow", [(3, 0, 0), (5, 0, 0), (5, 0, 1), (6, 1, 1), (7, 1, 2), (7, 0, 2)])
def test_chance_is_the_share_of_all_orders(passes, fast, slow):
    orders = list(itertools.combinations(range(2 * passes), passes))
    apart = 0
    for lower in orders:
        upper = [place for place in range(2 * passes) if place not in lower]
        apart += upper[fast] > lower[passes - slow - 1]
    assert chance(passes, fast, slow) == pytest.approx(2 * apart / len(orders))


def test_what_is_left_out_keeps_the_chance():
    for passes in range(FEWEST, 30):
        fast, slow = trimmed(passes)
        assert chance(passes, fast, slow) <= CHANCE and fast <= slow < passes - fast - 1
    assert [trimmed(passes) for passes in (5, 9, PASSES)] == [(0, 0), (1, 1), (1, 3)]


@pytest.mark.parametrize("scatter", [0.005, 0.02, 0.1])
def test_two_runs_of_the_same_have_no_difference(scatter):
    """On a machine that drifts, and is half as fast in the second run."""
    random = np.random.RandomState(0)
    alarms = called(scattered(random, ROWS, scatter=scatter), scattered(random, ROWS, speed=2.0, scatter=scatter))
    assert alarms <= 0.01


@pytest.mark.parametrize("slower", [1.1, 1 / 1.1])
@pytest.mark.parametrize("speed", [1.0, 1.3, 0.7])
def test_ten_per_cent_are_found(slower, speed):
    random = np.random.RandomState(1)
    old, new = scattered(random, ROWS), scattered(random, ROWS, speed=speed, slower=slower)
    assert called(old, new) >= 0.95
    found = differences(old, new)
    assert np.median([difference.times for difference in found]) == pytest.approx(slower, rel=0.01)


def test_more_scatter_hides_it_and_invents_nothing():
    random = np.random.RandomState(2)
    found = differences(scattered(random, ROWS, scatter=0.15), scattered(random, ROWS, slower=1.1, scatter=0.15))
    wrong = [difference for difference in found if difference.called and difference.times < 1]
    assert np.mean([difference.called for difference in found]) < 0.5 and len(wrong) <= 0.01 * ROWS


def test_too_few_passes_tell_nothing():
    few = FEWEST - 1
    random = np.random.RandomState(3)
    old, new = scattered(random, 3, passes=few), scattered(random, 3, passes=few, slower=2.0)
    assert all(difference.called is None for difference in differences(old, new))
    assert interval(old.rows[0]) is None and interval(scattered(random, 1, passes=FEWEST).rows[0])


def test_rows_are_told_apart_by_all_that_they_are():
    old = report(row("a"), row("a", direction="draw"), row("b", shape="B=2"))
    new = report(row("a", ours=2.0), row("b"), row("c"))
    (difference,) = differences(old, new)
    assert difference.row.key == ("ops", "a", "B=1", "float32", "forward")
    assert difference.called and difference.times == pytest.approx(2.0)
