"""Medians of interleaved repetitions: noise that comes and goes hits every contender alike."""

import time

import numpy

LEAST_ROUNDS, MOST_ROUNDS, SLOW_ROUNDS, SLOW_SECONDS = 7, 100, 3, 1.0


def compare(contenders, seconds):
    """Time `{name: callable}` for about `seconds` in all, one call of each in turn.

    A contender slower than a second gets three rounds. Returns {name: {median_ms, q20_ms, q80_ms, rounds}}.
    """
    times = {name: [] for name in contenders}
    estimate = {}
    for name, run in contenders.items():
        run()
        estimate[name] = _once(run)
    stop = time.perf_counter() + seconds
    for done in range(MOST_ROUNDS):
        if done >= LEAST_ROUNDS and time.perf_counter() > stop:
            break
        for name, run in contenders.items():
            if estimate[name] < SLOW_SECONDS or len(times[name]) < SLOW_ROUNDS:
                times[name].append(_once(run))
    return {name: _quantiles(measured) for name, measured in times.items()}


def _once(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _quantiles(seconds):
    q20, median, q80 = (1e3 * float(numpy.quantile(seconds, q)) for q in (0.2, 0.5, 0.8))
    return {"median_ms": median, "q20_ms": q20, "q80_ms": q80, "rounds": len(seconds)}
