"""Medians of interleaved repetitions: noise that comes and goes hits every contender alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

import numpy

LEAST_ROUNDS, MOST_ROUNDS, SLOW_ROUNDS, SLOW_SECONDS, LONG_SECONDS = 7, 100, 3, 1.0, 5.0
TURN_SECONDS, MOST_CALLS = 0.02, 20


def compare(contenders: Mapping[str, Callable], seconds: float, few: Collection[str] = ()) -> dict[str, dict]:
    """Time `{name: callable}` for about `seconds` in all, in turns.

    A turn starts with an untimed call, which finds the caches and threads as the contender before left them, and times
    further calls for a fiftieth of a second, at least one. A contender slower than a second gets three turns, without
    the untimed call; so many turns get those named in `few`. One slower than five seconds is timed from its first call
    on: two calls, one if it is named in `few`. Returns {name: {median_ms, q20_ms, q80_ms, calls}}.
    """
    times, estimates, rounds = {}, {}, {}
    for name, run in contenders.items():
        first = once(run)
        is_long = first > LONG_SECONDS
        times[name] = [first] if is_long else []
        estimates[name] = first if is_long else min(once(run), once(run))
        rounds[name] = SLOW_ROUNDS if name in few or estimates[name] >= SLOW_SECONDS else MOST_ROUNDS
        if is_long:
            rounds[name] = 0 if name in few else 1
    stop = time.perf_counter() + seconds
    for done in range(MOST_ROUNDS):
        if done >= LEAST_ROUNDS and time.perf_counter() > stop:
            break
        for name, run in contenders.items():
            if done < rounds[name]:
                times[name] += _turn(run, estimates[name])
    return {name: _quantiles(measured) for name, measured in times.items()}


def _turn(run, estimate):
    if estimate < SLOW_SECONDS:
        run()
    return [once(run) for _ in range(min(MOST_CALLS, max(1, int(TURN_SECONDS / estimate))))]


def once(run: Callable) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _quantiles(seconds):
    q20, median, q80 = (1e3 * float(numpy.quantile(seconds, q)) for q in (0.2, 0.5, 0.8))
    return {"median_ms": median, "q20_ms": q20, "q80_ms": q80, "calls": len(seconds)}
