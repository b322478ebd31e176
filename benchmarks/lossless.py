"""Measure lossless compression beside the codecs that need no model: `python benchmarks/lossless.py --data-root DATA
--digits RUN --mnist RUN --photos RUN --vae RUN` writes results/lossless.json and .md.

Binary MNIST is compressed by the shipped weights, the others by the runs that are given; a row whose data or run is not
given stays as it was measured before. Every file is decoded and compared before its size is reported.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

import torch

import genfast
from genfast.benchmarks import gate, lossless_report, machine, timing
from genfast.benchmarks.coding import ALONE, CODING_ENGINES, coding_engine, images_of
from genfast.engine.protocols import Autoregressive
from genfast.io import write_bytes
from genfast.metrics.codecs import classical_sizes
from genfast.tasks._gfz import Header
from genfast.train.run_folder import open_model

ROOT = Path(__file__).resolve().parent.parent
THREADS = 2
GENFAST, SAMPLING, KNOWN = "genfast", "sampling", "network alone"


def main() -> None:
    parser = gate.options(__doc__, 5, "rows")
    parser.add_argument("--data-root", default="", help="where MNIST is, binarised and grey")
    for name in ("digits", "mnist", "photos", "vae"):
        parser.add_argument(f"--{name}", default="", metavar="RUN", help=f"the model of {name}")
    parser.add_argument("--photo-data", default="", help="a folder of photographs, with valid/")
    options = parser.parse_args()
    if not options.ungated:
        gate.check(ROOT, "the codec", "cpp", ["engine/test_coding.py", "tasks/test_lossless.py"])
    result = measure(options)
    if options.ungated or options.only:
        print("\nnot gated by the tests, or not all rows: nothing was written")
        return
    folder = ROOT / "benchmarks" / "results"
    measured = {(row["name"], row["model"]) for row in result["files"]}
    before = json.loads((folder / "lossless.json").read_text())["files"]
    result["files"] += [row for row in before if (row["name"], row["model"]) not in measured]
    write_bytes(folder / "lossless.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(folder / "lossless.md", lossless_report.markdown(result).encode())
    print("\nwrote benchmarks/results/lossless.json and .md")


def measure(options: argparse.Namespace) -> dict:
    cores = machine.pin(THREADS)
    result = {"machine": machine.describe(cores, THREADS), "files": [], "rates": [], "alone": []}
    for name, target, data, split, root, count in _sets(options):
        if options.only in name:
            images = genfast.data.load(data, split=split, root=root)
            row = _file(name, open_model(target).eval(), images, count) | {"date": result["machine"]["date"]}
            result["files"].append(row)
            print(lossless_report.printed(row), flush=True)
    for name in CODING_ENGINES:
        if options.only in name:
            result["rates"].append(_rates(name, coding_engine(name), options.seconds))
            print(result["rates"][-1], flush=True)
    for name in ALONE:
        if options.only in f"alone: {name}":
            result["alone"].append(_alone(name, coding_engine(name), options.seconds))
            print(result["alone"][-1], flush=True)
    return result


def _sets(options):
    """(name, model, data, split, root, images) of each row whose data and run are given."""
    root = options.data_root or None
    if root:
        yield "binary MNIST, valid", "mnist", "mnist-binary", "valid", root, None
    if options.vae and root:
        yield "binary MNIST, valid", options.vae, "mnist-binary", "valid", root, None
    if options.digits:
        yield "digits, test", options.digits, "digits", "test", None, None
    if options.mnist and root:
        yield "grey MNIST, test", options.mnist, "mnist", "test", root, None
    if options.photos and options.photo_data:
        yield "photographs, valid", options.photos, options.photo_data, "valid", None, None


def _file(name, model, data, count):
    """The size of a file of images, beside the other codecs; and of one that holds its model."""
    images, labels = data.images[:count], None
    if model.spec.classes:
        labels = data.labels[:count].long()
    genfast.compress(model, images[:1], labels=None if labels is None else labels[:1])  # compiles, out of the time
    start = time.perf_counter()
    file = genfast.compress(model, images, labels=labels)
    encoded = time.perf_counter()
    if not torch.equal(genfast.decompress(file, model), images):
        raise AssertionError(f"{name}: the file must decode to its images")
    decoded = time.perf_counter()
    header = Header.read(file)
    has_program = isinstance(model, Autoregressive)
    whole = len(genfast.compress(model, images, labels=labels, with_model=True)) if has_program else None
    bits = _bits(model, images, labels)
    others = {key: vars(size) for key, size in classical_sizes(images.numpy()).items()}
    best = min(size["size"] for size in others.values() if size["size"])
    streams, blocks = sum(size for size, _ in header.blocks), len(header.blocks)
    saved = (best - len(file)) / len(images)  # bytes an image
    return {
        "name": name,
        "model": model.name,
        "images": len(images),
        "shape": list(images.shape[1:]),
        "bytes": len(file),
        "bits_per_dim": 8 * len(file) / images.numel(),
        "nll_bits_per_dim": None if bits is None else bits / images.numel(),
        "stream_bits_above_nll": None if bits is None else (8 * streams - bits) / blocks,
        "blocks": blocks,
        "with_model_bytes": whole,
        "model_pays_from": math.ceil((whole - len(file)) / saved) if whole and saved > 0 else None,
        "encode_per_s": len(images) / (encoded - start),
        "decode_per_s": len(images) / (decoded - encoded),
        "others": others,
    }


def _bits(model, images, labels):
    """Of the images under the model itself, of a VAE by its bound; None for images that are cut into patches."""
    if images.shape[1:] != torch.Size(model.spec.shape):
        return None
    if isinstance(model, Autoregressive):
        return -float(genfast.log_prob(model, images, labels=labels).sum()) / math.log(2)
    with torch.no_grad():
        parts = [model.elbo(part, seed=0, first=1000 * n) for n, part in enumerate(images.split(1000))]
    return -float(torch.cat(parts).double().sum()) / math.log(2)


def _rates(name, engine, seconds, count=1024):
    """Images a second of encoding, decoding and sampling, in turns; and the share of the coder in decoding."""
    images = images_of(name, count)
    file = genfast.compress(engine, images)
    known = torch.ones(1, *engine.network.spec.shape, dtype=torch.bool).expand(count, -1, -1, -1)
    contenders = {
        "encode": partial(genfast.compress, engine, images),
        "decode": partial(genfast.decompress, file, engine),
        SAMPLING: partial(genfast.sample, engine, count, seed=1),
        KNOWN: partial(engine.run, count, seed=1, given=images, known=known),
    }
    times = timing.compare(contenders, seconds)
    rates = {key: count / times[key]["median_ms"] * 1e3 for key in contenders}
    share = 1 - rates["decode"] / rates[KNOWN]
    return {"name": name, "images_per_s": rates, "coder_share": share, "times": times}


def _alone(name, engine, seconds):
    """The time to read one block of 16 images of a file."""
    file = genfast.compress(engine, genfast.sample(engine, 512), block=16)
    times = timing.compare({GENFAST: partial(genfast.decompress, file, engine, block=17)}, seconds)
    return {"name": f"{name}, a block of 16 images alone", "ms": times[GENFAST]["median_ms"]}


if __name__ == "__main__":
    main()
