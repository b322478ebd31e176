"""Medians of interleaved repetitions: noise that comes and goes hits every contender alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy

LEAST_ROUNDS, MOST_ROUNDS, SLOW_ROUNDS, SLOW_SECONDS, LONG_SECONDS = 7, 100, 3, 1.0, 5.0
TURN_SECONDS, MOST_CALLS = 0.02, 20


def compare(
    contenders: Mapping[str, Callable], seconds: float, few: Collection[str] = ()
) -> dict[str, dict[str, float]]:
    """Time `{name: callable}` for about `seconds` in all, in turns.

    A turn starts with an untimed call, which finds the caches and threads as the contender before left them, and times
    further calls for a fiftieth of a second, at least one. A contender slower than a second gets three turns, without
    the untimed call; so many turns get those named in `few`. One slower than five seconds is timed from its first call
    on: two calls, one if it is named in `few`. Returns {name: {median_ms, q20_ms, q80_ms, calls}}.
    """
    times: dict[str, list[float]] = {}
    estimates: dict[str, float] = {}
    rounds: dict[str, int] = {}
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


def turns(contenders: Mapping[str, Callable], seconds: float, estimates: dict[str, float]) -> dict[str, list[float]]:
    """Seconds of the calls of `{name: callable}`, in turns as of `compare`, for about `seconds` in all.

    Each has a turn at least. `estimates` holds how long a call of each takes, as far as that is known; what is missing
    is added, by two calls.
    """
    for name, run in contenders.items():
        if name not in estimates:
            first = once(run)
            estimates[name] = first if first > LONG_SECONDS else once(run)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    stop = time.perf_counter() + seconds
    while not all(times.values()) or time.perf_counter() < stop:
        for name, run in contenders.items():
            times[name] += _turn(run, estimates[name])
    return times


def _turn(run: Callable, estimate: float) -> list[float]:
    if estimate < SLOW_SECONDS:
        run()
    return [once(run) for _ in range(min(MOST_CALLS, max(1, int(TURN_SECONDS / estimate))))]


def once(run: Callable) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    q20, median, q80 = (1e3 * float(numpy.quantile(seconds, q)) for q in (0.2, 0.5, 0.8))
    return {"median_ms": median, "q20_ms": q20, "q80_ms": q80, "calls": len(seconds)}
