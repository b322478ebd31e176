"""Training of a generator against a discriminator, resumable to the bit."""

import math
from dataclasses import dataclass

import torch

from genfast.data.grid import grid, png
from genfast.io import write_bytes
from genfast.losses import HistoricalAverage
from genfast.metrics.equilibrium import EquilibriumMonitor
from genfast.train.checkpoint import prefixed, unprefixed
from genfast.train.config import steps_per_epoch
from genfast.train.diagnosis import first_non_finite
from genfast.train.loop import Loop, RunResult, run_training
from genfast.train.modes import ModeCoverage

SIDES = ("discriminator", "generator")
# Pairs or images of the validation set that a preview is given; a GAN draws as many as it likes.
PREVIEWED = 36


@dataclass
class AdversarialResult(RunResult):
    """`reason` is finished, interrupted or minutes; RUN/model has the averaged generator of the last step in each."""

    def __str__(self):
        return "samples/ shows how the images came to be"


def fit_adversarial(model, train, valid, config, out, *, resume=False, minutes=None, progress=None):
    """Train the two networks of `model` in turn, and keep in `out`/model the averaged generator.

    Each step is `model.discriminator_steps` updates of the discriminator, each on a batch of its own, then one of the
    generator on the last of them. What is kept is the moving average of the generator's weights, with batch norms
    settled on what these make, beside the discriminator as it is.

    Args: model (with `generator`, `discriminator`, `discriminator_steps`, `save_pretrained(folder)`, and the name of a
    loss of `genfast.metrics.equilibrium.LOSSES` as `adversarial_loss`; `discriminator_loss(*batch)` and
    `generator_loss(*batch)` -> (loss [], report), where the reports are dicts of tensors [] or [B], the
    discriminator's with real_logits and fake_logits; a batch is what `genfast.train.inputs` makes of the data: images
    and, with `config.classes`, labels, or source and target; `preview(*batch) -> uint8 [n, C, H, W]`; if it has
    one, `settle()` gives its averaged buffers their values; `least_batch`, the smallest batch that it learns from);
    train, valid (ImageData or PairData); config (AdversarialConfig); out (folder for metrics.jsonl, samples/,
    checkpoint/ and model/); resume, minutes, progress: as of `fit`. Ctrl-C and SIGTERM end the run with a whole
    checkpoint.
    Returns: AdversarialResult. Raises: FloatingPointError if a loss or a gradient stops being finite: the message names
    the first tensor that is not, and the last checkpoint stays; ValueError for a batch that is too small.
    """
    return run_training(
        AdversarialRun, model, train, valid, config, out, resume=resume, minutes=minutes, progress=progress
    )


class AdversarialRun(Loop):
    """A training of two networks against each other."""

    def __init__(self, model, train, valid, config, out, progress):
        super().__init__(model, train, valid, config, out, progress)
        least, size = model.least_batch, min(config.batch, self.images)
        if size < least:
            expected = f"at least {least}, as the model takes statistics over a batch"
            raise ValueError(f"batch: expected {expected}; got {size} of {self.images} training images")
        self.networks = {side: getattr(model, side) for side in SIDES}
        self.parameters = {side: list(network.parameters()) for side, network in self.networks.items()}
        self.averages = list(self.averaged.generator.parameters())
        self.rates = {"generator": config.lr, "discriminator": config.discriminator_lr or config.lr}
        self.optimizers = {
            side: torch.optim.Adam(self.parameters[side], lr=self.rates[side], betas=config.betas, fused=True)
            for side in SIDES
        }
        self.historical = {side: HistoricalAverage(self.parameters[side]) for side in SIDES if config.historical}
        self.monitor = EquilibriumMonitor(model.adversarial_loss)
        self.modes = None
        updates = self.steps * (1 + model.discriminator_steps)
        if config.coverage_every and ModeCoverage.possible(model, train, valid, updates):
            self.modes = ModeCoverage(train, valid, updates, self.out, self.device)
        # Sums over the steps since the last record by the name that it gives their means, and the latest norms.
        self.sums, self.norms, self.side = {}, {side: torch.zeros((), device=self.device) for side in SIDES}, SIDES[0]

    def result(self, reason):
        return AdversarialResult(self.step, self.steps, reason)

    def update(self):
        share = rate_share(self.step, self.steps, self.config)
        for side, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = share * self.rates[side]
        rounds = self.model.discriminator_steps
        for part in range(rounds):
            self.batch = self.batch_number(self.step * rounds + part)
            report = self.descend("discriminator")
            self.monitor.observe(report["real_logits"], report["fake_logits"], images=len(self.batch[0]))
        self.networks["discriminator"].requires_grad_(False)  # its gradients would be half of the work
        self.descend("generator")
        self.networks["discriminator"].requires_grad_(True)
        self.step, self.counted = self.step + 1, self.counted + 1
        self.average(self.averages, self.parameters["generator"])

    def descend(self, side):
        """One update of one network; the report of its loss."""
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

    def add(self, name, value):
        """Count a value [] in the mean of the next record; nothing waits for it."""
        held = self.sums.setdefault(name, torch.zeros(2, dtype=torch.float64, device=self.device))
        held += torch.stack((value.detach().double(), torch.ones_like(value, dtype=torch.float64)))

    def after_update(self, last):
        config, due = self.config, lambda every: last or self.step % every == 0
        # By the step alone: a run that was stopped on its way says the same as one that was not.
        if self.modes and (self.step % config.coverage_every == 0 or self.step == self.steps):
            self.settle()
            self.modes.look(self.averaged, self.monitor)
        if due(config.log_every):
            self.record()
        if last or self.epochs(self.step) > self.epochs(self.step - 1):
            self.write_grid()
        if due(config.save_every):
            self.save_model()
            if not last:
                self.save()

    def epochs(self, step):
        """How many grids are due by a step: one for each `grid_every` epochs that are over."""
        seen = step * self.model.discriminator_steps / steps_per_epoch(self.images, self.config.batch)
        return math.floor(seen / self.config.grid_every + 1e-9)

    def check_finite(self):
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

    def record(self):
        self.check_finite()
        record = self.count(min(self.config.batch, self.images) * self.model.discriminator_steps)
        totals = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        record |= {name: total / count for name, (total, count) in zip(self.sums, totals, strict=True) if count}
        record |= {f"{side}_norm": float(self.norms[side]) for side in SIDES}
        record["lr"] = self.optimizers["generator"].param_groups[0]["lr"]
        for held in self.sums.values():
            held.zero_()
        self.log.append(record | self.monitor.record())

    def write_grid(self):
        """Sample images of the averaged generator as RUN/samples/step-0000100.png."""
        self.settle()
        images = self.averaged.preview(*(part[:PREVIEWED] for part in self.valid))
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        picture = grid(images.cpu(), self.model.config.levels)
        write_bytes(folder / f"step-{self.step:07d}.png", png(picture))

    def settle(self):
        """Make the averaged model whole: its averaged generator, its present discriminator, and buffers that fit."""
        self.copy_buffers()
        target = self.averaged.discriminator.state_dict()
        with torch.no_grad():
            for name, value in self.networks["discriminator"].state_dict().items():
                target[name].copy_(value)
        self.averaged.settle()

    def save_model(self):
        self.check_finite()
        self.settle()
        self.averaged.save_pretrained(self.out / "model")

    def save(self):
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise FloatingPointError(f"train: expected finite weights; got others in {name} at step {self.step}")
        super().save()

    def tensors(self):
        tensors = super().tensors() | prefixed("sums", self.sums) | prefixed("monitor", self.monitor.state_dict())
        for side, average in self.historical.items():
            tensors |= prefixed(f"historical.{side}", average.state_dict())
        return tensors | {f"norm.{side}": norm for side, norm in self.norms.items()}

    def load(self, tensors, state):
        super().load(tensors, state)
        self.sums = {name: value.to(self.device) for name, value in unprefixed("sums", tensors).items()}
        self.monitor.load_state_dict(unprefixed("monitor", tensors), self.device)
        for side, average in self.historical.items():
            average.load_state_dict(unprefixed(f"historical.{side}", tensors))
        self.norms = {side: tensors[f"norm.{side}"].to(self.device) for side in SIDES}


def rate_share(step, steps, config):
    """The learning rates in parts of their peak: a linear rise, a plateau, and a linear fall to zero."""
    warmup = min(config.warmup, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return min(1.0, (steps - step) / max(1, round(config.decay * steps)))
