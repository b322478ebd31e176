"""Measure genfast on models that others might have written, of tests/engine/strangers, beside their authors' loops:
`python benchmarks/strangers.py` writes results/strangers.json and .md.

For every model: the path that draws it, how far its likelihood is from its author's loss, whether its samples are
right, whether the module is untouched, and its rate beside its author's loop. For the convolutional ones also the rates
at 28x28. No figure is written unless the tests of these models pass first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import gate
import machine
import strangers_report
import timing
import torch

import genfast
from genfast.io import write_bytes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from engine.strangers import NATIVE, STRANGERS, Stranger  # noqa: E402
from engine.strangers.judge import DRAWS, judge, keywords, p_value, without_labels  # noqa: E402

GENFAST, AUTHOR, FULL = "genfast", "author's loop", "full forward for each value"
PART_SECONDS = 0.25  # a rival is timed on so many positions as it draws in about this time
LARGE, WIDTH, LARGE_LEVELS = 28, 32, 256
BATCHES = (16, 64)
NATIVE_DRAWS = 100_000  # of chi-square; a path that is not native gets as many as its test
THREADS = 2


def main() -> None:
    options = gate.options(__doc__, 2, "models").parse_args()
    if not options.ungated:
        gate.check("models of strangers", "cpp", ["engine/test_strangers.py"])
    result = measure(options)
    if options.ungated or options.only:
        print("\nnot gated by the tests, or not all models: nothing was written")
        return
    folder = ROOT / "benchmarks" / "results"
    write_bytes(folder / "strangers.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(folder / "strangers.md", strangers_report.markdown(result).encode())
    print("\nwrote benchmarks/results/strangers.json and .md")


def measure(options: argparse.Namespace) -> dict:
    cores = machine.pin(THREADS)
    result = {"machine": machine.describe(cores, THREADS), "models": [], "rates": []}
    chosen = [s for s in STRANGERS.values() if options.only in s.name]
    warnings.simplefilter("ignore", RuntimeWarning)  # a full forward for each value is in the table
    warnings.simplefilter("ignore", genfast.UncheckedModel)  # each is compared with its author's loss here
    with torch.no_grad():
        for stranger in chosen:
            row = _attempt(stranger, partial(_judged, stranger, options.seconds))
            result["models"].append(row)
            print(strangers_report.printed(row), flush=True)
        for stranger in (s for s in chosen if s in NATIVE and s.large):
            shape = (stranger.shape[0], LARGE, LARGE)
            # As many levels as the author would have.
            levels = stranger.levels if stranger.levels in (2, 512) else LARGE_LEVELS
            for batch in BATCHES:
                # A module of its own for each batch: some authors keep what their first batch needs.
                model = stranger.build(shape, levels, WIDTH)
                rates = partial(_rates, stranger, model, shape, levels, batch, options.seconds, native=True)
                row = {"levels": levels, "batch": batch} | _attempt(stranger, rates)
                result["rates"].append(row)
                print(strangers_report.printed(row), flush=True)
                if "error" in row:
                    break
    return result


def _attempt(stranger, measured):
    """The row, or the error that came in its place: one model must not hide the others."""
    try:
        return {"name": stranger.name, "habit": habit(stranger)} | measured()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        lines = str(error).splitlines() or [""]
        return {"name": stranger.name, "habit": habit(stranger), "error": f"{type(error).__name__}: {lines[0]}"}


def habit(stranger: Stranger) -> str:
    """The docstring of a model, on one line."""
    return " ".join(stranger.model.__doc__.split())


def _judged(stranger, seconds):
    judgement = judge(stranger)
    draws = NATIVE_DRAWS if judgement.backend == "cpp" else DRAWS
    row = {"backend": judgement.backend, "difference": judgement.difference, "p_value": p_value(stranger, draws)}
    row["untouched"] = not judgement.changed and not judgement.broken
    return row | _rates(stranger, stranger.build(), stranger.shape, stranger.levels, 16, seconds)


def _rates(stranger, model, shape, levels, batch, seconds, native=False):
    """Images per second of genfast, of the author's loop and of a full forward for each value, in turns.

    RuntimeError for a model that has no native program, where one is asked for: drawing it would take minutes.
    """
    told, side = keywords(stranger, batch, shape, levels), stranger.side(shape, batch)
    labels = {"labels": side["labels"]} if "labels" in side else {}
    engine = genfast.Engine(model, **without_labels(told))
    start = time.process_time()
    explanation = engine.explanation
    capture = time.process_time() - start
    if native and explanation.backend != "cpp":
        raise RuntimeError(f"no native program: {explanation.others['cpp']}")
    x = torch.zeros(batch, *shape, dtype=torch.int64)
    stranger.output(model, x, levels, side)
    values = stranger.order(shape) if stranger.order else range(shape[0] * shape[1] * shape[2])
    # What the author's loop does a forward for: a value, or a whole pixel.
    steps = list(values)[:: shape[0] if stranger.draw else 1]
    once = timing.once(partial(stranger.output, model, x, levels, side))
    timed = max(1, min(len(steps), int(PART_SECONDS / once)))
    places = [steps[int((k + 0.5) * len(steps) / timed)] for k in range(timed)]
    contenders = {
        GENFAST: partial(engine.run, batch, seed=0, **labels),
        AUTHOR: partial(stranger.sample, model, batch, shape, levels, places, **side),
        FULL: partial(_forwards, stranger, model, x, levels, side, timed),
    }
    times = timing.compare(contenders, seconds, few=(AUTHOR, FULL))
    # A loop that keeps a state cannot leave out pixels.
    shares = {GENFAST: 1.0, AUTHOR: 1.0 if stranger.loop else timed / len(steps), FULL: timed / len(values)}
    rates = {name: batch * shares[name] / times[name]["median_ms"] * 1e3 for name in contenders}
    weights = sum(parameter.numel() for parameter in model.parameters())
    about = {"batch": batch, "weights": weights, "capture_s": capture}
    return about | {"images_per_s": rates, "share_of_values": shares, "times": times}


def _forwards(stranger, model, x, levels, side, steps):
    for _ in range(steps):
        stranger.output(model, x, levels, side)


if __name__ == "__main__":
    main()
