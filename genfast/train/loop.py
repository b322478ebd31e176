"""What trainings share: batches, averaged weights, a loop that may be stopped, and a checkpoint of all of it."""

import copy
import math
import re
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genfast.io import writable_folder
from genfast.train.checkpoint import (
    checkpoint_path,
    copy_into,
    load_checkpoint,
    prefixed,
    save_checkpoint,
    unprefixed,
)
from genfast.train.config import rounds_of, steps_per_epoch
from genfast.train.inputs import inputs
from genfast.train.memory import keep_freed_memory
from genfast.train.metrics_log import MetricsLog
from genfast.train.signals import stop_signals


@dataclass
class RunResult:
    """`reason` is finished, interrupted or minutes."""

    step: int
    steps: int
    reason: str


def run_training(kind, model, train, valid, config, out, *, resume, minutes, progress):
    """Make the `Loop` of that kind in the folder `out`, and run it; the random state of torch is left as it was."""
    keep_freed_memory()
    out = writable_folder(out)
    if not resume and checkpoint_path(out).exists():
        raise FileExistsError(f"{out}: expected an empty folder or --resume; got a run with a checkpoint")
    device = pick_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = kind(model.to(device), train, valid, config, out, progress)
        if resume:
            run.restore()
        return run.run(minutes)


def pick_device(name):
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: expected auto, cpu or cuda; got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device: expected a device of this machine; got {name}, which it has not")
    return device


class Loop:
    """All the state of one training run; `save` and `restore` hold what resuming needs, and nothing else changes.

    A subclass sets `optimizers` (their prefix in the checkpoint: the optimizer) and `has_model` (whether RUN/model is
    to stay as it is when the run is interrupted), and defines `update` (one step), `after_update`, `check_finite`,
    `save_model` and `result(reason)`; what else it has to remember it adds to `tensors` and `state`, and takes back in
    `load`.
    """

    has_model = False

    def __init__(self, model, train, valid, config, out, progress):
        self.model, self.config, self.out = model.train(), config, Path(out)
        self.device = next(model.parameters()).device
        check_images(train, valid)
        self.train, self.valid = inputs(model, train), inputs(model, valid)
        self.fingerprint = [_fingerprint(self.train), _fingerprint(self.valid)]
        self.images = len(train)
        self.steps = config.total_steps(self.images, rounds_of(model))
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        self.optimizers = {}
        self.log = MetricsLog(self.out / "metrics.jsonl", progress)
        self.step, self.counted, self.seconds = 0, 0, 0.0
        self.epoch, self.order = None, None
        self.batch, self.random = None, None

    def run(self, minutes):
        reason = "finished"
        started = self.mark = time.perf_counter()
        with stop_signals() as stop:
            if self.step == 0:
                self.log.forget_after(0)
                self.save()
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

    def precision(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def batch_number(self, number):
        """The batch of that number since the start: the tensors of `inputs`, as the arguments of the model's losses."""
        size, per_epoch = self.config.batch, steps_per_epoch(self.images, self.config.batch)
        epoch, index = divmod(number, per_epoch)
        if epoch != self.epoch:
            # From (seed, epoch) alone, so that resuming needs no record of it.
            order = np.random.RandomState([self.config.seed, epoch]).permutation(self.images)
            self.epoch, self.order = epoch, torch.from_numpy(order).to(self.device)
        chosen = self.order[index * size : (index + 1) * size]
        return tuple(tensor.index_select(0, chosen) for tensor in self.train)

    def average(self, averages, parameters):
        """Move the averaged weights towards the present ones; call it after a step was counted."""
        decay = min(self.config.ema, self.step / (self.step + 9))
        with torch.no_grad():  # else the averages would hold the history of the whole run
            torch._foreach_lerp_(averages, parameters, 1 - decay)

    def count(self, images):
        """The fields of a record that tell how far the run is, and how fast, with `images` of every step."""
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

    def copy_buffers(self):
        """What a model changes itself while it trains, such as a codebook, is no average of the trainer's."""
        for copied, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)

    def tensors(self):
        """What the checkpoint holds, by name."""
        tensors = prefixed("model", self.model.state_dict())
        tensors |= prefixed("averaged", self.averaged.state_dict())
        for prefix, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= prefixed(f"{prefix}.{index}", values)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def state(self):
        """What else the checkpoint holds, JSON-able."""
        return {
            "step": self.step,
            "counted": self.counted,
            "seconds": self.seconds,
            "train": self.config.to_dict(),
            "images": self.fingerprint,
        }

    def save(self):
        self.check_finite()
        save_checkpoint(self.out, self.tensors(), self.state())

    def restore(self):
        tensors, state = load_checkpoint(self.out)
        path = checkpoint_path(self.out)
        settings = type(self.config).from_dict(state["train"])  # a setting that is newer than the run has its default
        for what, saved, given in (
            ("settings", settings.to_dict(), self.config.to_dict()),
            ("training and validation images", state["images"], self.fingerprint),
        ):
            if saved != given:
                raise ValueError(f"{path}: expected the same {what} to resume; got {_changes(saved, given)}")
        self.load(tensors, state)
        self.log.forget_after(self.step)

    def load(self, tensors, state):
        """Take back what `tensors` and `state` gave."""
        path = str(checkpoint_path(self.out))
        copy_into(self.model, unprefixed("model", tensors), path)
        copy_into(self.averaged, unprefixed("averaged", tensors), path)
        for prefix, optimizer in self.optimizers.items():
            moments = {}
            for name, tensor in unprefixed(prefix, tensors).items():
                index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step, self.counted, self.seconds = state["step"], state["counted"], state["seconds"]


def check_images(train, valid):
    for data in (train, valid):
        if data.images.dtype != torch.uint8 or data.images.ndim != 4 or len(data.images) == 0:
            got = f"{data.images.dtype} {tuple(data.images.shape)}"
            raise ValueError(f"{data.name}: expected uint8 images [N, C, H, W] with N at least 1; got {got}")
    if train.images.shape[1:] != valid.images.shape[1:] or train.levels != valid.levels:
        one, other = ((tuple(d.images.shape[1:]), d.levels) for d in (train, valid))
        raise ValueError(f"train, valid: expected the same shape and levels; got {one} and {other}")


def finite(*values):
    """Whether the sum of some scalar tensors or numbers is finite, as it is only where each of them is."""
    return math.isfinite(sum(float(value) for value in values))


def _fingerprint(parts):
    sums = (f"{tuple(part.shape)} crc32 {zlib.crc32(part.cpu().contiguous().numpy()):08x}" for part in parts)
    return ", labels ".join(sums)


def _changes(saved, given):
    if not isinstance(saved, dict):
        return f"{given} instead of {saved}"
    return ", ".join(f"{k} {given[k]} instead of {saved.get(k)}" for k in given if saved.get(k) != given[k])
