"""Markov chains whose limit is the distribution of a model given observations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def acceptance_rates(kinds: Sequence[str], accepted: Tensor, proposed: Tensor) -> dict[str, float]:
    """The acceptance rate of each kind of proposal that was made; the counts are int64 [kinds]."""
    return {kind: a / p for kind, a, p in zip(kinds, accepted.tolist(), proposed.tolist()) if p}
