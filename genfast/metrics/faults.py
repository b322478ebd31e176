"""Faults of a generative model that its images show: it memorises, drops classes, blurs, or copies the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from genfast.engine.arguments import as_tensor
from genfast.metrics.intervals import Interval, at_least_of, at_most, bootstrap_means, bounded
from genfast.metrics.memorisation import Memorisation, memorisation
from genfast.metrics.sharpness import Sharpness, image_energies, sharpness

LEVEL = 0.01  # of each test: that a faultless model is flagged
COPIED = 0.02  # share of the images, beyond that of held-out ones, from which copies are a fault
THINNED = 0.5  # of the frequency of a class, below which it is dropped
BLURRED = 0.8  # of the detail of held-out images, below which images are blurred
BLURRED_SHARE = 0.15  # of images with less detail than nearly all held-out ones, from which some are blurred
LEAST_DETAIL = 0.02  # quantile of the held-out images for it
STILL = 0.5  # of the variance of the data, below which a model makes nearly one image
NEAR_MEAN = 0.1  # of the variance of the data, as a squared distance from the training mean
DIRECTIONS = 10  # principal components of the data


@dataclass(frozen=True)
class Fault:
    """The test for one fault.

    Attributes:
        name: "memorises", "drops classes", "blurs", "copies the training mean" or "makes nearly one image".
        found: whether the images have the fault; None: it could not be tested.
        words: what was measured, and what would be a fault.
        classes: that are dropped.
    """

    name: str
    found: bool | None
    words: str
    classes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Faults:
    """What `find_faults` returns.

    Attributes:
        tests: a `Fault` for each test that was made, found or not.
        memorisation, sharpness: what they are from.
        variance: of the generated images over that of real ones, in the directions in which these vary most.
    """

    tests: tuple[Fault, ...]
    memorisation: Memorisation
    sharpness: Sharpness
    variance: Interval

    @property
    def found(self) -> tuple[str, ...]:
        """The names of the faults that the images have."""
        return tuple(test.name for test in self.tests if test.found)

    def __str__(self) -> str:
        return "; ".join(test.words for test in self.tests if test.found) or "no fault found"


def find_faults(
    images: Tensor,
    training: Tensor,
    held_out: Tensor,
    levels: int,
    *,
    predicted: ArrayLike | None = None,
    predicted_held_out: ArrayLike | None = None,
    shares: Sequence[float] | Tensor | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> Faults:
    """Test generated images for faults, by name.

    - memorises: more of them than of the held-out images are copies of a training image (`memorisation`): at `level`,
      and by a share of `COPIED` or more.
    - drops classes: a class is generated less than half as often as in the data, at `level` for all classes together.
    - blurs: what a blur of 3x3 pixels takes away, relative to the contrast, is less than `BLURRED` of that of held-out
      images, with its whole interval; or more than `BLURRED_SHARE` of the images have less of it than nearly all
      held-out ones.
    - copies the training mean: in the directions of the largest variance of the data, theirs is less than half, and
      they lie around the training mean; makes nearly one image: the same around another one. Then sharpness and classes
      are not faults of their own. A strong blur takes variance away too, but also the detail of the mean, which tells
      it from these.

    A test is of the difference from held-out images and must exceed a margin, so that a model which is good but not
    perfect is not flagged.

    Args:
        images: generated, uint8 [n, C, H, W]; 200 or more to find that a class is missing, better 1000.
        training: that the model was trained on, uint8 [m, C, H, W].
        held_out: uint8 [k, C, H, W], that it was not trained on.
        levels: values of a channel.
        predicted, predicted_held_out: integers [n] and [k], classes by a classifier, -1 for an image of no class; None:
            classes are not tested.
        shares: floats [K], the frequencies of the classes among the training images.
        level: probability of a false alarm of each test.
        seed: of the bootstrap.
    Returns: Faults.
    Raises: ValueError for sets of different shapes, or predictions that do not fit.
    Example: `find_faults(genfast.sample(model, 1000), train.images, test.images, 16).found`
    """
    copies = memorisation(images, training, held_out)
    sharp = sharpness(images, held_out, levels, level=1 - 2 * level, seed=seed)
    variance, away = _spread(images, training, held_out, level, seed)
    low = variance.high < STILL
    still = low and _mean_detail(images, training, levels) > BLURRED
    return Faults(
        (
            _memorises(copies, level),
            _drops(predicted, predicted_held_out, shares, images, level, low),
            _blurs(sharp, images, held_out, levels, level, still),
            *_is_still(variance, away, still),
        ),
        copies,
        sharp,
        variance,
    )


def _memorises(copies: Memorisation, level: float) -> Fault:
    found = copies.p < level and copies.near > copies.near_held_out + COPIED
    words = (
        f"{100 * copies.near:.1f} % of the images are within {copies.threshold:g} of a training image, relative to the "
        f"next one, and {100 * copies.near_held_out:.1f} % of held-out images (p = {copies.p:.2g})"
    )
    return Fault("memorises", found, words)


def _drops(
    predicted: ArrayLike | None,
    held_out: ArrayLike | None,
    shares: Sequence[float] | Tensor | None,
    images: Tensor,
    level: float,
    low: bool,
) -> Fault:
    name = "drops classes"
    if predicted is None or held_out is None or shares is None:
        return Fault(name, None, "classes are not tested without labels")
    expected = torch.as_tensor(shares, dtype=torch.float64, device="cpu")
    counts, of_real = (_counts(given, len(expected)) for given in (predicted, held_out))
    if len(as_tensor(predicted)) != len(images):
        raise ValueError(f"find_faults: predicted must be of {len(images)} images; got {len(as_tensor(predicted))}")
    # A classifier misses some of a class among real images too.
    expected = torch.minimum(expected / expected.sum(), of_real / of_real.sum().clamp(min=1))
    there = [k for k in range(len(expected)) if expected[k] > 0]
    chance = {k: at_most(int(counts[k]), int(counts.sum()), THINNED * float(expected[k])) for k in there}
    dropped = tuple(k for k in there if chance[k] < level / len(there))
    if low:
        return Fault(name, None, "classes are not tested in images that hardly differ")
    if counts.sum() < len(images) / 2:
        return Fault(name, None, "classes are not tested, as more than half of the images are of none")
    words = f"{len(there) - len(dropped)} of {len(there)} classes at least half as often as in the data"
    if dropped:
        each = ", ".join(f"{k} ({int(counts[k])} of {100 * float(expected[k]):.1f} % expected)" for k in dropped)
        words = f"classes that are made less than half as often as in the data: {each}; {int(counts.sum())} images"
    return Fault(name, bool(dropped), words, dropped)


def _counts(given: ArrayLike, classes: int) -> Tensor:
    labels = as_tensor(given).cpu()
    if labels.is_floating_point() or labels.ndim != 1 or not len(labels):
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"find_faults: predicted classes must be integers [n], at least one; got {got}")
    if not -1 <= int(labels.min()) <= int(labels.max()) < classes:
        got = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(f"find_faults: predicted classes must lie in -1..{classes - 1}; got {got}")
    return torch.bincount(labels[labels >= 0].long(), minlength=classes).double()


def _blurs(sharp: Sharpness, images: Tensor, held_out: Tensor, levels: int, level: float, still: bool) -> Fault:
    if still:
        return Fault("blurs", None, "sharpness is not tested in images that hardly differ")
    words = f"detail is {sharp.detail} of that of held-out images; below {BLURRED:g} they are blurred"
    details = [_details(image_energies(part, levels)) for part in (images, held_out)]
    least = torch.quantile(details[1], LEAST_DETAIL)
    hits, others = (int((part < least).sum()) for part in details)
    p = at_least_of(hits, len(images), hits + others, len(images) + len(held_out))
    some = p < level and hits / len(images) > BLURRED_SHARE
    if some:
        words += f"; {100 * hits / len(images):.1f} % of the images have less than {100 * LEAST_DETAIL:g} % of these"
    return Fault("blurs", some or sharp.detail.high < BLURRED, words)


def _details(energies: Tensor) -> Tensor:
    """The energy of high frequencies of each image over its contrast, 1 for an image of one colour: [n]."""
    return torch.where(energies[:, 2] > 1e-12, energies[:, 1] / energies[:, 2].clamp(min=1e-12), 1.0)


def _mean_detail(images: Tensor, training: Tensor, levels: int) -> float:
    """The detail of the mean of the images over that of the mean of the training images."""
    one, other = (_details(image_energies(x.double().mean(0, keepdim=True), levels)) for x in (images, training))
    return float(one / other.clamp(min=1e-300))


def _is_still(variance: Interval, away: float, still: bool) -> tuple[Fault, Fault]:
    words = f"variance is {variance} of that of real images; below {STILL:g} they are nearly one image"
    place = f"{words}; their mean is {away:.3f} variances from that of the training images"
    return (
        Fault("copies the training mean", still and away < NEAR_MEAN, place),
        Fault("makes nearly one image", still and away >= NEAR_MEAN, place),
    )


def _spread(images: Tensor, training: Tensor, held_out: Tensor, level: float, seed: int) -> tuple[Interval, float]:
    """The variance of images over that of held-out ones in the first principal components of the training images, and
    the squared distance of their mean from that of these, over the same variance."""
    base = training.cpu().flatten(1).double()
    base = base[torch.linspace(0, len(base) - 1, min(len(base), 2000), dtype=torch.float64, device="cpu").long()]
    middle = base.mean(0)
    count = min(DIRECTIONS, *base.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the method is a random one
        directions = torch.pca_lowrank(base - middle, q=count, center=False)[2]
    means, spreads = [], []
    for number, part in enumerate((images, held_out)):
        points = (part.cpu().flatten(1).double() - middle) @ directions
        centred = (points - points.mean(0)).square().sum(1)
        distinct, which = torch.unique(part.cpu().flatten(1), dim=0, return_inverse=True)
        rows = torch.stack((centred, torch.ones_like(centred)), 1)
        together = torch.zeros(len(distinct), 2, dtype=torch.float64, device="cpu").index_add_(0, which, rows)
        drawn = bootstrap_means(together, seed=seed + number)
        means.append(points.mean(0))
        spreads.append((float(centred.mean()), drawn[:, 0] / drawn[:, 1]))
    (value, drawn), (of_real, drawn_real) = spreads
    ratio = bounded(value / max(of_real, 1e-300), drawn / drawn_real.clamp(min=1e-300), 1 - 2 * level)
    return ratio, float(means[0].square().sum()) / max(of_real, 1e-300)
