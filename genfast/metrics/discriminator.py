"""Accuracy and calibration of a discriminator, from its logits.

What a logit means depends on the loss:

- sigmoid losses: D(x) = sigmoid(logit); real above 0;
- least squares with targets 1 and 0: D(x) = logit; real above 1/2;
- hinge: real above 0; it states no probability;
- Wasserstein and relativistic critics are free up to a constant. A sample counts as real above the middle between the
  mean logits of the real and of the generated samples of its step. At this threshold too, an uninformed critic is right
  half of the time, since both kinds of samples determine it alike.

For all losses the calibrated D(x) and D(G(z)) are probabilities of being real given the logit, by logistic regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# The threshold between generated and real (None: free), and the probability of being real, as a function of the logit.
LOSSES: dict[str, tuple[float | None, Callable[[Tensor], Tensor] | None]] = {
    "non-saturating": (0.0, torch.sigmoid),
    "minimax": (0.0, torch.sigmoid),
    "least-squares": (0.5, lambda logits: logits.clamp(0, 1)),
    "hinge": (0.0, None),
    "wasserstein": (None, None),
    "relativistic": (None, None),
}
Z = 1.959963984540054  # of a 95 % interval
MOST_FITTED = 2**13  # logits of a kind for the regression; the error of its slope is then a few per cent


@dataclass(frozen=True)
class Accuracy:
    """How often a discriminator is right.

    Attributes:
        real, fake: accuracy on real and on generated samples.
        both: their mean.
        low, high: its Wilson interval.
        count: images, real and generated.
    """

    real: float
    fake: float
    both: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """The logistic regression of being real on the logit, and how well the discriminator itself is calibrated.

    Attributes:
        slope, intercept: 1 and 0 for a calibrated sigmoid; a slope below 1 is overconfident, a slope of 0 uninformed.
        real, fake: mean fitted probability of being real, of real and of generated samples.
        stated_real, stated_fake: the same by the discriminator's own probabilities; None if the loss has none.
        error: its expected calibration error; None likewise.
    """

    slope: float
    intercept: float
    real: float
    fake: float
    stated_real: float | None = None
    stated_fake: float | None = None
    error: float | None = None

    @property
    def temperature(self) -> float:
        """1 / slope."""
        return math.inf if self.slope == 0 else 1 / self.slope


def wilson_interval(share: float, count: int, z: float = Z) -> tuple[float, float]:
    """The Wilson score interval (low, high) of a probability, given the success rate `share` of `count` trials.

    `z`: quantile of the normal distribution, by default for 95 %. Paper: Wilson 1927.
    """
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(f"wilson_interval: expected a share in [0, 1] of at least 1; got {share} of {count}")
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def discriminator_accuracy(
    real: Tensor, fake: Tensor, loss: str = "non-saturating", *, images: int | None = None
) -> Accuracy:
    """How often a discriminator is right; a logit at the threshold counts as half right.

    Args:
        real, fake: float logits of real and of generated samples, of any shape.
        loss: a name of `LOSSES`, which decides the threshold.
        images: the number of images of each kind; None: one logit per image. The interval is for this number, since
            the logits of patches of one image are not independent.
    Returns: Accuracy.
    Raises: ValueError for another loss, no logits, or logits that are not finite.
    """
    real, fake = _logits("discriminator_accuracy", loss, real, fake)
    return accuracy_of_steps([(real, fake)], loss, images)


def calibration(real: Tensor, fake: Tensor, loss: str = "non-saturating", bins: int = 15) -> Calibration:
    """The calibration of a discriminator's logits as probabilities of being real.

    Args: real, fake: float logits of any shape; loss: a name of `LOSSES`; bins: of `reliability`.
    Returns: Calibration.
    Raises: as `discriminator_accuracy`.
    Paper: On Calibration of Modern Neural Networks, Guo et al. 2017, arXiv 1706.04599; Platt 1999.
    """
    real, fake = _logits("calibration", loss, real, fake)
    slope, intercept = _regression(real, fake)
    fitted_real, fitted_fake = (float(torch.sigmoid(slope * part + intercept).mean()) for part in (real, fake))
    fitted = Calibration(slope, intercept, fitted_real, fitted_fake)
    probability = LOSSES[loss][1]
    if probability is None:
        return fitted
    stated_real, stated_fake = (float(probability(part).mean()) for part in (real, fake))
    weight, confidence, frequency = reliability(probability(real), probability(fake), bins)
    error = float((weight * (confidence - frequency).abs()).sum())
    return replace(fitted, stated_real=stated_real, stated_fake=stated_fake, error=error)


def reliability(real: Tensor, fake: Tensor, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """The bins of a reliability diagram. Real and generated samples have equal total weight, however many there are.

    Args: real, fake: probabilities of being real, float in [0, 1], [N] and [M]; bins: of equal width.
    Returns: (weight, confidence, frequency), each float64 [bins]: the share of the samples in a bin, their mean
        probability, and the share of them that is real; 0 in an empty bin. The expected calibration error is
        `(weight * |confidence - frequency|).sum()`.
    """
    totals = torch.zeros(3, bins, dtype=torch.float64, device="cpu")
    for part, is_real in ((real, 1.0), (fake, 0.0)):
        part = part.detach().flatten().double().cpu()
        where = (part * bins).long().clamp(0, bins - 1)
        rows = torch.stack((torch.ones_like(part), part, torch.full_like(part, is_real)))
        totals.index_add_(1, where, rows / (2 * len(part)))
    weight = totals[0]
    confidence, frequency = totals[1:] / weight.where(weight > 0, torch.ones_like(weight))
    return weight, confidence, frequency


def accuracy_of_steps(steps: Sequence[tuple[Tensor, Tensor]], loss: str, images: int | None) -> Accuracy:
    """The accuracy over several steps, [(real logits, fake logits)], with `images` of each kind in total."""
    real, fake = (torch.cat(part) for part in zip(*steps))
    limit = LOSSES[loss][0]
    above = above_middle(steps) if limit is None else [part - limit for part in (real, fake)]
    # A logit at the threshold is a guess.
    right_real, right_fake = (float((sign * part.sign() + 1).mean()) / 2 for part, sign in zip(above, (1, -1)))
    both = (right_real + right_fake) / 2
    count = len(real) + len(fake) if images is None else 2 * images
    low, high = wilson_interval(both, count)
    return Accuracy(right_real, right_fake, both, low, high, count)


def above_middle(steps: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """[real, fake]: each logit minus the middle between the means of both kinds in its step."""
    sizes = torch.tensor([[len(part) for part in step] for step in steps], dtype=torch.int64, device="cpu")
    numbers = torch.arange(len(steps), dtype=torch.int64, device="cpu")
    which = [numbers.repeat_interleave(size) for size in sizes.unbind(1)]
    values = [torch.cat(kind) for kind in zip(*steps)]
    zeros = torch.zeros(len(steps), dtype=torch.float64, device="cpu")
    sums = [zeros.index_add(0, w, v) for w, v in zip(which, values)]
    middle = (torch.stack(sums, 1) / sizes).mean(1)
    return [value - middle[step] for value, step in zip(values, which)]


def _regression(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """(slope, intercept) of P(real | logit) = sigmoid(slope * logit + intercept), with equal weight for both kinds.

    Newton's method on Platt's smoothed targets, which keep the slope finite if the kinds are separable.
    """
    kinds = [part[:: -(-len(part) // MOST_FITTED)] for part in (real, fake)]
    x = torch.cat(kinds)
    mean, deviation = x.mean(), x.std(correction=0)
    if not deviation > 1e-12 * mean.abs().clamp(min=1e-300):
        return 0.0, 0.0
    rows = torch.stack(((x - mean) / deviation, torch.ones_like(x)))
    ends = (1 - 1 / (len(kinds[0]) + 2), 1 / (len(kinds[1]) + 2))
    target = torch.cat([torch.full_like(part, end) for part, end in zip(kinds, ends, strict=True)])
    weight = torch.cat([torch.full_like(part, 0.5 / len(part)) for part in kinds])
    solution, value = torch.zeros(2, dtype=torch.float64, device="cpu"), math.inf
    step = torch.zeros_like(solution)
    for _ in range(50):
        trial = solution - step
        logits = trial @ rows
        now = float((weight * (torch.nn.functional.softplus(logits) - target * logits)).sum())
        if now > value:
            step = step / 2
            if float(step.abs().max()) < 1e-9:
                break
            continue
        solution, value = trial, now
        p = logits.sigmoid()
        gradient = rows @ (weight * (p - target))
        if float(gradient.abs().max()) < 1e-10:
            break
        curvature = (rows * (weight * p * (1 - p))) @ rows.T + 1e-12 * torch.eye(2, dtype=torch.float64, device="cpu")
        step = torch.linalg.solve(curvature, gradient)
    slope = float(solution[0] / deviation)
    return slope, float(solution[1]) - slope * float(mean)


def check_loss(name: str, loss: str) -> None:
    """ValueError for a loss that is none of `LOSSES`; `name` begins the message."""
    if loss not in LOSSES:
        raise ValueError(f"{name}: loss must be one of {', '.join(LOSSES)}; got {loss!r}")


def _logits(name: str, loss: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    check_loss(name, loss)
    checked = []
    for which, part in (("real", real), ("fake", fake)):
        if not isinstance(part, torch.Tensor) or not part.is_floating_point() or not part.numel():
            got = f"{part.dtype} {tuple(part.shape)}" if isinstance(part, torch.Tensor) else type(part).__name__
            raise ValueError(f"{name}: {which} must be float logits, at least one; got {got}")
        if not part.isfinite().all():
            raise ValueError(f"{name}: {which} must be finite; got a NaN or an infinity")
        checked.append(part.detach().flatten().double().cpu())
    return checked[0], checked[1]
