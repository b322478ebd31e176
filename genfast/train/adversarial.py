"""Training of a generator against a discriminator; it resumes bit for bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genfast._tensors import Kind
from genfast.data import ImageData
from genfast.data.grid import grid, png
from genfast.io import write_bytes
from genfast.losses import HistoricalAverage
from genfast.metrics.equilibrium import EquilibriumMonitor
from genfast.train.checkpoint import Tensors, prefixed, unprefixed
from genfast.train.config import AdversarialConfig, steps_per_epoch
from genfast.train.diagnosis import first_non_finite
from genfast.train.loop import Data, Loop, Progress, RunResult, folder_of_run, run_training
from genfast.train.modes import ModeCoverage
from genfast.train.restore import TrainState
from genfast.train.run_folder import run_writer

SIDES = ("discriminator", "generator")
# Images of the validation set that `preview` of a model is given.
PREVIEWED = 36
SUM = Kind((2,), torch.float64)
MOST_COUNTED = 2.0**40


@dataclass
class AdversarialResult(RunResult):
    """The result of `fit_adversarial`; RUN/model has the averaged generator of the last step, whatever the reason."""

    def __str__(self) -> str:
        return "samples/ shows how the images came to be"


def fit_adversarial(
    model: Any,
    train: Any,
    valid: Any = None,
    config: AdversarialConfig | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> AdversarialResult:
    """Train the two networks of `model` in turn, and store in `out`/model the averaged generator.

    A step is `model.discriminator_steps` updates of the discriminator, each on its own batch, and then one of the
    generator, on the last of these batches. The stored generator has the moving average of the weights, with batch
    statistics recomputed for them; the stored discriminator is the present one. Ctrl-C and SIGTERM end the run with a
    complete checkpoint.

    Args:
        model: a `genfast.engine.protocols.Adversarial` with `save_pretrained(folder)`. Its batches are those of
            `genfast.train.inputs`: (images,), or (images, labels) with `spec.classes` above 0, or (source, target).
        train, valid: as for `fit`; PairData, or a Dataset of (source, target), for a model of pairs.
        config: AdversarialConfig; None: its defaults.
        out: folder for metrics.jsonl, samples/, checkpoint/ and model/.
        resume, minutes, progress: as for `fit`.
    Returns: AdversarialResult.
    Raises: FloatingPointError if a loss or a gradient is not finite: the message names the first such tensor, and the
        last checkpoint remains; ValueError for a batch that is too small.
    """
    config, out = config or AdversarialConfig(), folder_of_run("fit_adversarial", out)
    options: Any = {"resume": resume, "minutes": minutes, "progress": progress}
    with run_writer(out, resume=resume, settings=False):
        return run_training(AdversarialRun, model, train, valid, config, out, **options)


class AdversarialRun(Loop):
    """A training of two networks against each other."""

    config: AdversarialConfig
    own_checks = ("sums.", "monitor.")

    def __init__(
        self, model: Any, train: Data, valid: Data, config: AdversarialConfig, out: Path, progress: Progress | None
    ) -> None:
        super().__init__(model, train, valid, config, out, progress)
        least, size = model.least_batch, min(config.batch, self.images)
        if size < least:
            expected = f"at least {least}, as the model takes statistics over a batch"
            raise ValueError(f"batch: expected {expected}; got {size} of {self.images} training images")
        self.networks = {side: getattr(model, side) for side in SIDES}
        self.parameters = {side: list(network.parameters()) for side, network in self.networks.items()}
        self.averages = list(self.averaged.generator.parameters())
        self.averaged_parameters = self.parameters["generator"]
        self.rates = {"generator": config.lr, "discriminator": config.discriminator_lr or config.lr}
        self.optimizers = {
            side: torch.optim.Adam(self.parameters[side], lr=self.rates[side], betas=config.betas, fused=True)
            for side in SIDES
        }
        self.historical = {side: HistoricalAverage(self.parameters[side]) for side in SIDES if config.historical}
        self.levels = train.levels
        self.monitor = EquilibriumMonitor(model.adversarial_loss)
        self.modes: ModeCoverage | None = None
        self.data = train, valid
        # By the name of their mean in a record: (sum, count) since the last record.
        self.sums: Tensors = {}
        # Of the latest gradients.
        self.norms = {side: torch.zeros((), device=self.device, dtype=self.parameters[side][0].dtype) for side in SIDES}
        self.side = SIDES[0]  # which is updated

    def prepare(self) -> None:
        train, valid = self.data
        updates = self.steps * (1 + self.model.discriminator_steps)
        if isinstance(train, ImageData) and isinstance(valid, ImageData):
            if self.config.coverage_every and ModeCoverage.possible(self.model, train, valid, updates):
                with torch.random.fork_rng(devices=[]):  # a classifier that is read begins with random weights
                    self.modes = ModeCoverage(train, valid, updates, self.out, self.device)

    def result(self, reason: str) -> AdversarialResult:
        return AdversarialResult(self.step, self.steps, reason)

    def update(self) -> None:
        share = rate_share(self.step, self.planned, self.config)
        for side, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = share * self.rates[side]
        rounds = self.model.discriminator_steps
        for part in range(rounds):
            self.batch = self.batch_number(self.step * rounds + part)
            report = self.descend("discriminator")
            self.monitor.observe(report["real_logits"], report["fake_logits"], images=len(self.batch[0]))
        self.networks["discriminator"].requires_grad_(False)  # computing its gradients would be half of the work
        self.descend("generator")
        self.networks["discriminator"].requires_grad_(True)
        self.advance()

    def descend(self, side: str) -> dict[str, Tensor]:
        """One update of one network; returns the report of its loss."""
        self.side, self.random = side, torch.get_rng_state()
        with self.precision():
            loss, report = getattr(self.model, f"{side}_loss")(*self.batch)
        if self.config.historical:
            loss = loss + self.config.historical * self.historical[side]()
        optimizer = self.optimizers[side]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.norms[side] = torch.nn.utils.clip_grad_norm_(self.parameters[side], self.config.clip or math.inf)
        self.add(f"{side}_loss", loss)
        for name, values in report.items():
            if side == "discriminator" or not name.endswith("_logits"):
                self.add(name, values.float().mean())
        if self.device.type == "cpu":
            self.check_finite()
        optimizer.step()
        if self.config.historical:
            self.historical[side].update()
        return report

    def add(self, name: str, value: Tensor) -> None:
        """Add a value [] to the mean in the next record, without synchronising."""
        held = self.sums.setdefault(name, torch.zeros(2, dtype=torch.float64, device=self.device))
        held += torch.stack((value.detach().double(), torch.ones_like(value, dtype=torch.float64)))

    def after_update(self, last: bool) -> None:
        config = self.config
        if self.modes and self.is_due(config.coverage_every, last):
            self.settle()
            self.modes.look(self.averaged, self.monitor)
        if self.is_due(config.log_every, last):
            self.record()
        if last or self.epochs(self.step) > self.epochs(self.step - 1):
            self.write_grid()
        if self.is_due(config.save_every, last):
            self.save_model()
            if not last:
                self.save()

    def epochs(self, step: int) -> int:
        """The number of grids due by a step: one for every `grid_every` epochs."""
        seen = step * self.model.discriminator_steps / steps_per_epoch(self.images, self.config.batch)
        return math.floor(seen / self.config.grid_every + 1e-9)

    def check_finite(self) -> None:
        held = torch.stack([*(value[0] for value in self.sums.values()), *(n.double() for n in self.norms.values())])
        if bool(held.isfinite().all()):
            return
        with self.precision():
            where = first_non_finite(
                self.model, self.batch, self.random, lambda model, batch: getattr(model, f"{self.side}_loss")(*batch)[0]
            )
        values = ", ".join(
            f"{side} {float(self.sums[f'{side}_loss'][0])} with gradient norm {float(self.norms[side])}"
            for side in SIDES
            if f"{side}_loss" in self.sums
        )
        raise FloatingPointError(
            f"train: expected finite losses; got {values} by step {self.step + 1}, an update of the {self.side}; "
            f"first that is not finite: {where} (the checkpoint is whole)"
        )

    def record(self) -> None:
        """Log the means since the last record."""
        self.check_finite()
        record = self.count(min(self.config.batch, self.images) * self.model.discriminator_steps)
        totals = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        record |= {name: total / count for name, (total, count) in zip(self.sums, totals, strict=True) if count}
        record |= {f"{side}_norm": float(self.norms[side]) for side in SIDES}
        record["lr"] = self.optimizers["generator"].param_groups[0]["lr"]
        for held in self.sums.values():
            held.zero_()
        self.log.append(record | self.monitor.record())

    def write_grid(self) -> None:
        """Write a preview of the averaged generator as RUN/samples/step-0000100.png."""
        self.settle()
        images = self.averaged.preview(*(part[:PREVIEWED] for part in self.valid))
        picture = grid(images.cpu(), self.levels)
        write_bytes(self.out / "samples" / f"step-{self.step:07d}.png", png(picture))

    def settle(self) -> None:
        """Complete the averaged model: averaged generator, present discriminator, and buffers that fit the weights."""
        self.copy_buffers()
        target = self.averaged.discriminator.state_dict()
        with torch.no_grad():
            for name, value in self.networks["discriminator"].state_dict().items():
                target[name].copy_(value)
        self.averaged.settle()

    def save_model(self) -> None:
        self.check_finite()
        self.settle()
        self.averaged.save_pretrained(self.out / "model")

    def save(self) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise FloatingPointError(f"train: expected finite weights; got others in {name} at step {self.step}")
        super().save()

    def tensors(self) -> Tensors:
        tensors = super().tensors() | prefixed("sums", self.sums) | prefixed("monitor", self.monitor.state_dict())
        for side, average in self.historical.items():
            tensors |= prefixed(f"historical.{side}", average.state_dict())
        return tensors | {f"norm.{side}": norm for side, norm in self.norms.items()}

    def load(self, tensors: Tensors, state: TrainState) -> None:
        super().load(tensors, state)
        self.sums = {name: value.to(self.device) for name, value in unprefixed("sums", tensors).items()}
        for name, value in self.sums.items():
            if Kind.of(value) != SUM or not bool(value.isfinite().all()) or not 0 <= value[1] <= MOST_COUNTED:
                raise ValueError(
                    f"sums.{name} must be a sum and a count, {SUM}; got {Kind.of(value)} {value[:2].tolist()}"
                )
        self.monitor.load_state_dict(unprefixed("monitor", tensors), self.device)
        for side, average in self.historical.items():
            average.load_state_dict(unprefixed(f"historical.{side}", tensors))
            if not 1 <= int(average.steps) <= 1 + state.step * self.model.discriminator_steps:
                raise ValueError(f"historical.{side}.steps must be those of the run; got {int(average.steps)}")
        self.norms = {side: tensors[f"norm.{side}"].to(self.device) for side in SIDES}


def rate_share(step: int, steps: int, config: AdversarialConfig) -> float:
    """The learning rate as a share of its peak: a linear rise, a plateau, and a linear fall to zero."""
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (steps - step) / max(1, round(config.decay * steps)))
