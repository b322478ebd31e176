"""Measure genfast beside its rivals: `python benchmarks/run.py` writes results/<machine>.json and .md.

No speed is reported unless the tests of the ops pass first. `make docs` makes the tables of the pages from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from genfast._native import backends
from genfast.benchmarks import cases, gate, machine, report, timing
from genfast.io import write_bytes
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

ROOT = Path(__file__).resolve().parent.parent
SHARE_FROM = 64  # below this many units half the work is exp, and a share of the sgemm rate says nothing


def main() -> None:
    options = _options()
    if not options.ungated:
        stems = dict.fromkeys(backends.stem(op) for op in (*SPECS, *SAMPLERS, *NON_DIFFERENTIABLE))
        tests = [*gate.tests_of_ops(), *(f"ops/test_{stem}.py" for stem in stems)]
        gate.check(ROOT, "the ops", "cpp", tests, "-k", "cpp")
    result = measure(options)
    if options.ungated:
        print("\nnot gated by the tests: nothing was written")
        return
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    name = machine.slug(result["machine"])
    write_bytes(folder / f"{name}.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(folder / f"{name}.md", report.markdown(result).encode())
    print(f"\nwrote benchmarks/results/{name}.json and .md")


def measure(options: argparse.Namespace) -> dict:
    cores = machine.pin(options.threads)
    about = machine.describe(cores, options.threads)
    torch.manual_seed(0)
    result = {"machine": about} | _limits(options.seconds)
    result["rows"] = []
    for comparison in cases.comparisons(options.only):
        rows = _rows(comparison, timing.compare(comparison.contenders, options.seconds), about)
        result["rows"] += rows
        for row in rows:
            time = f"{row['median_ms']:9.2f} ms {row['times_genfast']:7.2f}x"
            print(f"{row['case']:26} {row['mode']:17} {row['contender']:26} {time}", flush=True)
    return result


def _limits(seconds):
    multiply, flops = machine.sgemm()
    copy, moved = machine.copy()
    times = timing.compare({"sgemm": multiply, "copy": copy}, seconds)
    return {
        "sgemm_gflops": flops / times["sgemm"]["median_ms"] / 1e6,
        "copy_gbytes": moved / times["copy"]["median_ms"] / 1e6,
    }


def _rows(comparison, times, about):
    rows = []
    sgemm = times.pop("sgemm", None)
    rate = comparison.work["sgemm"] / sgemm["median_ms"] / 1e6 if sgemm else None
    units = int(comparison.case.split("C=")[1].split()[0]) if "C=" in comparison.case else 0
    for name, measured in times.items():
        row = {"group": comparison.group, "case": comparison.case, "mode": comparison.mode, "contender": name}
        row |= measured
        row["times_genfast"] = measured["median_ms"] / times["genfast"]["median_ms"]
        row["images_per_s"] = comparison.images / measured["median_ms"] * 1e3
        if comparison.peak_bytes:
            row["peak_bytes"] = comparison.peak_bytes(name)
        if rate and units >= SHARE_FROM:
            row["gflops"] = comparison.work[name] / measured["median_ms"] / 1e6
            row["share_of_sgemm"] = row["gflops"] / rate
        rows.append(row | about)
    return rows


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="for each comparison (default 10)")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads to keep to (default 2)")
    parser.add_argument("--only", default="", help="only comparisons whose name contains this")
    parser.add_argument("--ungated", action="store_true", help="skip the tests; writes nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
