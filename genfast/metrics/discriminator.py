"""What the logits of a discriminator tell: how often it is right, and what it thinks of real and generated samples.

What a logit says depends on the loss. Sigmoid losses: D(x) = sigmoid(logit), real above 0. Least squares with targets 1
and 0: D(x) = logit, real above 1/2. Hinge: real above 0, but no probability. Wasserstein and relativistic critics are
free up to a constant: a sample counts as real above the middle between the mean logits of the real and of the generated
samples of its step. A critic that knows nothing is right half of the time at that threshold too, as real and generated
samples decide it alike. The calibrated D(x), D(G(z)) have a meaning for all losses: the probability of being real given
the logit, by the logistic regression that fits the window.
"""

import math
from dataclasses import dataclass

import torch

# The threshold between generated and real (None: free), and the probability of being real that a logit states.
LOSSES = {
    "non-saturating": (0.0, torch.sigmoid),
    "minimax": (0.0, torch.sigmoid),
    "least-squares": (0.5, lambda logits: logits.clamp(0, 1)),
    "hinge": (0.0, None),
    "wasserstein": (None, None),
    "relativistic": (None, None),
}
Z = 1.959963984540054  # of a 95 % interval
MOST_FITTED = 2**13  # logits that the regression sees; its slope is then known to a few per cent


@dataclass(frozen=True)
class Accuracy:
    """`real`, `fake`: shares of either kind that the discriminator takes for what it is; `both`: their mean, with the
    Wilson interval `low` to `high` of `count` images, real and generated."""

    real: float
    fake: float
    both: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """`slope`, `intercept`: the logistic regression of being real on the logit. A slope of 1 and an intercept of 0 are
    a calibrated sigmoid, a slope below 1 is overconfident, 0 knows nothing; 1 / slope is the temperature. `real`,
    `fake`: its mean probability of real, and of generated samples. `stated_real`, `stated_fake`: those that the
    discriminator itself states, and `error`: its expected calibration error; None where the loss gives its logits no
    probability."""

    slope: float
    intercept: float
    real: float
    fake: float
    stated_real: float | None = None
    stated_fake: float | None = None
    error: float | None = None

    @property
    def temperature(self):
        return math.inf if self.slope == 0 else 1 / self.slope


def wilson_interval(share, count, z=Z):
    """The interval of a probability of which `count` independent trials showed `share` (Wilson 1927): floats (low,
    high) in [0, 1]. `z`: quantile of the normal distribution, by default that of 95 %."""
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(f"wilson_interval: expected a share in [0, 1] of at least 1; got {share} of {count}")
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def discriminator_accuracy(real, fake, loss="non-saturating", *, images=None):
    """How often a discriminator is right; a logit at the threshold counts half.

    Args:
        real, fake: float logits of real and of generated samples, of any shape.
        loss: a name of `LOSSES`: it decides the threshold, as the module says.
        images: how many of each kind the logits are of; None: one logit an image. Patches of one image are not
            independent: the interval is that of so many images.
    Returns: Accuracy.
    Raises: ValueError for another loss, no logits, or logits that are not finite.
    """
    real, fake = _logits("discriminator_accuracy", loss, real, fake)
    return accuracy_of_steps([(real, fake)], loss, images)


def calibration(real, fake, loss="non-saturating", bins=15):
    """What the logits of a discriminator say of the probability of being real, and how well it says so itself.

    Args: real, fake: float logits of any shape; loss: a name of `LOSSES`; bins: of `reliability`.
    Returns: Calibration.
    Raises: as `discriminator_accuracy`.
    Paper: On Calibration of Modern Neural Networks, Guo et al. 2017, arXiv 1706.04599; Platt 1999.
    """
    real, fake = _logits("calibration", loss, real, fake)
    slope, intercept = _regression(real, fake)
    fitted = [float(torch.sigmoid(slope * part + intercept).mean()) for part in (real, fake)]
    probability = LOSSES[loss][1]
    if probability is None:
        return Calibration(slope, intercept, *fitted)
    stated = [float(probability(part).mean()) for part in (real, fake)]
    weights, said, found = reliability(probability(real), probability(fake), bins)
    return Calibration(slope, intercept, *fitted, *stated, float((weights * (said - found).abs()).sum()))


def reliability(real, fake, bins=15):
    """The bins of a reliability diagram; real and generated samples weigh the same in all, however many there are.

    Args: real, fake: probabilities of being real, float in [0, 1], [N] and [M]; bins: of equal width.
    Returns: (weight, said, found), each float64 [bins]: the share of the samples that is in a bin, their mean
        probability, and how much of them is real; 0 in an empty bin. `(weight * |said - found|).sum()` is the expected
        calibration error.
    """
    totals = torch.zeros(3, bins, dtype=torch.float64)
    for part, is_real in ((real, 1.0), (fake, 0.0)):
        part = part.detach().flatten().double().cpu()
        where = (part * bins).long().clamp(0, bins - 1)
        rows = torch.stack((torch.ones_like(part), part, torch.full_like(part, is_real)))
        totals.index_add_(1, where, rows / (2 * len(part)))
    weight = totals[0]
    return weight, *(totals[1:] / weight.where(weight > 0, torch.ones_like(weight)))


def accuracy_of_steps(steps, loss, images):
    """Of steps [(real, fake)], `images` of either kind in all."""
    real, fake = (torch.cat(part) for part in zip(*steps))
    limit = LOSSES[loss][0]
    above = above_middle(steps) if limit is None else [part - limit for part in (real, fake)]
    # A logit at the threshold is a guess.
    shares = [float((sign * part.sign() + 1).mean()) / 2 for part, sign in zip(above, (1, -1), strict=True)]
    both = sum(shares) / 2
    count = len(real) + len(fake) if images is None else 2 * images
    return Accuracy(*shares, both, *wilson_interval(both, count), count)


def above_middle(steps):
    """(real, fake): how far each logit lies above the middle between the means of both kinds in its step."""
    sizes = torch.tensor([[len(part) for part in step] for step in steps])
    which = [torch.arange(len(steps)).repeat_interleave(size) for size in sizes.unbind(1)]
    values = [torch.cat(kind) for kind in zip(*steps)]
    sums = [torch.zeros(len(steps), dtype=torch.float64).index_add_(0, w, v) for w, v in zip(which, values)]
    middle = (torch.stack(sums, 1) / sizes).mean(1)
    return [value - middle[step] for value, step in zip(values, which)]


def _regression(real, fake):
    """(slope, intercept) of P(real | logit) = sigmoid(slope * logit + intercept), both kinds of equal weight.

    Newton's method on Platt's smoothed targets, with which the slope stays finite where the kinds are apart.
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
    found, value = torch.zeros(2, dtype=torch.float64), math.inf
    step = torch.zeros_like(found)
    for _ in range(50):
        trial = found - step
        logits = trial @ rows
        now = float((weight * (torch.nn.functional.softplus(logits) - target * logits)).sum())
        if now > value:
            step = step / 2
            if float(step.abs().max()) < 1e-9:
                break
            continue
        found, value = trial, now
        p = logits.sigmoid()
        gradient = rows @ (weight * (p - target))
        if float(gradient.abs().max()) < 1e-10:
            break
        step = torch.linalg.solve((rows * (weight * p * (1 - p))) @ rows.T + 1e-12 * torch.eye(2).double(), gradient)
    slope = float(found[0] / deviation)
    return slope, float(found[1]) - slope * float(mean)


def check_loss(name, loss):
    if loss not in LOSSES:
        raise ValueError(f"{name}: loss must be one of {', '.join(LOSSES)}; got {loss!r}")


def _logits(name, loss, real, fake):
    check_loss(name, loss)
    found = []
    for which, part in (("real", real), ("fake", fake)):
        if not isinstance(part, torch.Tensor) or not part.is_floating_point() or not part.numel():
            got = f"{part.dtype} {tuple(part.shape)}" if isinstance(part, torch.Tensor) else type(part).__name__
            raise ValueError(f"{name}: {which} must be float logits, at least one; got {got}")
        if not part.isfinite().all():
            raise ValueError(f"{name}: {which} must be finite; got a NaN or an infinity")
        found.append(part.detach().flatten().double().cpu())
    return found
