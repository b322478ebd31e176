"""Training of any model with a loss in nats per image, resumable to the bit."""

import copy
import math
import re
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genfast._files import writable_folder
from genfast.train.checkpoint import (
    checkpoint_path,
    copy_into,
    load_checkpoint,
    prefixed,
    save_checkpoint,
    unprefixed,
)
from genfast.train.config import steps_per_epoch
from genfast.train.diagnosis import first_non_finite, loss_of
from genfast.train.inputs import batches, inputs
from genfast.train.memory import keep_freed_memory, release_freed_memory
from genfast.train.metrics_log import MetricsLog
from genfast.train.optim import learning_rate, make_optimizer
from genfast.train.signals import stop_signals


@dataclass
class FitResult:
    """`reason` is finished, interrupted or minutes; `best_*` are of the weights in RUN/model."""

    step: int
    steps: int
    reason: str
    best_nats: float
    best_step: int


def fit(model, train, valid, config, out, *, resume=False, minutes=None, progress=None):
    """Train `model` on `train` and keep in `out`/model the averaged weights that did best on `valid`.

    Args: model (with `save_pretrained(folder)`, `loss(uint8 [B, C, H, W]) -> [B]` in nats, which training minimises,
    and `bound(images, first=number of the first) -> [B]`, a log-likelihood or a deterministic lower bound on it, by
    which the best weights are chosen; or with `log_prob(images) -> [B]` alone, which serves as both; with
    `config.classes` above 0, each takes `(images, labels)`); train, valid (ImageData); config (TrainConfig);
    out (folder for metrics.jsonl, checkpoint/ and model/); resume (continue `out` exactly as if it had never
    stopped); minutes (stop this call after so long); progress (called with each record of metrics.jsonl).
    Ctrl-C and SIGTERM end the run with a whole checkpoint.
    Returns: FitResult. Raises: FloatingPointError if the loss stops being finite.
    """
    keep_freed_memory()
    out = writable_folder(out)
    if not resume and checkpoint_path(out).exists():
        raise FileExistsError(f"{out}: expected an empty folder or --resume; got a run with a checkpoint")
    device = pick_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = Run(model.to(device), train, valid, config, out, progress)
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


@torch.no_grad()
def mean_nats(model, batches):
    """Mean negative log-likelihood, or `bound` on it, in nats per image of the model without dropout.

    `batches` of images, or of tuples (images, labels) for a conditional model.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        batch = batch if isinstance(batch, tuple) else (batch,)
        nats = model.bound(*batch, first=count) if hasattr(model, "bound") else model.log_prob(*batch)
        total -= nats.double().sum().item()
        count += len(nats)
    model.train(was_training)
    return total / count


class Run:
    """All the state of one training run; `save` and `restore` hold what resuming needs, and nothing else changes."""

    def __init__(self, model, train, valid, config, out, progress):
        self.model, self.config, self.out = model.train(), config, Path(out)
        self.device = next(model.parameters()).device
        _check_images(train, valid)
        self.train, self.valid = inputs(model, train), inputs(model, valid)
        self.fingerprint = [_fingerprint(self.train), _fingerprint(self.valid)]
        self.images = len(train)
        self.steps = config.total_steps(self.images)
        self.parameters = list(model.parameters())
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        self.averages = list(self.averaged.parameters())
        self.optimizer = make_optimizer(model, config)
        self.log = MetricsLog(self.out / "metrics.jsonl", progress)
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.step, self.counted, self.seconds = 0, 0, 0.0
        self.best_nats, self.best_step = math.inf, 0
        self.epoch, self.order = None, None
        self.norm = torch.zeros(())
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
            if reason == "interrupted" and not self.best_step:
                self.save_model()
            self.save()
        return FitResult(self.step, self.steps, reason, self.best_nats, self.best_step)

    def update(self):
        config = self.config
        rate = learning_rate(self.step, self.steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batch = self.next_batch()
        self.random = torch.get_rng_state()
        # Per dimension, so that one clipping threshold suits every image size; AdamW ignores the scale.
        with self.precision():
            loss = loss_of(self.model, batch).mean()
        self.optimizer.zero_grad(set_to_none=True)
        (loss / batch[0][0].numel()).backward()
        self.norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.clip or math.inf)
        self.total += loss.detach()
        if self.device.type == "cpu":
            self.check_finite()
        self.optimizer.step()
        self.step, self.counted = self.step + 1, self.counted + 1
        decay = min(config.ema, self.step / (self.step + 9))
        with torch.no_grad():  # else the averages would hold the history of the whole run
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    def precision(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def next_batch(self):
        """Images, or images and their labels, as the arguments of `loss`."""
        size, per_epoch = self.config.batch, steps_per_epoch(self.images, self.config.batch)
        epoch, index = divmod(self.step, per_epoch)
        if epoch != self.epoch:
            # From (seed, epoch) alone, so that resuming needs no record of it.
            order = np.random.RandomState([self.config.seed, epoch]).permutation(self.images)
            self.epoch, self.order = epoch, torch.from_numpy(order).to(self.device)
        chosen = self.order[index * size : (index + 1) * size]
        return tuple(tensor.index_select(0, chosen) for tensor in self.train)

    def after_update(self, last):
        config, due = self.config, lambda every: last or self.step % every == 0
        if due(config.log_every) or due(config.eval_every):
            self.record(due(config.eval_every))
        if due(config.save_every) and not last:
            self.save()

    def check_finite(self):
        if not math.isfinite(self.total.item() + float(self.norm)):
            got = f"{self.total.item()} with gradient norm {float(self.norm)} by step {self.step + 1}"
            with self.precision():
                where = first_non_finite(self.model, self.batch, self.random) if self.batch else "unknown"
            raise FloatingPointError(
                f"train: expected a finite loss; got {got}; first that is not finite: {where} (the checkpoint is whole)"
            )

    def record(self, evaluate):
        self.check_finite()
        now = time.perf_counter()
        self.seconds += now - self.mark
        batch = min(self.config.batch, self.images)
        record = {
            "step": self.step,
            "images": self.step * batch,
            "seconds": round(self.seconds, 3),
            "train_nats": self.total.item() / max(1, self.counted),
            "lr": self.optimizer.param_groups[0]["lr"],
            "grad_norm": float(self.norm),
            "images_per_second": round(self.counted * batch / max(now - self.mark, 1e-9), 1),
        }
        self.total.zero_()
        self.counted, self.mark = 0, now
        if evaluate:
            self.copy_buffers()
            record["valid_nats"] = nats = mean_nats(self.averaged, batches(self.valid, self.config.eval_batch))
            release_freed_memory()
            if not math.isfinite(nats):
                raise FloatingPointError(f"train: expected a finite validation loss; got {nats} at step {self.step}")
            record["best"] = nats < self.best_nats
            if record["best"]:
                self.best_nats, self.best_step = nats, self.step
                self.save_model()
            self.seconds, self.mark = self.seconds + time.perf_counter() - now, time.perf_counter()
        self.log.append(record)

    def copy_buffers(self):
        """What a model changes itself while it trains, such as a codebook, is no average of the trainer's."""
        for copied, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)

    def save_model(self):
        self.copy_buffers()
        self.averaged.save_pretrained(self.out / "model")

    def save(self):
        self.check_finite()
        tensors = prefixed("model", self.model.state_dict())
        tensors |= prefixed("averaged", self.averaged.state_dict())
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= prefixed(f"optimizer.{index}", values)
        tensors |= {"rng.cpu": torch.get_rng_state(), "total": self.total}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "step": self.step,
            "counted": self.counted,
            "seconds": self.seconds,
            "best_nats": self.best_nats if self.best_step else None,
            "best_step": self.best_step,
            "train": self.config.to_dict(),
            "images": self.fingerprint,
        }
        save_checkpoint(self.out, tensors, state)

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
        copy_into(self.model, unprefixed("model", tensors), str(path))
        copy_into(self.averaged, unprefixed("averaged", tensors), str(path))
        moments = {}
        for name, tensor in unprefixed("optimizer", tensors).items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.total.copy_(tensors["total"])
        self.step, self.counted, self.seconds = state["step"], state["counted"], state["seconds"]
        if state["best_step"]:
            self.best_nats, self.best_step = state["best_nats"], state["best_step"]
        self.log.forget_after(self.step)


def _check_images(train, valid):
    for data in (train, valid):
        if data.images.dtype != torch.uint8 or data.images.ndim != 4 or len(data.images) == 0:
            got = f"{data.images.dtype} {tuple(data.images.shape)}"
            raise ValueError(f"{data.name}: expected uint8 images [N, C, H, W] with N at least 1; got {got}")
    if train.images.shape[1:] != valid.images.shape[1:] or train.levels != valid.levels:
        one, other = ((tuple(d.images.shape[1:]), d.levels) for d in (train, valid))
        raise ValueError(f"train, valid: expected the same shape and levels; got {one} and {other}")


def _fingerprint(parts):
    sums = (f"{tuple(part.shape)} crc32 {zlib.crc32(part.cpu().contiguous().numpy()):08x}" for part in parts)
    return ", labels ".join(sums)


def _changes(saved, given):
    if not isinstance(saved, dict):
        return f"{given} instead of {saved}"
    return ", ".join(f"{k} {given[k]} instead of {saved.get(k)}" for k in given if saved.get(k) != given[k])
