"""The training loop: batches, averaged weights, interruption, and a checkpoint of the whole state."""

from __future__ import annotations

import copy
import re
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast.data import ImageData, PairData
from genfast.train.checkpoint import (
    Tensors,
    checkpoint_bytes,
    checkpoint_path,
    copy_into,
    load_checkpoint,
    prefixed,
    save_checkpoint,
    unprefixed,
)
from genfast.train.config import RunConfig, rounds_of, steps_per_epoch
from genfast.train.inputs import inputs
from genfast.train.memory import keep_freed_memory
from genfast.train.metrics_log import MetricsLog
from genfast.train.run_folder import begin_run
from genfast.train.signals import stop_signals

Data = ImageData | PairData
Progress = Callable[[dict[str, Any]], object]


@dataclass
class RunResult:
    """What a training returns.

    Attributes:
        step, steps: the last step, and how many there are.
        reason: why the run ended: "finished", "interrupted" or "minutes".
    """

    step: int
    steps: int
    reason: str


def run_training(
    kind: Callable[..., Loop],
    model: Any,
    train: Data,
    valid: Data,
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool,
    minutes: float | None,
    progress: Progress | None,
    settings: dict[str, Any] | None = None,
) -> Any:
    """Run a `Loop` of class `kind` in `out`, which `run_writer` holds. The random state of torch does not change.

    `settings`: the content of RUN/config.json; None: it is not written.
    """
    keep_freed_memory()
    device = pick_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = kind(model.to(device), train, valid, config, Path(out), progress)
        if resume:
            run.restore()
        else:
            begin_run(run.out, settings, checkpoint_bytes(run.tensors(), run.state()))
        run.prepare()
        return run.run(minutes)


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one. Raises: ValueError; RuntimeError for a missing device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: expected auto, cpu or cuda; got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device: expected a device of this machine; got {name}, which it has not")
    return device


class Loop(ABC):
    """The whole state of a training run, which `save` and `restore` write and read.

    A subclass sets `optimizers` (by their prefix in the checkpoint), `averages` and `parameters`, and defines the
    abstract methods. State of its own it adds to `tensors` and `state`, and restores in `load`.
    """

    @property
    def has_model(self) -> bool:
        """Whether RUN/model stays unchanged when the run is interrupted."""
        return False

    @abstractmethod
    def update(self) -> None:
        """One step."""

    @abstractmethod
    def after_update(self, last: bool) -> None:
        """Log, evaluate and save, if due; `last`: whether the run ends after this step."""

    @abstractmethod
    def check_finite(self) -> None:
        """FloatingPointError if a loss or a gradient is not finite."""

    @abstractmethod
    def save_model(self) -> None:
        """Write RUN/model."""

    @abstractmethod
    def result(self, reason: str) -> RunResult:
        """The result of the run."""

    def __init__(
        self, model: Any, train: Data, valid: Data, config: RunConfig, out: Path, progress: Progress | None
    ) -> None:
        self.model, self.config, self.out = model.train(), config, Path(out)
        self.device = next(model.parameters()).device
        check_images(train, valid)
        self.train, self.valid = inputs(model, train), inputs(model, valid)
        self.fingerprint = [_fingerprint(self.train), _fingerprint(self.valid)]
        self.images = len(train)
        self.steps = config.total_steps(self.images, rounds_of(model))
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.log = MetricsLog(self.out / "metrics.jsonl", progress)
        self.step, self.counted, self.seconds, self.mark = 0, 0, 0.0, 0.0
        self.epoch = -1  # of `order`; none yet
        self.order = torch.zeros(0, dtype=torch.int64)
        # Of the present step, for the diagnosis of one that fails.
        self.batch: tuple[Tensor, ...] = ()
        self.random: Tensor | None = None

    def prepare(self) -> None:  # noqa: B027  most need nothing
        """What a loop writes to RUN before its first step, once RUN is this run's."""

    def run(self, minutes: float | None) -> RunResult:
        """Train until the last step, a signal, or the end of so many minutes."""
        reason = "finished"
        started = self.mark = time.perf_counter()
        with stop_signals() as stop:
            while self.step < self.steps and reason == "finished":
                self.update()
                finished = self.step == self.steps
                if stop.is_set() and not finished:
                    reason = "interrupted"
                elif minutes is not None and time.perf_counter() - started >= 60 * minutes and not finished:
                    reason = "minutes"
                self.after_update(last=finished or reason == "minutes")
            if reason == "interrupted" and not self.has_model:
                self.save_model()
            self.save()
        return self.result(reason)

    def is_due(self, every: int, last: bool) -> bool:
        """Whether what is done every so many steps, and at the end, is done after this step."""
        return last or self.step % every == 0

    def precision(self) -> torch.autocast:
        """The context of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def batch_number(self, number: int) -> tuple[Tensor, ...]:
        """Batch `number` since the start: the tensors of `inputs`, which are the arguments of the losses."""
        size, per_epoch = self.config.batch, steps_per_epoch(self.images, self.config.batch)
        epoch, index = divmod(number, per_epoch)
        if epoch != self.epoch:
            # It depends on (seed, epoch) alone, so that a checkpoint need not hold it.
            order = np.random.RandomState([self.config.seed, epoch]).permutation(self.images)
            self.epoch, self.order = epoch, torch.from_numpy(order).to(self.device)
        rows = self.order[index * size : (index + 1) * size]
        return tuple(tensor.index_select(0, rows) for tensor in self.train)

    def average(self, averages: list[Tensor], parameters: list[Tensor]) -> None:
        """Update the moving average of the weights, after `step` was increased."""
        decay = min(self.config.ema, self.step / (self.step + 9))
        with torch.no_grad():  # otherwise the averages would keep the graph of the whole run
            torch._foreach_lerp_(averages, parameters, 1 - decay)

    def count(self, images: int) -> dict[str, Any]:
        """The fields of a record for progress and speed; `images`: those of each step."""
        now = time.perf_counter()
        self.seconds += now - self.mark
        record = {
            "step": self.step,
            "images": self.step * images,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.counted * images / max(now - self.mark, 1e-9), 1),
        }
        self.counted, self.mark = 0, now
        return record

    def copy_buffers(self) -> None:
        """Copy the buffers to the averaged model: what a model updates itself, such as a codebook, is not averaged."""
        for copied, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)

    def tensors(self) -> Tensors:
        """The tensors of the checkpoint, by name."""
        tensors = prefixed("model", self.model.state_dict())
        tensors |= prefixed("averaged", self.averaged.state_dict())
        for prefix, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= prefixed(f"{prefix}.{index}", values)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def state(self) -> dict[str, Any]:
        """The rest of the checkpoint, as JSON values."""
        return {
            "step": self.step,
            "counted": self.counted,
            "seconds": self.seconds,
            "train": self.config.to_dict(),
            "images": self.fingerprint,
        }

    def save(self) -> None:
        """Write the checkpoint."""
        self.check_finite()
        self.log.sync()
        save_checkpoint(self.out, self.tensors(), self.state())

    def restore(self) -> None:
        """Read the checkpoint. ValueError for other settings or images."""
        tensors, state = load_checkpoint(self.out)
        path = checkpoint_path(self.out)
        settings = type(self.config).from_dict(
            state["train"]
        )  # settings that are newer than the run have their default
        for what, saved, given in (
            ("settings", settings.to_dict(), self.config.to_dict()),
            ("training and validation images", state["images"], self.fingerprint),
        ):
            if saved != given:
                raise ValueError(f"{path}: expected the same {what} to resume; got {_changes(saved, given)}")
        self.load(tensors, state)
        self.log.forget_after(self.step)

    def load(self, tensors: Tensors, state: dict[str, Any]) -> None:
        """Restore what `tensors` and `state` returned."""
        path = str(checkpoint_path(self.out))
        copy_into(self.model, unprefixed("model", tensors), path)
        copy_into(self.averaged, unprefixed("averaged", tensors), path)
        for prefix, optimizer in self.optimizers.items():
            moments: dict[int, Tensors] = {}
            for name, tensor in unprefixed(prefix, tensors).items():
                index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step, self.counted, self.seconds = state["step"], state["counted"], state["seconds"]


def check_images(train: Data, valid: Data) -> None:
    """ValueError for images that are no levels, or training and validation images of different shape or levels."""
    for data in (train, valid):
        if data.images.dtype != torch.uint8 or data.images.ndim != 4 or len(data.images) == 0:
            got = f"{data.images.dtype} {tuple(data.images.shape)}"
            raise ValueError(f"{data.name}: expected uint8 images [N, C, H, W] with N at least 1; got {got}")
    if train.images.shape[1:] != valid.images.shape[1:] or train.levels != valid.levels:
        one, other = ((tuple(d.images.shape[1:]), d.levels) for d in (train, valid))
        raise ValueError(f"train, valid: expected the same shape and levels; got {one} and {other}")


def _fingerprint(parts: Sequence[Tensor]) -> str:
    sums = (f"{tuple(part.shape)} crc32 {zlib.crc32(part.cpu().contiguous().numpy().data):08x}" for part in parts)
    return ", labels ".join(sums)


def _changes(saved: Any, given: Any) -> str:
    if not isinstance(saved, dict):
        return f"{given} instead of {saved}"
    return ", ".join(f"{k} {given[k]} instead of {saved.get(k)}" for k in given if saved.get(k) != given[k])
