"""The duality gap of a GAN: what either side would gain by its best response to the other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genfast import losses
from genfast._defaults import plain_defaults
from genfast.engine.wrappers import unwraps
from genfast.metrics.discriminator import Accuracy, check_loss, discriminator_accuracy
from genfast.random import permutation

# The value of the game is minus the discriminator's loss without penalties; the generator minimises it.
VALUES = {
    "non-saturating": losses.non_saturating_discriminator,
    "minimax": losses.non_saturating_discriminator,
    "least-squares": losses.least_squares_discriminator,
    "hinge": losses.hinge_discriminator,
    "wasserstein": losses.wasserstein_discriminator,
    "relativistic": losses.relativistic_discriminator,
}
LOOKS = 5  # measurements of a response during its training


@dataclass(frozen=True)
class DualityGap:
    """An estimate of the duality gap.

    Attributes:
        gap: `discriminator` - `generator`, at least 0.
        value: of the game for the present pair.
        discriminator, generator: the value after the best response of either side.
        accuracy: of the best discriminator, on samples that it was not trained on, but selected by, which makes it
            slightly optimistic. If it is not above 1/2, the generator cannot learn more from such a network.
    """

    gap: float
    value: float
    discriminator: float
    generator: float
    accuracy: Accuracy


@unwraps
def duality_gap(
    model: Any,
    data: Iterable[Tensor],
    *,
    loss: str | None = None,
    steps: int = 100,
    batch: int = 64,
    rate: float = 1e-3,
    measured: int = 1024,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> DualityGap:
    """Estimate `max_D V(G, D) - min_G V(G, D)` around the present pair, from `steps` updates of either side.

    V is minus the loss of the discriminator without penalties. At equilibrium it is -log 4 for the sigmoid losses, -2
    for hinge, -1/4 for least squares, -log 2 for relativistic and 0 for Wasserstein. A response trains a copy of one
    side against the other, with its own loss and Adam. It is measured `LOOKS` times, on held-out data and always the
    same latents. The best measurement counts, that of the present pair included, so the gap is never negative.

    The estimate has two biases. Short responses gain less than the best ones. But the best of several noisy
    measurements is taken: at an equilibrium the gap is slightly above 0 and the accuracy slightly above 1/2, by less
    with more samples.

    The model and the random state of torch do not change.

    Args:
        model: with `generator`, `discriminator`, `discriminator_loss(*batch)` and `generator_loss(*batch)`, each
            (loss [], report), the first report with real_logits and fake_logits.
        data: the tensors of the training data, (images,) or (images, labels), each [N, ...], on the model's device.
        loss: a name of `genfast.metrics.discriminator.LOSSES`; None: the model's `adversarial_loss`.
        steps, batch, rate: updates of a response, samples in each, learning rate.
        measured: samples to measure on, at most half of the data.
        seed: of the batches, the latents, and the selection of the samples to measure on.
        progress: called with 1 after each update.
    Returns: DualityGap.
    Raises: ValueError for another loss or fewer than 4 samples; FloatingPointError for a value that is not finite.
    Paper: A Domain Agnostic Measure for Monitoring and Evaluating GANs, Grnarova et al. 2019, arXiv 1811.05512.
    """
    loss = model.adversarial_loss if loss is None else loss
    check_loss("duality_gap", loss)
    data = tuple(data)
    if len(data[0]) < 4:
        raise ValueError(f"duality_gap: data must hold at least 4 samples; got {len(data[0])}")
    apart = min(measured, len(data[0]) // 2)
    order = permutation(len(data[0]), seed).to(data[0].device)
    seen, unseen = (tuple(part[rows] for part in data) for rows in (order[apart:], order[:apart]))
    device = next(model.parameters()).device
    # Batches of the size of training: for batch statistics, and for the pairs of relativistic losses.
    parts = list(zip(*(part.split(min(batch, apart)) for part in unseen), strict=True))
    parts = [part for part in parts if len(part[0]) > 1]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        measure = _Measure(parts, loss, seed)
        present = measure(model)
        value = present[0]
        best: dict[str, tuple[float, Accuracy]] = {}
        for side, other in (("discriminator", "generator"), ("generator", "discriminator")):
            sign = 1 if side == "discriminator" else -1
            best[side] = present
            for measurement in _responses(model, side, other, seen, measure, steps, batch, rate, seed, progress):
                if sign * measurement[0] > sign * best[side][0]:
                    best[side] = measurement
    (high, accuracy), (low, _) = best["discriminator"], best["generator"]
    return DualityGap(high - low, value, high, low, accuracy)


class _Measure:
    """A function: a model -> (value, accuracy), on the same data and latents at each call."""

    def __init__(self, parts: list[tuple[Tensor, ...]], loss: str, seed: int) -> None:
        self.parts, self.loss, self.seed = parts, loss, seed

    def __call__(self, model: Any) -> tuple[float, Accuracy]:
        device = self.parts[0][0].device
        model = copy.deepcopy(model).train().requires_grad_(False)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed + 1)
            reports = [model.discriminator_loss(*part)[1] for part in self.parts]
        real, fake = (
            torch.cat([r[name].flatten().double() for r in reports]) for name in ("real_logits", "fake_logits")
        )
        value = -float(VALUES[self.loss](real, fake))
        if not abs(value) < float("inf"):
            raise FloatingPointError(f"duality_gap: the value of the game must be finite; got {value}")
        images = sum(len(part[0]) for part in self.parts)
        return value, discriminator_accuracy(real, fake, self.loss, images=images)


def _responses(
    model: Any,
    side: str,
    other: str,
    data: tuple[Tensor, ...],
    measure: _Measure,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    progress: Callable[[int], object] | None,
) -> Iterator[tuple[float, Accuracy]]:
    """The measurements of a copy of the model while one side is trained towards its best response."""
    model = copy.deepcopy(model).train().requires_grad_(True)
    getattr(model, other).requires_grad_(False)
    optimizer = torch.optim.Adam(getattr(model, side).parameters(), lr=rate, betas=(0.5, 0.9))
    torch.manual_seed(seed)
    looks = {steps * look // LOOKS for look in range(1, LOOKS + 1)}
    for step in range(1, steps + 1):
        count = len(data[0])
        rows = torch.randint(count, (min(batch, count),), dtype=torch.int64, device="cpu").to(data[0].device)
        loss, _ = getattr(model, f"{side}_loss")(*(part[rows] for part in data))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with plain_defaults():
            optimizer.step()
        if progress is not None:
            progress(1)
        if step in looks:
            yield measure(model)
