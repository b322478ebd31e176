"""How the game between generator and discriminator stands, in words."""

import math
from dataclasses import dataclass

TOLERANCE = 0.05
COLLAPSED = math.log(2)  # the KL of a generator that has lost half of the classes, all equally frequent
LEAST_VARIANCE = 0.1


@dataclass(frozen=True)
class Verdict:
    """`words`: one of "at equilibrium", "discriminator ahead", "generator ahead", "collapsed", "partly collapsed",
    "undecided"; `reasons`: sentences with the numbers behind it."""

    words: str
    reasons: tuple[str, ...]

    def __str__(self):
        return "\n".join((self.words, *(f"  {reason}" for reason in self.reasons)))


def verdict(accuracy, coverage=None, gap=None, *, variance=None, tolerance=TOLERANCE):
    """What the measures say together; the first of these that holds.

    collapsed: the classes of the generated samples have a KL of log 2 or more from those of the data, as if half of
    them were lost, while at least half of the samples are of some class; or `variance` is below 0.1.
    discriminator ahead: it is right more than half of the time by more than `tolerance`, at 95 % confidence.
    generator ahead: it is right less than half of the time by as much; or it guesses, and a better one would not: the
    best response of `gap` is right more often by as much, or more than half of the samples are of no class.
    partly collapsed: the discriminator guesses, but a class is lost.
    at equilibrium: the whole interval of the discriminator's accuracy is within twice the tolerance of 1/2.
    undecided: the interval is wider than that.

    Args:
        accuracy: `Accuracy` of the discriminator.
        coverage: `Coverage` of the generated samples, or None.
        gap: `DualityGap`, or None.
        variance: the total variance of generated samples over that of the data, or None: what tells of a collapse
            without classes.
        tolerance: how far from 1/2 an accuracy may be; the default is a total variation of 0.1 between the samples.
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


def _right(who, accuracy):
    shares = f"{100 * accuracy.real:.1f} % of the real, {100 * accuracy.fake:.1f} % of the generated"
    interval = f"95 % interval {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}"
    return f"{who} right on {100 * accuracy.both:.1f} % of {accuracy.count} images ({interval}): {shares}"


def _modes(coverage):
    text = f"{coverage.hit} of {coverage.classes} classes generated, KL of their histogram {coverage.kl:.3f}"
    return f"{text}, {100 * coverage.outside:.0f} % of the images are of none" if coverage.outside else text
