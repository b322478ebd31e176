"""Monitoring how far a GAN is from equilibrium, while it trains.

If the generator has the distribution of the data, no discriminator does better than guessing: its accuracy on real and
generated images together is 1/2, whatever its threshold. `EquilibriumMonitor` records how far a training is from that::

    monitor = EquilibriumMonitor(loss=model.adversarial_loss)  # a name of LOSSES
    # after each discriminator step; this does not synchronise with a GPU:
    monitor.observe(report["real_logits"], report["fake_logits"], images=len(batch[0]))
    # with a classifier, now and then; it is then in all later records:
    monitor.cover(classifier.predict(samples), data.labels, data.classes)
    # when a line of metrics.jsonl is due: a dict of floats; the next window begins
    log.append({"step": step, ...} | monitor.record())
    # with the checkpoint, so that a resumed run writes the same lines:
    tensors |= prefixed("monitor", monitor.state_dict())
    monitor.load_state_dict(unprefixed("monitor", tensors))

`verdict` puts it into words. What a logit means depends on the loss, see `genfast.metrics.discriminator`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from genfast._text import shown
from genfast.metrics.coverage import mode_coverage
from genfast.metrics.discriminator import LOSSES, above_middle, accuracy_of_steps, calibration, check_loss

MOST_LOGITS = 2**18
COVERED = ("classes_hit", "classes", "class_outside", "class_kl")
SHARES = COVERED[2:]  # floats; the others count


class EquilibriumMonitor:
    """Collects the logits of the discriminator's steps, and summarises them in one record per window.

    Args:
        loss: a name of `LOSSES`.
        limit: logits of each kind to keep; if a window has more, the latest are kept.

    `record` returns these floats: accuracy, accuracy_low, accuracy_high, accuracy_count, accuracy_real, accuracy_fake
    (see `Accuracy`); d_real, d_fake: mean calibrated D(x), D(G(z)); calibration_slope; for losses whose logits state a
    probability also stated_real, stated_fake, calibration_error (see `Calibration`); after `cover` also classes_hit,
    classes, class_kl, class_outside (see `genfast.metrics.Coverage`). Without observations it is empty.

    Raises: ValueError for another loss; FloatingPointError in `record` for logits that are not finite.
    """

    def __init__(self, loss: str = "non-saturating", *, limit: int = MOST_LOGITS) -> None:
        check_loss("EquilibriumMonitor", loss)
        self.loss, self.limit = loss, limit
        self.window: deque[tuple[Tensor, Tensor, int]] = deque()
        self.held = 0
        self.coverage: dict[str, float] = {}

    def observe(self, real_logits: Tensor, fake_logits: Tensor, images: int | None = None) -> None:
        """Keep the logits of one step, [B] or [B * patches] of each kind, on their device and without synchronising.

        `images`: B, if an image has several logits.
        """
        real, fake = (logits.detach().to(torch.float32, copy=True).flatten() for logits in (real_logits, fake_logits))
        self._keep(real, fake, images or real.numel())

    def _keep(self, real: Tensor, fake: Tensor, images: int) -> None:
        self.window.append((real, fake, images))
        self.held += real.numel()
        while self.held > self.limit and len(self.window) > 1:
            self.held -= self.window.popleft()[0].numel()

    def cover(self, predicted: ArrayLike, labels: ArrayLike, classes: int) -> None:
        """Keep the `mode_coverage` of generated samples for this record and the following ones; arguments as there."""
        coverage = mode_coverage(predicted, labels, classes)
        self.coverage = {"classes_hit": coverage.hit, "classes": coverage.classes, "class_outside": coverage.outside}
        if math.isfinite(coverage.kl):
            self.coverage["class_kl"] = coverage.kl

    def record(self) -> dict[str, float]:
        """The summary of what was observed since the last call. Starts the next window."""
        if not self.window:
            return dict(self.coverage)
        steps, images = self._steps(), sum(images for *_, images in self.window)
        self.window, self.held = deque(), 0
        real, fake = (torch.cat(part) for part in zip(*steps))
        if not (real.isfinite().all() and fake.isfinite().all()):
            raise FloatingPointError("EquilibriumMonitor: logits must be finite; got a NaN or an infinity")
        right = accuracy_of_steps(steps, self.loss, images)
        if LOSSES[self.loss][0] is None:  # the free constant may drift from step to step
            real, fake = above_middle(steps)
        fitted = calibration(real, fake, self.loss)
        record = {
            "accuracy": right.both,
            "accuracy_low": right.low,
            "accuracy_high": right.high,
            "accuracy_count": right.count,
            "accuracy_real": right.real,
            "accuracy_fake": right.fake,
            "d_real": fitted.real,
            "d_fake": fitted.fake,
            "calibration_slope": fitted.slope,
        }
        stated = {
            "stated_real": fitted.stated_real,
            "stated_fake": fitted.stated_fake,
            "calibration_error": fitted.error,
        }
        record |= {name: value for name, value in stated.items() if value is not None}
        return record | self.coverage

    def state_dict(self) -> dict[str, Tensor]:
        """The open window as tensors: real and fake [n], sizes int64 [steps, 3], coverage float64 [4].

        The coverage is NaN where `cover` gave no value, and empty before it was called.
        """
        sizes = [(len(real), len(fake), images) for real, fake, images in self.window]
        covered = [float(self.coverage.get(name, math.nan)) for name in COVERED] if self.coverage else []
        none = torch.zeros(0, dtype=torch.float32, device="cpu")
        return {
            "real": torch.cat([real for real, _, _ in self.window] or [none]),
            "fake": torch.cat([fake for _, fake, _ in self.window] or [none]),
            "sizes": torch.tensor(sizes, dtype=torch.int64, device="cpu").reshape(-1, 3),
            "coverage": torch.tensor(covered, dtype=torch.float64, device="cpu"),
        }

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device | str | None = None) -> None:
        """Restore the window of `state_dict`, on `device` if given. ValueError for what is none."""
        _check_window(state)
        sizes = state["sizes"].tolist()
        parts = [
            state[name].to(device, copy=True).split([size[i] for size in sizes]) if sizes else ()
            for i, name in enumerate(("real", "fake"))
        ]
        self.window, self.held = deque(), 0
        for real, fake, (*_, images) in zip(*parts, sizes, strict=True):
            self._keep(real, fake, images)
        values = state["coverage"].tolist() if "coverage" in state else []
        known = {name: value for name, value in zip(COVERED, values, strict=False) if not math.isnan(value)}
        self.coverage = {name: value if name in SHARES else int(value) for name, value in known.items()}

    def _steps(self) -> list[tuple[Tensor, Tensor]]:
        """The (real, fake) of each step, float64 on the CPU, in one transfer."""
        sizes = [len(part) for real, fake, _ in self.window for part in (real, fake)]
        everything = torch.cat([part for real, fake, _ in self.window for part in (real, fake)])
        parts = everything.cpu().double().split(sizes)
        return list(zip(parts[::2], parts[1::2], strict=True))


def _check_window(state: Mapping[str, Tensor]) -> None:
    """ValueError for tensors that `EquilibriumMonitor.state_dict` cannot have returned."""
    names = {"real": torch.float32, "fake": torch.float32, "sizes": torch.int64, "coverage": torch.float64}
    dtypes = {name: tensor.dtype for name, tensor in state.items()}
    if {"coverage": torch.float64} | dtypes != names:  # an earlier version had no coverage
        raise ValueError(f"EquilibriumMonitor: state must have the dtypes {names}; got {shown(dtypes)}")
    real, fake, sizes = state["real"], state["fake"], state["sizes"]
    counted = sizes.dim() == 2 and sizes.shape[1] == 3 and (not len(sizes) or int(sizes.min()) >= 1)
    # Of numbers up to 2**63 the sum would not be right.
    counted = counted and (not len(sizes) or int(sizes.max()) <= 2**40)
    if (
        not counted
        or sizes[:, :2].sum(0).tolist() != [real.numel(), fake.numel()]
        or real.dim() != 1
        or fake.dim() != 1
    ):
        got = f"{tuple(real.shape)}, {tuple(fake.shape)} and {shown(sizes.tolist(), 100)}"
        raise ValueError(f"EquilibriumMonitor: state must have the logits that its sizes count; got {got}")
    if not (bool(real.isfinite().all()) and bool(fake.isfinite().all())):
        raise ValueError("EquilibriumMonitor: state must have finite logits; got a NaN or an infinity")
    covered = state["coverage"].flatten().tolist() if "coverage" in state else []
    flat = "coverage" not in state or state["coverage"].dim() == 1
    if (
        not flat
        or len(covered) not in (0, len(COVERED))
        or not all(math.isnan(value) or 0 <= value < 2**40 for value in covered)
    ):
        raise ValueError(
            f"EquilibriumMonitor: state must have a coverage of {', '.join(COVERED)}; got {shown(covered)}"
        )
