"""Two sets of images: whether they are of one distribution, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.audit.clusters import clusters, principal
from genfast.audit.pixels import blocks, reduced
from genfast.metrics.dependence import benjamini_hochberg, equal_bins
from genfast.metrics.two_sample import TwoSample, share_test, two_sample_test

COMPONENTS = 40
GRAINS = (8, 16, 32)
LISTED = 16  # the grain whose kinds are listed
BINS = 8
EXAMPLES = 6
PLANTED = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
TRIALS = 60
ENOUGH = 0.8


@dataclass(frozen=True)
class Kind:
    """A kind of images, by their pixels: its share of the first and of the second set, p and q over all kinds, and the
    numbers of typical images, those of the second set counted on from those of the first."""

    first: float
    second: float
    p: float
    q: float
    examples: tuple[int, ...]


@dataclass(frozen=True)
class Differing:
    """A latent whose values differ between the sets: p, q over all latents, and the difference of the means in standard
    deviations."""

    latent: int
    difference: float
    p: float
    q: float


@dataclass(frozen=True)
class Shift:
    """What `shift_of` returns.

    Attributes:
        first, second: names of the sets.
        sizes: images of both.
        test: of the main components of the pixels and of the shares of kinds at several grains.
        kinds: those with the smallest p first.
        latents: those with the smallest p first.
        smallest: the smallest share of the second set that could be of one kind more, and be found in 80 % of planted
            sets by the shares alone; None if none is.
    """

    first: str
    second: str
    sizes: tuple[int, int]
    test: TwoSample
    kinds: tuple[Kind, ...]
    latents: tuple[Differing, ...]
    smallest: float | None


def pixel_features(images: Tensor, levels: int) -> Tensor:
    """Main components of images, reduced to at most 16x16 pixels, float [n, at most 40]."""
    return principal(torch.cat([reduced(part).flatten(1) for part in blocks(images, levels)]), COMPONENTS)


def shift_of(
    names: tuple[str, str],
    features: Tensor,
    first: int,
    values: tuple[Tensor, Tensor],
    numbers: tuple[int, ...],
    level: float,
    seed: int = 0,
) -> Shift:
    """Two sets of images by features of the pixels of both, float [n + m, D], of which `first` are of the first set.

    The features know nothing of which image is of which set, so that permutations are exact. A model that was trained
    on one of the sets does know: the differences of its latents say where to look, and decide nothing.
    """
    # Of raw components the largest few, such as colour, would drown the others.
    scaled = features / features.std(0, correction=0).clamp(min=1e-6).sqrt()
    grains = [grain for grain in GRAINS if grain == GRAINS[0] or 10 * grain <= len(features)]
    partitions = [clusters(scaled, grain, seed) for grain in grains]
    codes = torch.stack([found[0] for found in partitions], 1)
    test = two_sample_test(scaled[:first], scaled[first:], bins=codes, seed=seed)
    at = grains.index(LISTED) if LISTED in grains else 0
    kinds = _kinds(scaled, *partitions[at], first, seed)
    latents = _latents(values, numbers, seed)
    sizes = first, len(features) - first
    smallest = _smallest(scaled, codes, sizes, level / (1 + len(grains)), seed)
    return Shift(*names, sizes, test, kinds, latents, smallest)


def _kinds(features: Tensor, codes: Tensor, centres: Tensor, first: int, seed: int) -> tuple[Kind, ...]:
    count = len(centres)
    hot = F.one_hot(codes, count)
    p, _ = share_test(hot, first, seed=seed)
    q, shares = benjamini_hochberg(p), [part.double().mean(0) for part in (hot[:first], hot[first:])]
    found = []
    for kind in range(count):
        ours = (codes == kind).nonzero()[:, 0]
        near = (features[ours] - centres[kind]).norm(dim=1).argsort()[:EXAMPLES]
        a, b, chance, rate = (float(x[kind]) for x in (*shares, p, q))
        found.append(Kind(a, b, chance, rate, tuple(ours[near].tolist())))
    return tuple(sorted(found, key=lambda kind: (kind.p, -abs(kind.first - kind.second))))


def _latents(values: tuple[Tensor, Tensor], numbers: tuple[int, ...], seed: int) -> tuple[Differing, ...]:
    both = torch.cat(values)
    generator = torch.Generator("cpu").manual_seed(seed)
    p, _ = share_test(equal_bins(both, min(BINS, len(both)), generator), len(values[0]), seed=seed)
    spread = both.std(0, correction=0).clamp(min=1e-9)
    difference = (values[1].mean(0) - values[0].mean(0)) / spread
    rows = zip(numbers, difference.tolist(), p.tolist(), benjamini_hochberg(p).tolist())
    return tuple(sorted((Differing(*row) for row in rows), key=lambda row: (row.p, -abs(row.difference))))


def _smallest(features: Tensor, codes: Tensor, sizes: tuple[int, int], level: float, seed: int) -> float | None:
    """The smallest share that is found, by planting: that share of a second set drawn from one of ten clusters."""
    kinds = clusters(features, 10, seed + 1)[0]
    hot = torch.cat([F.one_hot(column).float() for column in codes.unbind(1)], 1)
    widths = [int(column.max()) + 1 for column in codes.unbind(1)]
    generator = torch.Generator("cpu").manual_seed(seed + 1)

    def statistics(share: float) -> Tensor:
        rows = []
        for _ in range(TRIALS if share else 4 * TRIALS):
            order = torch.randperm(len(kinds), generator=generator, dtype=torch.int64, device="cpu")
            a, b = order[: sizes[0]], order[sizes[0] :].clone()
            swapped = torch.rand(len(b), generator=generator, dtype=torch.float32, device="cpu") < share
            kind = kinds[order[0]]
            source = (kinds == kind).nonzero()[:, 0]
            draws = torch.randint(len(source), (len(b),), generator=generator, dtype=torch.int64, device="cpu")
            b = torch.where(swapped, source[draws], b)
            counts, total = hot[b].sum(0), hot[a].sum(0) + hot[b].sum(0)
            terms = (counts - total * sizes[1] / len(order)).square() / total.clamp(min=1e-9)
            rows.append(torch.stack([part.sum() for part in terms.split(widths)]))
        return torch.stack(rows)

    null = statistics(0.0)
    mean, spread = null.mean(0), null.std(0).clamp(min=1e-9)
    # Chi-squared is skewed: its quantile is read off a gamma distribution with the same mean and variance.
    limits = torch.tensor(
        [_gamma_quantile(float(m), float(s), level) for m, s in zip(mean, spread)], dtype=torch.float32, device="cpu"
    )
    for share in PLANTED:
        if float((statistics(share) > limits).any(1).double().mean()) >= ENOUGH:
            return share
    return None


def _gamma_quantile(mean: float, spread: float, level: float) -> float:
    """The value that a gamma distribution of this mean and standard deviation exceeds with probability `level`."""
    shape, scale = (mean / spread) ** 2, spread**2 / mean
    low, high = 0.0, mean + 40 * spread
    for _ in range(60):
        middle = (low + high) / 2
        upper = torch.special.gammaincc(
            *(torch.tensor(x, dtype=torch.float64, device="cpu") for x in (shape, middle / scale))
        )
        low, high = (middle, high) if float(upper) > level else (low, middle)
    return high
