"""Measure sampling beside its rivals: `python benchmarks/sampling.py` writes results/<machine>-sampling.json and .md.

No speed is reported unless the tests of the native engine pass first, and unless the engine computes what the model's
own forward computes. `make docs` makes the tables of the pages from it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import gate
import machine
import sampling_cases
import sampling_report
import timing
import torch
from sampling_cases import CACHED, FULL
from torch import Tensor

from genfast.engine.engine import Engine
from genfast.engine.full_forward import FullForward
from genfast.engine.program import Program
from genfast.io import write_bytes
from genfast.likelihoods import Likelihood

ROOT = Path(__file__).resolve().parent.parent
RIVAL_SECONDS = 0.25  # a rival is timed on so many pixels as it makes in about this time
OURS, KNOWN = "genfast", "genfast, every pixel known"


def main() -> None:
    options = gate.options(__doc__, 5, "cases").parse_args()
    if not options.ungated:
        gate.check("the engine", "cpp", ["engine/test_pixel_program.py"])
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
        with _threads(threads):
            median = timing.compare({"sgemm": multiply}, options.seconds / 4)["sgemm"]["median_ms"]
        result["sgemm_gflops"][str(threads)] = flops / median / 1e6
    for case in sampling_cases.cases():
        if options.only not in f"{case.group} {case.case} B={case.batch} T={case.threads}":
            continue
        with _threads(case.threads), torch.no_grad():
            rows = _rows(case, options.seconds)
        for row in rows:
            result["rows"].append(about | row)
            print(_printed(row), flush=True)
    return result


def _printed(row):
    name = f"{row['group']:38} {row['case']:22} B={row['batch']:<4} T={row['threads']} {row['contender']:26}"
    share = f"{row['share_of_sgemm']:5.0%} of sgemm" if "share_of_sgemm" in row else ""
    return f"{name} {row['images_per_s']:11.4g} images/s {row['times_genfast']:8.1f}x {share}"


def _rows(case, seconds):
    """One row for each contender: its time, and what that makes in images per second."""
    model = sampling_cases.untrained(*case.model)
    engine = Engine(model, backend="cpp", **case.options)
    _check_function(engine)
    contenders, sizes = {OURS: partial(engine.run, case.batch, seed=0)}, {OURS: (case.batch, 1.0)}
    if case.drawing:
        images = engine.run(case.batch, seed=0).images
        known = torch.ones_like(images, dtype=torch.bool)
        contenders[KNOWN] = partial(engine.run, case.batch, seed=0, given=images, known=known)
        sizes[KNOWN] = case.batch, 1.0
    for name in case.rivals:
        contenders[name], *sizes[name] = _rival(name, case, engine)
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
    ours["mflops_of_an_image"] = flops(engine.program) / 1e6
    ours["gflops"] = ours["mflops_of_an_image"] * ours["images_per_s"] / 1e3
    ours["share_of_sgemm"] = ours["gflops"] / sgemm
    if case.drawing:
        ours["share_of_drawing"] = 1 - rows[1]["median_ms"] / ours["median_ms"]
    return rows


def _check_function(engine):
    """End here unless the engine's parameters of two images are those of the model's own forward."""
    drawn = engine.run(2, seed=0, want=("parameters",))
    expected = engine.network.parameters(drawn.images, None)
    error = (drawn.parameters - expected).abs().max() / max(1.0, expected.abs().max())
    if not error < 1e-4:
        raise SystemExit(f"benchmarks: the engine must compute what the model computes; it is {error:.2g} off")


def _rival(name, case, engine):
    """A contender, the images that it draws, and the share of their pixels."""
    network, model = engine.network, engine.model
    if name == CACHED:
        eager = Engine(model, backend="torch", **case.options)
        return partial(eager.run, case.batch, seed=0), case.batch, 1.0
    images = case.rival_images or case.batch
    zeros = torch.zeros(images, *network.spec.shape, dtype=torch.uint8)
    forward = timing.once(partial(network.parameters, zeros, None))
    forward = min(forward, timing.once(partial(network.parameters, zeros, None)))
    spec, likelihood = network.spec, network.likelihood
    pixels = spec.height * spec.width
    count = max(1, min(pixels, int(RIVAL_SECONDS / forward / likelihood.draws)))
    places = [int((k + 0.5) * pixels / count) for k in range(count)]
    if name == FULL:
        return partial(draw_by_whole_images, network, zeros, places), images, count / pixels
    whole = Engine(model, backend="full_forward", **case.options)
    known = torch.ones_like(zeros, dtype=torch.bool)
    known.flatten(2)[:, :, places] = False
    return partial(whole.run, images, seed=0, given=zeros, known=known), images, count / pixels


def draw_by_whole_images(network: FullForward, images: Tensor, places: Iterable[int]) -> None:
    """The loop of most tutorials: the network over the whole image for each value that is drawn.

    `images`: uint8 [n, C, H, W], of which the pixels `places` are drawn.
    """
    for place in places:
        i, j = divmod(place, network.spec.width)
        for k, draw in enumerate(draws_of_a_tutorial(network.likelihood)):
            parameters = network.parameters(images, None)[:, :, i : i + 1, j : j + 1]
            values = draw(parameters.split(network.likelihood.counts, 1)[k])
            images[:, network.likelihood.drawn_channels(k), i, j] = values


def draws_of_a_tutorial(likelihood: Likelihood) -> list[Callable[[Tensor], Tensor]]:
    """How a tutorial draws each draw of a pixel, [n, 1] or [n, C], from its parameters [n, P, 1, 1]."""
    if not likelihood.takes_evidence:
        return [lambda parameters: likelihood.draw(parameters, 0)[..., 0, 0]]
    if likelihood.parameters == likelihood.channels:
        return [lambda parameters: torch.bernoulli(parameters[..., 0, 0].sigmoid())] * likelihood.draws
    return [lambda parameters: torch.multinomial(parameters[..., 0, 0].softmax(1), 1)] * likelihood.draws


def flops(program: Program) -> int:
    """Of an image, in its matrix products: twice the depth times the outputs, at every position."""
    total = 0
    for it in (it for part in (program.row, *program.pixel) for it in part):
        if it.kind == "linear":
            first, end, left, right = it.domain
            stride = program.buffers[it.buffer].stride
            rows = range(it.row_remainder, program.spec.height, it.row_modulus)
            columns = range(it.column_remainder, program.columns, it.column_modulus)
            high = sum(first <= at // stride < end for at in rows)
            wide = sum(left <= at // stride < right for at in columns)
            total += 2 * it.weight.size * high * wide
    return total


@contextmanager
def _threads(count):
    """Inside, so many threads of torch on as many cores."""
    cores, before = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(cores)[:count])
    torch.set_num_threads(count)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
