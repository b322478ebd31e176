"""Training of a model with a loss in nats per image; it resumes bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genfast.engine.calling import evaluating
from genfast.engine.protocols import Bounded
from genfast.engine.wrappers import unwraps
from genfast.train.checkpoint import Tensors
from genfast.train.config import TrainConfig, is_adversarial
from genfast.train.diagnosis import first_non_finite, loss_of
from genfast.train.inputs import batches, kind_of
from genfast.train.loop import Data, Loop, Progress, RunResult, folder_of_run, pick_device, run_training
from genfast.train.memory import release_freed_memory
from genfast.train.optim import learning_rate, make_optimizer
from genfast.train.restore import TrainState
from genfast.train.run_folder import run_writer

__all__ = ["FitResult", "Run", "TrainConfig", "fit", "mean_nats", "pick_device"]


@dataclass
class FitResult(RunResult):
    """The result of `fit`.

    Attributes:
        best_nats, best_step: validation loss and step of the weights in RUN/model.
    """

    best_nats: float
    best_step: int

    def __str__(self) -> str:
        return f"validation {self.best_nats:.2f} nats per image at step {self.best_step}"


def fit(
    model: Any,
    train: Any,
    valid: Any = None,
    config: TrainConfig | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train `model` on `train`, and store in `out`/model the averaged weights with the best loss on `valid`.

    Ctrl-C and SIGTERM end the run with a complete checkpoint. No other process can write to `out` meanwhile.

    Args:
        model: with `save_pretrained(folder)`, and `log_prob(images) -> [B]` in nats. A `Trainable` has its own `loss`
            for training, a `Bounded` its own `bound` for the validation. With `spec.classes` above 0 each also takes
            labels.
        train, valid: images: uint8 levels, a tensor or an array [n, C, H, W], [n, H, W, C] or [n, H, W]; a tuple
            (images, labels) of two; a torch Dataset or DataLoader of PIL images, of levels, or of ToTensor's floats,
            with or without labels; or ImageData. Floats in a tensor are refused. Each item of a dataset is read once.
            `valid` None: a tenth of the training images is held out.
        config: TrainConfig; None: its defaults.
        out: folder for metrics.jsonl, checkpoint/ and model/.
        resume: continue the run in `out`, with the same result as without an interruption.
        minutes: stop after so long, ready for `resume`. It leaves no trace in the run: neither a record nor an
            evaluation. The length of a training in minutes is `config.budget`, which the learning rate follows.
        progress: called with each record of metrics.jsonl, a dict, as soon as it is written.
    Returns: FitResult.
    Raises: FloatingPointError if the loss is not finite; TypeError or ValueError for data that are no images of the
        model; RuntimeError if another process writes to `out`; FileExistsError for an `out` with a run that is not
        resumed, or with files that no run wrote.
    Example: `genfast.fit(model, images, out="runs/mine")`
    """
    if is_adversarial(model):
        raise TypeError(f"fit: model must have a likelihood; got a {kind_of(model)}, which fit_adversarial trains")
    config, out = config or TrainConfig(), folder_of_run("fit", out)
    options: Any = {"resume": resume, "minutes": minutes, "progress": progress}
    with run_writer(out, resume=resume, settings=False):
        return run_training(Run, model, train, valid, config, out, **options)


@unwraps
@torch.no_grad()
def mean_nats(model: Any, batches: Iterable[Tensor | tuple[Tensor, ...]]) -> float:
    """Mean negative log-likelihood, or `bound` on it, in nats per image, in evaluation mode.

    `batches`: of images, or of tuples (images, labels) for a conditional model.
    """
    total, count = 0.0, 0
    with evaluating(model):
        for batch in batches:
            inputs = batch if isinstance(batch, tuple) else (batch,)
            nats = model.bound(*inputs, first=count) if isinstance(model, Bounded) else model.log_prob(*inputs)
            total -= nats.double().sum().item()
            count += len(nats)
    return total / count


class Run(Loop):
    """Minimises nats per image, and stores the weights with the best validation loss."""

    config: TrainConfig

    def __init__(
        self, model: Any, train: Data, valid: Data, config: TrainConfig, out: Path, progress: Progress | None
    ) -> None:
        super().__init__(model, train, valid, config, out, progress)
        self.parameters = self.averaged_parameters = list(model.parameters())
        self.averages = list(self.averaged.parameters())
        self.optimizer = make_optimizer(model, config)
        self.optimizers = {"optimizer": self.optimizer}
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.best_nats, self.best_step = math.inf, 0
        self.norm = torch.zeros((), dtype=torch.float32, device=self.device)

    @property
    def has_model(self) -> bool:
        return self.best_step > 0

    def result(self, reason: str) -> FitResult:
        return FitResult(self.step, self.steps, reason, self.best_nats, self.best_step)

    def next_batch(self) -> tuple[Tensor, ...]:
        """The arguments of `loss`: images, or images and labels."""
        return self.batch_number(self.step)

    def update(self) -> None:
        config = self.config
        rate = learning_rate(self.step, self.planned, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batch = self.next_batch()
        self.random = torch.get_rng_state()
        # Per dimension, so that a clipping threshold fits every image size; AdamW is invariant to the scale.
        with self.precision():
            loss = loss_of(self.model, batch).mean()
        self.optimizer.zero_grad(set_to_none=True)
        (loss / batch[0][0].numel()).backward()
        self.norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.clip or math.inf)
        self.total += loss.detach()
        if self.device.type == "cpu":
            self.check_finite()
        self.optimizer.step()
        self.advance()

    def after_update(self, last: bool) -> None:
        config, evaluate = self.config, self.is_due(self.config.eval_every, last)
        if evaluate or self.is_due(config.log_every, last):
            self.record(evaluate)
        if self.is_due(config.save_every, last) and not last:
            self.save()

    def check_finite(self) -> None:
        if not math.isfinite(self.total.item() + float(self.norm)):
            got = f"{self.total.item()} with gradient norm {float(self.norm)} by step {self.step + 1}"
            with self.precision():
                where = first_non_finite(self.model, self.batch, self.random) if self.batch else "unknown"
            raise FloatingPointError(
                f"train: expected a finite loss; got {got}; first that is not finite: {where} (the checkpoint is whole)"
            )

    def record(self, evaluate: bool) -> None:
        """Log the losses since the last record; `evaluate`: also on the validation images."""
        self.check_finite()
        nats = self.total.item() / max(1, self.counted)
        record = self.count(min(self.config.batch, self.images))
        record |= {"train_nats": nats, "lr": self.optimizer.param_groups[0]["lr"], "grad_norm": float(self.norm)}
        self.total.zero_()
        now = self.mark
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

    def save_model(self) -> None:
        self.copy_buffers()
        self.averaged.save_pretrained(self.out / "model")

    def tensors(self) -> Tensors:
        return super().tensors() | {"total": self.total}

    def state(self) -> dict[str, Any]:
        best = {"best_nats": self.best_nats if self.best_step else None, "best_step": self.best_step}
        return super().state() | best

    def load(self, tensors: Tensors, state: TrainState) -> None:
        super().load(tensors, state)
        self.total.copy_(tensors["total"])
        if state.best_nats is not None:
            self.best_nats, self.best_step = state.best_nats, state.best_step
