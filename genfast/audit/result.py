"""What an audit finds, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genfast.audit.groups import Groups
from genfast.audit.latents import CARRIED
from genfast.audit.regions import Region
from genfast.audit.shifts import Shift
from genfast.audit.ties import Power, Tie
from genfast.audit.weights import Weights
from genfast.metrics.duplicates import Duplicates

LIMITS = (
    "It speaks of these pixels and columns, and of nothing else: not of people, nor of what caused anything.",
    "That two things go together in a set does not say that one makes the other, nor that the world is so, nor that it "
    "is wrong.",
    "What never varies in the set cannot be seen in it: who or what is missing altogether leaves no trace.",
    "Latents are what this model needed to draw the images. Another model may cut them up otherwise, and pairs of "
    "latents go together in most sets, as the strokes of a digit do: they are listed, and not called findings.",
    "No finding means no imbalance as large as the power of the audit says, of the kinds that it looks for.",
)


@dataclass(frozen=True)
class Finding:
    """Something in the data that chance does not explain, at the level of the audit.

    Attributes:
        kind: "tie", "duplicates" or "shift".
        text: a sentence.
        p: of its test; of a tie it is q over all ties.
        strength: in standard deviations of the permutations; of duplicates how many pairs.
    """

    kind: str
    text: str
    p: float
    strength: float


@dataclass(frozen=True)
class LatentRow:
    """A latent that carries information: its number in the model, how much, and the property of the pixels that it
    follows most ("" for none) with the share of its variance by rank."""

    latent: int
    information: float
    follows: str
    share: float


@dataclass(frozen=True)
class PairRow:
    """Two latents: mutual information in nats less that of permutations, p, q over all pairs, and whether they go
    together at a false discovery rate of 5 %."""

    first: int
    second: int
    information: float
    p: float
    q: float
    together: bool


@dataclass(frozen=True)
class Copies:
    """Near duplicates: `found` among images by `how` they are compared; of two sets, images of the second are counted
    on from those of the first."""

    how: str
    found: Duplicates


@dataclass(frozen=True)
class Audit:
    """What `audit` returns. Images are tensors on the CPU, in levels.

    Attributes:
        data: name of the set; images: how many; levels: values of a channel; files: names, or none.
        findings: what chance does not explain.
        strength: of the strongest tie of colour or lighting with content, whether or not it is found; None without.
        latents: `LatentRow`s, two at least, the most informative first; unit: of their information, "nats" or "share".
        unused: the other latents of the model.
        traversals: float [Z, steps, C, H, W], in which one latent moves.
        pairs: `PairRow`s, those that share most first.
        total_correlation: of all these latents in nats; total_correlation_p.
        ties: of colour and lighting with content and columns; tie_q: q of each over all.
        power: of the test of ties with content; column_power: with each column.
        regions: of latent space, the thinnest first.
        copies: near duplicates.
        shift: against another set, or None.
        groups: of each column.
        weights: that balance the set.
        level: of findings; seed.
    """

    data: str
    images: int
    levels: int
    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    strength: float | None
    latents: tuple[LatentRow, ...]
    unit: str
    unused: int
    traversals: Tensor
    pairs: tuple[PairRow, ...]
    total_correlation: float
    total_correlation_p: float
    ties: tuple[Tie, ...]
    tie_q: tuple[float, ...]
    power: Power
    column_power: dict[str, Power]
    regions: tuple[Region, ...]
    copies: tuple[Copies, ...]
    shift: Shift | None
    groups: tuple[Groups, ...]
    weights: Weights
    level: float
    seed: int

    @property
    def carrying(self) -> int:
        """How many latents carry information: 0.01 nats, or 1 % of the variance, at least."""
        return sum(row.information >= CARRIED for row in self.latents)

    def to_dict(self) -> dict[str, Any]:
        """All of it as values for JSON, without images."""
        return {
            "data": self.data,
            "images": self.images,
            "level": self.level,
            "seed": self.seed,
            "findings": [vars(finding) for finding in self.findings],
            "strength": self.strength,
            "latents": {
                "unit": self.unit,
                "carrying": self.carrying,
                "unused": self.unused,
                "rows": [vars(row) for row in self.latents],
            },
            "pairs": [vars(row) for row in self.pairs],
            "total_correlation": {"nats": self.total_correlation, "p": self.total_correlation_p},
            "ties": [_tie(found, q) for found, q in zip(self.ties, self.tie_q, strict=True)],
            "power": vars(self.power),
            "column_power": {name: vars(power) for name, power in self.column_power.items()},
            "regions": [
                {"images": r.count, "density": r.density, "nearest": r.nearest, "files": self.names(r.nearest)}
                for r in self.regions
            ],
            "duplicates": [_copies(copies, self) for copies in self.copies],
            "shift": None if self.shift is None else _shift(self.shift),
            "columns": [
                {"column": g.column, "groups": [vars(x) for x in g.groups], "told": [vars(x) for x in g.told]}
                for g in self.groups
            ],
            "weights": {name: value for name, value in vars(self.weights).items() if name != "values"},
            "limits": LIMITS,
        }

    def names(self, numbers: tuple[int, ...] | list[int]) -> list[str]:
        """The names of the files of these images; of images without, their numbers."""
        return [self.files[i] if i < len(self.files) else str(i) for i in numbers]


def _tie(tie: Tie, q: float) -> dict[str, Any]:
    return {
        "factor": tie.factor.name,
        "with": tie.other,
        "information": tie.result.information,
        "strength": tie.result.strength,
        "p": tie.result.p,
        "q": q,
        "continuous": tie.factor.continuous,
        "colours": tie.factor.centres.tolist(),
        "groups": tie.names,
        "table": tie.table.tolist(),
    }


def _copies(copies: Copies, audit: Audit) -> dict[str, Any]:
    found = copies.found
    return {
        "how": copies.how,
        "pairs": [
            {"images": pair, "files": audit.names(pair), "ratio": ratio, "p": p}
            for pair, ratio, p in zip(found.pairs.tolist(), found.ratio.tolist(), found.p.tolist())
        ],
        "limit": found.limit,
    }


def _shift(shift: Shift) -> dict[str, Any]:
    named = {name: value for name, value in vars(shift).items() if name not in ("test", "kinds", "latents")}
    return named | {
        "test": vars(shift.test),
        "kinds": [vars(kind) for kind in shift.kinds],
        "latents": [vars(latent) for latent in shift.latents],
    }
