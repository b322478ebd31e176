"""The audit of a set of images: all of its parts, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from genfast.audit.columns import Column
from genfast.audit.groups import Groups, groups_of, scores
from genfast.audit.latents import Latents, check_audited, latents_of, traversals
from genfast.audit.regions import followed, properties, regions_of
from genfast.audit.result import Audit, Copies, Finding, LatentRow, PairRow
from genfast.audit.shifts import Shift, pixel_features, shift_of
from genfast.audit.ties import Tie, planted, power, ties_of
from genfast.audit.weights import Weights, balance
from genfast.engine.arguments import check_int
from genfast.engine.wrappers import unwraps
from genfast.metrics.dependence import benjamini_hochberg, pairwise_dependence, total_correlation
from genfast.metrics.duplicates import near_duplicates
from genfast.train.inputs import data_for

LEVEL = 0.01  # of each kind of finding: a report of clean data has one in about 50
FDR = 0.05  # of pairs, latents and kinds that are marked
LEAST = 100  # images
Bar = Callable[[int, str], AbstractContextManager[Any]]


@unwraps
def audit(
    model: Any,
    data: Any,
    *,
    against: Any = None,
    columns: Sequence[Column] = (),
    seed: int = 0,
    bar: Bar = lambda total, unit: nullcontext(),
) -> Audit:
    """What varies in a set of images, and where the set is biased, without annotations.

    A finding is what chance explains in one of 100 clean sets: a tie of colour or lighting with what the images show,
    or with a column; images that are nearer to each other than the density around them says; a difference between
    the set and another one. Ties are tests of two parts of an image that share no information by construction (see
    `genfast.audit.pixels`), by permutation.

    Args:
        model: unconditional, with latents or codes, such as `genfast.models.VAE` or `VQVAE`.
        data: images of the model: uint8 [n, C, H, W], ImageData, or whatever else `genfast.fit` takes; at least 100.
        against: another set that is compared with it, or None.
        columns: `Column`s, one value for each image, that are known beside the pixels.
        seed: of permutations, clusters and planted sets.
        bar: function (total, unit) that returns a context; its value is called with the images that are done.
    Returns: `Audit`.
    Raises: TypeError or ValueError for a model or data that do not fit, or fewer than 100 images.
    Example: `genfast.audit.audit(vae, images).findings`
    """
    check_audited(model)
    check_int("audit", "seed", seed, 0, 2**31)
    data = data_for(model, data, "audit: data")
    other = None if against is None else data_for(model, against, "audit: against")
    for name, images in (("data", data), ("against", other)):
        if images is not None and len(images) < LEAST:
            raise ValueError(f"audit: {name} must have at least {LEAST} images; got {len(images)}")
    for column in columns:
        if len(column.codes) != len(data):
            expected = f"a value for each of {len(data)} images"
            raise ValueError(f"audit: column {column.name} must have {expected}; got {len(column.codes)}")
    return _Audit(model, data, other, columns, seed, bar).run()


class _Audit:
    """An audit under way."""

    def __init__(self, model: Any, data: Any, other: Any, columns: Sequence[Column], seed: int, bar: Bar) -> None:
        self.model, self.data, self.other, self.columns, self.seed, self.bar = model, data, other, columns, seed, bar

    def run(self) -> Audit:
        data, seed = self.data, self.seed
        images = data.images.cpu()
        latents = self._latents(images)
        rows, pairs, (together, together_p) = _of_latents(latents, images, data.levels, seed)
        found = ties_of(images, data.levels, self.columns, seed)
        ties, content, level = found.ties, found.content, LEVEL / max(1, len(found.ties))
        regions, region_codes = regions_of(latents, seed)
        pixels, shift = self._shift(images, latents)
        copies = [Copies("pixels", near_duplicates(pixels, level=LEVEL / 2))]
        if ties:  # of the first set alone
            copies.append(Copies("content, whatever the colours", near_duplicates(content, level=LEVEL / 2)))
        groups: tuple[Groups, ...] = ()
        if self.columns:
            with self.bar(len(images), "image") as progress:
                of_each = scores(self.model, images, progress)
            groups = tuple(groups_of(column, latents, *of_each, seed) for column in self.columns)
        return Audit(
            data=data.name,
            images=len(data),
            levels=data.levels,
            files=tuple(data.files) + (() if self.other is None else tuple(self.other.files)),
            findings=(*_tied(ties, found.q), *_copied(copies, len(data)), *_shifted(shift)),
            strength=max((t.result.strength for t in ties if t.other == "content"), default=None),
            latents=rows,
            unit=latents.unit,
            unused=latents.total - len(rows),
            traversals=traversals(latents),
            pairs=pairs,
            total_correlation=together,
            total_correlation_p=together_p,
            ties=ties,
            tie_q=found.q,
            power=power(content, found.partitions, level, seed),
            column_power={c.name: planted(c.codes, c.codes[None], level, seed) for c in self.columns},
            regions=tuple(regions),
            copies=tuple(copies),
            shift=shift,
            groups=groups,
            weights=_weights(ties, self.columns, region_codes),
            level=LEVEL,
            seed=seed,
        )

    def _latents(self, images: Tensor) -> Latents:
        with self.bar(len(images), "image") as progress:
            return latents_of(self.model, images, progress, seed=self.seed)

    def _shift(self, images: Tensor, latents: Latents) -> tuple[Tensor, Shift | None]:
        """Features of the pixels of all images, and the comparison of the sets."""
        if self.other is None:
            return pixel_features(images, self.data.levels), None
        others = self.other.images.cpu()
        features = pixel_features(torch.cat((images, others)), self.data.levels)
        values = latents.encode(others)
        names, numbers = (self.data.name, self.other.name), latents.numbers
        shift = shift_of(names, features, len(images), (latents.values, values), numbers, LEVEL, self.seed)
        return features, shift


def _of_latents(
    latents: Latents, images: Tensor, levels: int, seed: int
) -> tuple[tuple[LatentRow, ...], tuple[PairRow, ...], tuple[float, float]]:
    follows = followed(latents.values, properties(images, levels))
    known = zip(latents.numbers, latents.information.tolist(), follows)
    rows = tuple(LatentRow(number, nats, name, share) for number, nats, (name, share) in known)
    found = pairwise_dependence(latents.values, seed=seed)
    upper = torch.triu_indices(len(rows), len(rows), 1, dtype=torch.int64, device="cpu")
    information, p = (table[upper[0], upper[1]] for table in (found.information, found.p))
    q = benjamini_hochberg(p)
    pairs = [
        PairRow(latents.numbers[i], latents.numbers[j], nats, chance, rate, rate <= FDR)
        for (i, j), nats, chance, rate in zip(upper.T.tolist(), information.tolist(), p.tolist(), q.tolist())
    ]
    return rows, tuple(sorted(pairs, key=lambda row: -row.information)), total_correlation(latents.values, seed=seed)


def _tied(ties: Sequence[Tie], tie_q: Sequence[float]) -> list[Finding]:
    found = []
    for t, q in zip(ties, tie_q, strict=True):
        if q > LEVEL:
            continue
        row, group, share, overall = _farthest(t)
        what = "what the images show" if t.other == "content" else f"the column {t.other}"
        text = (
            f"{t.factor.name} goes with {what} (mutual information {t.result.information:.3f} nats): "
            f"{100 * share:.0f} % of {t.names[row]} have {t.factor.name} {group + 1}, "
            f"{100 * overall:.0f} % of all images"
        )
        found.append(Finding("tie", text, q, t.result.strength))
    return found


def _farthest(t: Tie) -> tuple[int, int, float, float]:
    """(group of the other, group of the factor, share there, share overall) of the cell farthest above chance."""
    table = t.table.double()
    overall = table.sum(0) / table.sum()
    expected = table.sum(1, keepdim=True) * overall
    cell = int(((table - expected) / expected.clamp(min=1e-9).sqrt()).argmax())
    row, group = divmod(cell, table.shape[1])
    return row, group, float(table[row, group] / table[row].sum()), float(overall[group])


def _copied(copies: Sequence[Copies], first: int) -> list[Finding]:
    found = []
    for c in copies:
        count, p = len(c.found.pairs), float(c.found.p.min()) if len(c.found.p) else 1.0
        across = int(((c.found.pairs < first).sum(1) == 1).sum())
        if count:
            text = f"{count} pair{'s' if count > 1 else ''} of images nearer in {c.how} than chance explains"
            text += f", {across} of them across the two sets" if across else ""
            found.append(Finding("duplicates", text, p, float(count)))
    return found


def _shifted(shift: Shift | None) -> list[Finding]:
    if shift is None or shift.test.p > LEVEL:
        return []
    kinds = [kind for kind in shift.kinds if kind.q <= FDR]
    text = f"{shift.first} and {shift.second} are not of one distribution"
    if kinds:
        text += f": {100 * kinds[0].first:.1f} % and {100 * kinds[0].second:.1f} % of them are of kind 1"
    return [Finding("shift", text, shift.test.p, max(shift.test.strengths))]


def _weights(ties: Sequence[Tie], columns: Sequence[Column], regions: Tensor) -> Weights:
    """By the first column, else by what the images show, or by regions where neither colour nor lighting varies."""
    if columns:
        own = [t for t in ties if t.other == columns[0].name]
        what = f"groups of {columns[0].name} equal"
        if not own:
            return balance(what, columns[0].codes, level=True)
        return balance(
            f"{what}, and {own[0].factor.name} independent of them", columns[0].codes, own[0].factor.codes, level=True
        )
    own = [t for t in ties if t.other == "content"]
    if own:
        return balance(f"{own[0].factor.name} independent of what images show", own[0].groups, own[0].factor.codes)
    return balance("regions of latent space equal", regions, level=True)
