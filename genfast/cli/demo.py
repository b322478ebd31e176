"""`genfast demo`, which `make demo` runs: trains a small PixelRNN on scikit-learn's digits, and writes a report."""

from __future__ import annotations

import argparse
import copy
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genfast import metrics, models, ops, reports
from genfast._defaults import plain_defaults
from genfast._native import backends
from genfast.cli import report
from genfast.cli._command import command
from genfast.cli.options import positive, say
from genfast.cli.progress import progress_bar
from genfast.data import ImageData, load_digits
from genfast.reference.diagonal_lstm import diagonal_lstm_ref
from genfast.tasks import sample
from genfast.train.config import TrainConfig
from genfast.train.evaluate import nll_table
from genfast.train.loop import run_training
from genfast.train.metrics_log import read_metrics
from genfast.train.presets import preset
from genfast.train.run_folder import has_settings, load_run, machine, open_model, run_settings, run_writer
from genfast.train.trainer import FitResult, Run

# What earlier versions wrote beside the run.
EARLIER = ("index.html", "metrics.json", "samples.png", "filled.png", "loss.png", "mnist.png")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/demo", metavar="FOLDER", help="where the report goes (runs/demo)")
    parser.add_argument("--overwrite", action="store_true", help="replace the demo in --out")
    parser.add_argument("--seconds", type=positive, default=110.0, help="longest time to train (110)")
    parser.add_argument("--seed", type=int, default=0, help="seed of training and samples (0)")


@command("demo", "train on digits, two minutes at most, and write a report", options)
def run(args: argparse.Namespace) -> None:
    demo(Path(args.out), seconds=args.seconds, seed=args.seed, overwrite=args.overwrite)


def demo(out: str | Path, *, seconds: float = 110.0, seed: int = 0, overwrite: bool = False) -> None:
    """Train for about `seconds` at most, then evaluate, sample, and write `out`/index.html with its pictures.

    Raises: FileExistsError for an `out` with a run, unless it is to be overwritten, or with files of others.
    """
    out = Path(out)
    with run_writer(out, overwrite=overwrite):
        ours = EARLIER if overwrite and _is_demo(out) else ()
        reports.check_report(out, overwrite, ours)
        _write(out, seconds, seed, overwrite, ours)


def _is_demo(out: Path) -> bool:
    """Whether the run in `out` is one of this command; in version 0.1.0 it was the only one without a preset."""
    settings = load_run(out) if has_settings(out) else {}
    return "preset" not in settings if settings.get("demo") is None else bool(settings["demo"])


def _write(out: Path, seconds: float, seed: int, overwrite: bool, ours: Sequence[str]) -> None:
    """Train, and write the report."""
    train, valid, test = (load_digits(split) for split in ("train", "valid", "test"))
    say(train)
    result = _train(train, valid, out, seconds, seed)
    model = open_model(out)
    samples, rate = _timed_samples(model, seed)
    table = nll_table(model, train, test)
    dims = test.images[0].numel()
    facts = {
        "data": "scikit-learn digits: 8x8, 16 grey levels; 1297 train, 200 valid, 300 test images",
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": result.step,
        "kept_step": result.best_step,
        "training_seconds": read_metrics(out / "metrics.jsonl")[-1]["seconds"],
        "test_nats_per_image": table,
        "test_bits_per_dim": {name: metrics.bits_per_dim(nats, dims) for name, nats in table.items()},
        "samples_per_second": rate,
        "scan": scan_speed(),
        "machine": machine(torch.device("cpu")),
    }
    shown = _completed(model, test.images[:8], seed)
    images = (model.spec, test.images[:64], samples[:64], shown, _mnist_samples(seed))
    page = report.demo_page(facts, read_metrics(out / "metrics.jsonl"), *images, _next(out))
    for name in {*ours} - {*page.files(), "index.html"}:
        (out / name).unlink(missing_ok=True)
    reports.write_report(out, page, facts, overwrite=overwrite, ours=ours)
    for line in _lines(facts, out):
        print(line)


def scan_speed(batch: int = 64, size: int = 28, hidden: int = 16) -> dict[str, Any]:
    """Median milliseconds of a forward scan in both directions, by the backend "auto" and by pure PyTorch."""
    generator = torch.Generator("cpu").manual_seed(0)
    gates = torch.randn(batch, size, size, 2, 4 * hidden, generator=generator, dtype=torch.float32, device="cpu")
    weight = torch.randn(2, 2, hidden, 4 * hidden, generator=generator, dtype=torch.float32, device="cpu") * 0.1
    with torch.no_grad():
        native = _median_ms(partial(ops.diagonal_lstm, gates, weight), 20)
        reference = _median_ms(partial(diagonal_lstm_ref, gates, weight), 5)
    return {
        "case": f"diagonal_lstm forward, batch {batch}, {size}x{size}, {hidden} units, 2 directions",
        "shape": f"{batch} images of {size}x{size} and {hidden} units in both directions",
        "backend": backends.explanation("diagonal_lstm", gates, weight).backend,
        "native_ms": native,
        "pure_pytorch_ms": reference,
    }


def _train(train: ImageData, valid: ImageData, out: Path, seconds: float, seed: int) -> FitResult:
    recipe = preset("pixelrnn", "digits")
    config = TrainConfig(**(recipe.train | {"seed": seed, "device": "cpu"}))
    _, channels, height, width = train.images.shape
    shape: dict[str, Any] = {"channels": channels, "height": height, "width": width, "levels": train.levels}
    torch.manual_seed(seed)
    with plain_defaults():
        model = models.build("pixelrnn", **(recipe.model | shape))
    # The budget only matters if the machine slows down after the calibration.
    steps = _affordable_steps(model, train, valid, config, out, seconds)
    config = replace(config, steps=steps, budget=1.5 * seconds / 60)
    settings = run_settings("pixelrnn", recipe.model | shape, config, {"data": "digits"}, demo=True)
    with progress_bar(config.steps) as progress:
        options: Any = {"resume": False, "minutes": None, "progress": progress, "settings": settings}
        return run_training(Run, model, train, valid, config, out, **options)


def _affordable_steps(
    model: Any, train: ImageData, valid: ImageData, config: TrainConfig, out: Path, seconds: float
) -> int:
    """The updates that fit into `seconds`, measured on a copy; at most those of the preset."""
    trial = Run(copy.deepcopy(model), train, valid, config, out, None)
    with torch.random.fork_rng(devices=[]):
        for _ in range(5):
            trial.update()
        start, count = time.perf_counter(), 0
        while count < 5 or time.perf_counter() - start < min(2.0, 0.05 * seconds):
            trial.update()
            count += 1
    rate = count / (time.perf_counter() - start)
    return max(10, min(config.steps, int(0.9 * seconds * rate)))


def _timed_samples(model: Any, seed: int) -> tuple[Tensor, float]:
    model.sample(1, seed=seed)
    start = time.perf_counter()
    samples = model.sample(1024, seed=seed)
    return samples, len(samples) / (time.perf_counter() - start)


def _completed(model: Any, images: Tensor, seed: int) -> Tensor:
    """Held-out images, their upper halves, and completions of these by the model, as `report.completions`."""
    known = torch.zeros(1, 1, *images.shape[2:], dtype=torch.bool, device="cpu")
    known[:, :, : images.shape[2] // 2] = True
    given = images.repeat_interleave(report.FILLED, 0)
    return report.completions(images, known, sample(model, len(given), seed=seed, given=given, mask=known))


def _next(out: Path) -> list[tuple[str, str]]:
    """What to do with the model: (command, words)."""
    run = shlex.quote(str(out))
    return [
        (f"genfast sample {run} -n 64 --out samples.png", "Draw more digits:"),
        (f"genfast compress {run} --data digits --out digits.gfz", "Code the test set with it, without loss:"),
        (f"genfast inpaint {run} --mask lower --out filled.png", "Fill in missing pixels:"),
        ("genfast train pixelrnn --data FOLDER --size 32 --out runs/mine", "Train one on pictures of yours:"),
    ]


def _mnist_samples(seed: int) -> Tensor | None:
    """Samples of the shipped MNIST model; None without its weights, or in pure PyTorch, which takes minutes."""
    if not backends.backends()["cpp"].available:
        return None
    try:
        model = models.PixelRNN.pretrained("mnist")
    except FileNotFoundError:
        return None
    return model.sample(10, seed=seed)


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[repeats // 2]


def _lines(facts: dict[str, Any], out: Path) -> Iterator[str]:
    yield f"\n{facts['data']}"
    yield f"{'test set':<22}{'nats/image':>11}{'bits/dim':>10}"
    for name, nats in facts["test_nats_per_image"].items():
        label = f"PixelRNN, {facts['training_seconds']:.0f} s" if name == "model" else name
        yield f"{label:<22}{nats:11.2f}{facts['test_bits_per_dim'][name]:10.3f}"
    yield f"sampling: {facts['samples_per_second']:.0f} images per second"
    scan = facts["scan"]
    ratio = scan["pure_pytorch_ms"] / scan["native_ms"]
    speed = f"{scan['native_ms']:.2f} ms by {scan['backend']}, {scan['pure_pytorch_ms']:.1f} ms by pure PyTorch"
    yield f"{scan['case']}, {facts['machine']['threads']} threads: {speed} ({ratio:.1f}x)"
    yield f"report: {Path(out) / 'index.html'}"
