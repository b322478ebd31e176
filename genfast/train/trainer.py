"""Training of any model with a loss in nats per image, resumable to the bit."""

import math
import time
from dataclasses import dataclass

import torch

from genfast.engine.protocols import Bounded
from genfast.train.config import TrainConfig
from genfast.train.diagnosis import first_non_finite, loss_of
from genfast.train.inputs import batches
from genfast.train.loop import Loop, RunResult, pick_device, run_training
from genfast.train.memory import release_freed_memory
from genfast.train.optim import learning_rate, make_optimizer

__all__ = ["FitResult", "Run", "TrainConfig", "fit", "mean_nats", "pick_device"]


@dataclass
class FitResult(RunResult):
    """`reason` is finished, interrupted or minutes; `best_*` are of the weights in RUN/model."""

    best_nats: float
    best_step: int

    def __str__(self):
        return f"validation {self.best_nats:.2f} nats per image at step {self.best_step}"


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
    return run_training(Run, model, train, valid, config, out, resume=resume, minutes=minutes, progress=progress)


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
        nats = model.bound(*batch, first=count) if isinstance(model, Bounded) else model.log_prob(*batch)
        total -= nats.double().sum().item()
        count += len(nats)
    model.train(was_training)
    return total / count


class Run(Loop):
    """A training that minimises nats per image, and keeps the weights that do best on the validation images."""

    def __init__(self, model, train, valid, config, out, progress):
        super().__init__(model, train, valid, config, out, progress)
        self.parameters = list(model.parameters())
        self.averages = list(self.averaged.parameters())
        self.optimizer = make_optimizer(model, config)
        self.optimizers = {"optimizer": self.optimizer}
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)
        self.best_nats, self.best_step = math.inf, 0
        self.norm = torch.zeros(())

    @property
    def has_model(self):
        return self.best_step > 0

    def result(self, reason):
        return FitResult(self.step, self.steps, reason, self.best_nats, self.best_step)

    def next_batch(self):
        """Images, or images and their labels, as the arguments of `loss`."""
        return self.batch_number(self.step)

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
        self.average(self.averages, self.parameters)

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

    def save_model(self):
        self.copy_buffers()
        self.averaged.save_pretrained(self.out / "model")

    def tensors(self):
        return super().tensors() | {"total": self.total}

    def state(self):
        best = {"best_nats": self.best_nats if self.best_step else None, "best_step": self.best_step}
        return super().state() | best

    def load(self, tensors, state):
        super().load(tensors, state)
        self.total.copy_(tensors["total"])
        if state["best_step"]:
            self.best_nats, self.best_step = state["best_nats"], state["best_step"]
