"""Measure sampling beside its rivals: `python benchmarks/sampling.py` writes results/<machine>-sampling.json and .md.

No speed is reported unless the tests of the native engine pass first, and unless the engine computes what the model's
own forward computes. `make docs` makes the tables of the pages from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from genfast.benchmarks import gate, machine, sampling_cases, sampling_rates, sampling_report, timing
from genfast.benchmarks.sampling_cases import CACHED, FULL, Case
from genfast.benchmarks.sampling_rates import ALLOWED
from genfast.engine.engine import Engine
from genfast.io import write_bytes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import everyday  # noqa: E402

OURS, KNOWN = "genfast", "genfast, every pixel known"


def main() -> None:
    options = gate.options(__doc__, 5, "cases").parse_args()
    if not options.ungated:
        gate.check(ROOT, "the engine", "cpp", ["engine/test_pixel_program.py"])
    result = measure(options)
    if options.ungated or options.only:
        print("\nnot gated by the tests, or not all cases: nothing was written")
        return
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    name = f"{machine.slug(result['machine'])}-sampling"
    write_bytes(folder / f"{name}.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(folder / f"{name}.md", sampling_report.markdown(result).encode())
    print(f"\nwrote benchmarks/results/{name}.json and .md")


def measure(options: argparse.Namespace) -> dict:
    cores = machine.pin(2)
    about = machine.describe(cores, 2)
    result = {"machine": about, "sgemm_gflops": {}, "rows": []}
    for threads in (2, 1):
        multiply, flops = machine.sgemm()
        with sampling_rates.threads(threads):
            median = timing.compare({"sgemm": multiply}, options.seconds / 4)["sgemm"]["median_ms"]
        result["sgemm_gflops"][str(threads)] = flops / median / 1e6
    for case in (*sampling_cases.cases(), *cases_of_users()):
        if options.only not in f"{case.group} {case.case} B={case.batch} T={case.threads}":
            continue
        with sampling_rates.threads(case.threads), torch.no_grad():
            rows = _rows(case, options.seconds)
        for row in rows:
            result["rows"].append(about | row)
            print(_printed(row), flush=True)
    return result


def cases_of_users() -> Iterator[Case]:
    """Models of tests/support/everyday.py, in which there is nothing of genfast."""
    many = {"shape": (1, 28, 28), "input_range": (0, 1), "levels": 256}
    for name, kind in (("plain", "PlainPixelCNN"), ("gated", "GatedPixelCNN")):
        yield Case(f"a user's own {name} PixelCNN", "256 levels", (own, kind), 64, 2, many, rivals=(FULL, CACHED))


def own(kind: str) -> nn.Module:
    """A model of tests/support/everyday.py."""
    return getattr(everyday, kind)()


def _printed(row):
    name = f"{row['group']:38} {row['case']:22} B={row['batch']:<4} T={row['threads']} {row['contender']:26}"
    share = f"{row['share_of_sgemm']:5.0%} of sgemm" if "share_of_sgemm" in row else ""
    return f"{name} {row['images_per_s']:11.4g} images/s {row['times_genfast']:8.1f}x {share}"


def _rows(case, seconds):
    """One row for each contender: its time, and what that makes in images per second."""
    model = sampling_cases.untrained(*case.model)
    engine = Engine(model, backend="cpp", **case.options)
    if not (error := sampling_rates.difference(engine)) < ALLOWED:
        raise SystemExit(f"benchmarks: the engine must compute what the model computes; it is {error:.2g} off")
    contenders, sizes = {OURS: partial(engine.run, case.batch, seed=0)}, {OURS: (case.batch, 1.0)}
    if case.drawing:
        images = engine.run(case.batch, seed=0).images
        known = torch.ones_like(images, dtype=torch.bool)
        contenders[KNOWN] = partial(engine.run, case.batch, seed=0, given=images, known=known)
        sizes[KNOWN] = case.batch, 1.0
    for name in case.rivals:
        contenders[name], *sizes[name] = sampling_rates.rival(name, case, engine)
    contenders["sgemm"], multiplied = machine.sgemm()
    times = timing.compare(contenders, seconds, few=case.rivals)
    sgemm = multiplied / times.pop("sgemm")["median_ms"] / 1e6
    rows = []
    for name, measured in times.items():
        images, share = sizes[name]
        row = {"group": case.group, "case": case.case, "batch": case.batch, "threads": case.threads}
        row |= {"contender": name} | measured | {"images": images, "share_of_pixels": share}
        rates = [images * share / row[f"{q}_ms"] * 1e3 for q in ("median", "q80", "q20")]
        row["images_per_s"], row["q20_images_per_s"], row["q80_images_per_s"] = rates
        rows.append(row)
        row["times_genfast"] = rows[0]["images_per_s"] / row["images_per_s"]
    ours = rows[0]
    ours["mflops_of_an_image"] = sampling_rates.flops(engine.program) / 1e6
    ours["gflops"] = ours["mflops_of_an_image"] * ours["images_per_s"] / 1e3
    ours["share_of_sgemm"] = ours["gflops"] / sgemm
    if case.drawing:
        ours["share_of_drawing"] = 1 - rows[1]["median_ms"] / ours["median_ms"]
    return rows


if __name__ == "__main__":
    main()
