"""The duality gap of a GAN: what either side would gain by playing its best response to the other."""

import copy
from dataclasses import dataclass

import torch

from genfast import losses
from genfast.metrics.discriminator import Accuracy, check_loss, discriminator_accuracy

# The game's value is minus the discriminator's loss without penalties: it maximises that, the generator minimises it.
VALUES = {
    "non-saturating": losses.non_saturating_discriminator,
    "minimax": losses.non_saturating_discriminator,
    "least-squares": losses.least_squares_discriminator,
    "hinge": losses.hinge_discriminator,
    "wasserstein": losses.wasserstein_discriminator,
    "relativistic": losses.relativistic_discriminator,
}
LOOKS = 5  # how often a response is measured on its way


@dataclass(frozen=True)
class DualityGap:
    """`gap` is `discriminator` - `generator`, at least 0: the value of the game after the best response of the one, and
    of the other; `value`: that of the present pair. `accuracy`: of the best discriminator found, on samples that it was
    not trained on but chosen by, which flatters it a little; where that is not above 1/2 the generator has nothing left
    to learn from this kind of network."""

    gap: float
    value: float
    discriminator: float
    generator: float
    accuracy: Accuracy


def duality_gap(model, data, *, loss=None, steps=100, batch=64, rate=1e-3, measured=1024, seed=0, progress=None):
    """Estimate `max_D V(G, D) - min_G V(G, D)` around the present pair, from `steps` updates of either side.

    V is minus the loss of the discriminator without penalties: -log 4 at the equilibrium of the sigmoid losses, -2 of
    hinge, -1/4 of least squares, -log 2 of the relativistic one, 0 of Wasserstein. Each response trains a copy of one
    side against the other, by its own loss and Adam, and is measured on data that it does not see and on the same
    latents, `LOOKS` times on its way; the best counts, the present pair too, so that the gap is never negative.

    Short responses find less than the best ones would. On the other hand the best of several noisy measurements is
    taken, all of the same samples: at an equilibrium, where no response gains anything, the gap is a little above 0
    and the accuracy a little above 1/2, by less the more samples are measured on.

    The model and the random state of torch stay as they were.

    Args:
        model: with `generator`, `discriminator`, `discriminator_loss(*batch)` and `generator_loss(*batch)`, each
            (loss [], report), the first report with real_logits and fake_logits.
        data: the tensors of the training data, (images,) or (images, labels), [N, ...] each on the model's device.
        loss: a name of `genfast.metrics.discriminator.LOSSES`; None: the model's `adversarial_loss`.
        steps, batch, rate: updates of a response, samples in each, learning rate.
        measured: samples to measure on, at most half of the data.
        seed: of batches, latents, and which samples are measured on.
        progress: called with 1 after each update.
    Returns: DualityGap.
    Raises: ValueError for another loss or too few data; FloatingPointError for a value that is not finite.
    Paper: A Domain Agnostic Measure for Monitoring and Evaluating GANs, Grnarova et al. 2019, arXiv 1811.05512.
    """
    loss = model.adversarial_loss if loss is None else loss
    check_loss("duality_gap", loss)
    data = tuple(data)
    if len(data[0]) < 4:
        raise ValueError(f"duality_gap: data must hold at least 4 samples; got {len(data[0])}")
    apart = min(measured, len(data[0]) // 2)
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed)).to(data[0].device)
    seen, unseen = (tuple(part[rows] for part in data) for rows in (order[apart:], order[:apart]))
    device = next(model.parameters()).device
    # A batch as large as can be: batch statistics and the pairs of relativistic losses are those of training.
    parts = list(zip(*(part.split(min(batch, apart)) for part in unseen), strict=True))
    parts = [part for part in parts if len(part[0]) > 1]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        measure = _Measure(parts, loss, seed)
        value, _ = now = measure(model)
        best = {}
        for side, other in (("discriminator", "generator"), ("generator", "discriminator")):
            sign = 1 if side == "discriminator" else -1
            best[side] = now
            for found in _responses(model, side, other, seen, measure, steps, batch, rate, seed, progress):
                if sign * found[0] > sign * best[side][0]:
                    best[side] = found
    (high, accuracy), (low, _) = best["discriminator"], best["generator"]
    return DualityGap(high - low, value, high, low, accuracy)


class _Measure:
    """(value, accuracy) of a pair, on the same data and latents at each call."""

    def __init__(self, parts, loss, seed):
        self.parts, self.loss, self.seed = parts, loss, seed

    def __call__(self, model):
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


def _responses(model, side, other, data, measure, steps, batch, rate, seed, progress):
    """What `measure` says of copies of the model on the way to the best response of one side."""
    model = copy.deepcopy(model).train().requires_grad_(True)
    getattr(model, other).requires_grad_(False)
    optimizer = torch.optim.Adam(getattr(model, side).parameters(), lr=rate, betas=(0.5, 0.9))
    torch.manual_seed(seed)
    looks = {steps * look // LOOKS for look in range(1, LOOKS + 1)}
    for step in range(1, steps + 1):
        chosen = torch.randint(len(data[0]), (min(batch, len(data[0])),)).to(data[0].device)
        loss, _ = getattr(model, f"{side}_loss")(*(part[chosen] for part in data))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(1)
        if step in looks:
            yield measure(model)
