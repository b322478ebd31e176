"""Measure sampling beside its rivals: `python benchmarks/sampling.py` writes results/<machine>-sampling.json and .md.

No speed is reported unless the tests of the native engine pass first, and unless the engine computes what the model's
own forward computes. `--readme FILE.json` puts a committed result into README.md.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import machine
import report
import sampling_cases
import sampling_report
import timing
import torch
from sampling_cases import CACHED, FULL

from genfast import ops
from genfast.engine.engine import Engine
from genfast.io import write_bytes

ROOT = Path(__file__).resolve().parent.parent
RIVAL_SECONDS = 0.25  # a rival is timed on so many pixels as it makes in about this time
OURS, KNOWN = "genfast", "genfast, every pixel known"


def main():
    options = _options()
    if options.readme:
        readme = ROOT / "README.md"
        summary = sampling_report.summary(json.loads(options.readme.read_text()))
        text = report.fill(readme.read_text(), sampling_report.BEGIN, sampling_report.END, summary)
        write_bytes(readme, text.encode())
        return
    if not options.ungated:
        check()
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


def check():
    """Run the tests of the native engine in a process of its own; end here unless they pass."""
    pytest = Path(sys.executable).with_name("pytest")
    command = [pytest, "-q", "-x", "--rootdir", ROOT, ROOT / "tests" / "test_pixel_program.py"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "GENFAST_REQUIRE": "cpp"}, check=False)
    if done.returncode:
        raise SystemExit("benchmarks: the engine must pass its tests before any speed is reported")


def measure(options):
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
            share = f"{row['share_of_sgemm']:5.0%} of sgemm" if "share_of_sgemm" in row else ""
            print(f"{row['group']:38} {row['case']:22} B={row['batch']:<4} T={row['threads']} {row['contender']:26} "
                  f"{row['images_per_s']:11.4g} images/s {row['times_genfast']:8.1f}x {share}", flush=True)  # fmt: skip
    return result


def _rows(case, seconds):
    """One row for each contender: its time, and what that makes in images per second."""
    model = sampling_cases.made(*case.model)
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
    if case.must:
        ours |= {"must": case.must, "aim": case.aim}
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
        stepped = Engine(model, backend="torch", **case.options)
        return partial(stepped.run, case.batch, seed=0), case.batch, 1.0
    images = case.rival_images or case.batch
    zeros = torch.zeros(images, network.channels, network.height, network.width, dtype=torch.uint8)
    forward = timing.once(partial(network.parameters, zeros, None))
    forward = min(forward, timing.once(partial(network.parameters, zeros, None)))
    pixels = network.height * network.width
    count = max(1, min(pixels, int(RIVAL_SECONDS / forward / network.draws)))
    places = [int((k + 0.5) * pixels / count) for k in range(count)]
    if name == FULL:
        return partial(draw_by_whole_images, network, zeros, places), images, count / pixels
    whole = Engine(model, backend="full_forward", **case.options)
    known = torch.ones_like(zeros, dtype=torch.bool)
    known.flatten(2)[:, :, places] = False
    return partial(whole.run, images, seed=0, given=zeros, known=known), images, count / pixels


def draw_by_whole_images(network, images, places):
    """The loop of most tutorials: the network over the whole image for each value that is drawn."""
    for place in places:
        i, j = divmod(place, network.width)
        for k in range(network.draws):
            parameters = network.parameters(images, None)[:, :, i : i + 1, j : j + 1].split(network.counts, 1)[k]
            if network.head == "mixture":
                drawn = ops.logistic_mixture_sample(parameters, network.levels, 0, channels=network.channels)
                images[:, :, i, j] = drawn[..., 0, 0]
                continue
            parameters = parameters[..., 0, 0]
            if network.head == "bernoulli":
                images[:, k, i, j] = torch.bernoulli(parameters[:, 0].sigmoid())
            else:
                images[:, k, i, j] = torch.multinomial(parameters.softmax(1), 1)[:, 0]


def flops(program):
    """Of an image, in its matrix products: twice the depth times the outputs, at every position."""
    total = 0
    for it in (it for part in (program.row, *program.pixel) for it in part):
        if it.kind == "linear":
            first, end, left, right = it.domain
            stride = program.buffers[it.buffer].stride
            rows = range(it.row_remainder, program.height, it.row_modulus)
            columns = range(it.column_remainder, program.columns, it.column_modulus)
            places = [sum(a <= at // stride < b for at in found)
                      for found, a, b in ((rows, first, end), (columns, left, right))]  # fmt: skip
            total += 2 * it.weight.size * places[0] * places[1]
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


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="for each comparison (default 5)")
    parser.add_argument("--only", default="", help="only cases whose name contains this; writes nothing")
    parser.add_argument("--ungated", action="store_true", help="skip the tests; writes nothing")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="fill the table of README.md and end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
