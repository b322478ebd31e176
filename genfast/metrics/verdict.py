"""The state of the game between generator and discriminator, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genfast.metrics.coverage import Coverage
from genfast.metrics.discriminator import Accuracy
from genfast.metrics.duality_gap import DualityGap

TOLERANCE = 0.05
COLLAPSED = math.log(2)  # the KL of a generator that has lost half of equally frequent classes
LEAST_VARIANCE = 0.1


@dataclass(frozen=True)
class Verdict:
    """What `verdict` returns.

    Attributes:
        words: "at equilibrium", "discriminator ahead", "generator ahead", "collapsed", "partly collapsed" or
            "undecided".
        reasons: sentences with the numbers.
    """

    words: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((self.words, *(f"  {reason}" for reason in self.reasons)))


def verdict(
    accuracy: Accuracy,
    coverage: Coverage | None = None,
    gap: DualityGap | None = None,
    *,
    variance: float | None = None,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """A verdict from all metrics together: the first of these that holds.

    - collapsed: the KL of the classes of generated samples from those of the data is log 2 or more, as if half of the
      classes were lost, and at least half of the samples are of some class; or `variance` is below 0.1.
    - discriminator ahead: at 95 % confidence its accuracy is above 1/2 by more than `tolerance`.
    - generator ahead: the accuracy is below 1/2 by as much; or the discriminator guesses although a better one would
      not: that of `gap` has an accuracy above 1/2 by as much, or more than half of the samples are of no class.
    - partly collapsed: the discriminator guesses, but a class is lost.
    - at equilibrium: the interval of the accuracy is within twice the tolerance of 1/2.
    - undecided: the interval is wider than that.

    Args:
        accuracy: `Accuracy` of the discriminator.
        coverage: `Coverage` of the generated samples, or None.
        gap: `DualityGap`, or None.
        variance: the total variance of generated samples over that of the data, or None; it shows a collapse without
            labels.
        tolerance: distance of an accuracy from 1/2 that is allowed; the default is a total variation distance of 0.1.
    Returns: Verdict.
    """
    reasons = [_right("discriminator", accuracy)]
    outside = False
    if coverage is not None:
        outside = coverage.outside > 0.5
        reasons.append(_modes(coverage))
    if variance is not None:
        reasons.append(f"generated samples vary {variance:.2f} times as much as the data")
    if gap is not None:
        reasons.append(
            f"duality gap {gap.gap:.3f}: {gap.discriminator:.3f} after the discriminator's best response, "
            f"{gap.generator:.3f} after the generator's, now {gap.value:.3f}"
        )
        reasons.append(_right("that discriminator", gap.accuracy))
    lost = coverage is not None and not outside and coverage.kl >= COLLAPSED
    if lost or (variance is not None and variance < LEAST_VARIANCE):
        words = "collapsed"
    elif accuracy.low > 0.5 + tolerance:
        words = "discriminator ahead"
    elif accuracy.high < 0.5 - tolerance or outside or (gap is not None and gap.accuracy.low > 0.5 + tolerance):
        words = "generator ahead"
    elif coverage is not None and coverage.hit < coverage.classes:
        words = "partly collapsed"
    elif 0.5 - 2 * tolerance <= accuracy.low and accuracy.high <= 0.5 + 2 * tolerance:
        words = "at equilibrium"
    else:
        words = "undecided"
        reasons.append("the interval is too wide: more samples would decide")
    return Verdict(words, tuple(reasons))


def _right(who: str, accuracy: Accuracy) -> str:
    shares = f"{100 * accuracy.real:.1f} % of the real, {100 * accuracy.fake:.1f} % of the generated"
    interval = f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}"
    return f"{who} right on {100 * accuracy.both:.1f} % of {accuracy.count} images ({interval}): {shares}"


def _modes(coverage: Coverage) -> str:
    text = f"{coverage.hit} of {coverage.classes} classes generated, KL of their histogram {coverage.kl:.3f}"
    return f"{text}, {100 * coverage.outside:.0f} % of the images are of none" if coverage.outside else text
