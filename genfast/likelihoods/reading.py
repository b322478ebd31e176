"""How the output of a foreign model is read: its likelihood, and the order of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genfast.likelihoods.base import LIKELIHOODS, Likelihood


@dataclass(frozen=True)
class Reading:
    """How the outputs of a pixel are read.

    Attributes:
        head: the name of the likelihood and of the order.
        likelihood: whose parameters the outputs are.
        index: int64 [P]: parameter i of the likelihood is output index[i] of the pixel.
    """

    head: str
    likelihood: Likelihood
    index: np.ndarray

    @property
    def is_ordered(self) -> bool:
        """Whether the outputs are in the order of the parameters."""
        return bool((self.index == np.arange(len(self.index))).all())


def heads() -> dict[str, type[Likelihood]]:
    """The likelihood of every name that the option `head` takes."""
    return {head: cls for cls in LIKELIHOODS.values() for head in cls.output_orders}


def read_output(call: str, features: Sequence[int], channels: int, levels: int, head: str | None) -> Reading:
    """How an output [B, *features, H, W] is read: as `head` says, or, for None, as its shape does.

    Raises: ValueError for another head, or an output that does not fit or has more than one reading.
    """
    named = heads()
    if head not in (None, *named):
        raise ValueError(f"{call}: head must be one of {', '.join(named)}; got {head!r}")
    count = int(np.prod(features, dtype=np.int64))
    head = head or _head_of_shape(call, features, count, channels, levels)
    likelihood = named[head].of_output(channels, levels, count) if head else None
    if likelihood is None or head is None:
        asked = f"head {head}, " if head else ""
        wanted = named[head].expected_outputs(channels, levels) if head else channels * levels
        where = f"{asked}C={channels}, L={levels}"
        raise ValueError(f"{call}: the model must return {wanted} values for each pixel ({where}); got {count}")
    order = likelihood.output_orders[head]
    return Reading(head, likelihood, np.arange(count) if order is None else order(channels, levels))


def _head_of_shape(call: str, features: Sequence[int], count: int, channels: int, levels: int) -> str | None:
    """The head that the shape alone implies: a logit for each channel of two levels, or logits of all levels."""
    if levels == 2 and count == channels:
        return "bernoulli"
    if count != channels * levels:
        return None
    sizes = [size for size in features if size > 1]
    shapes = {"categorical": [channels, levels], "categorical-levels-first": [levels, channels]}
    fitting = [head for head, shape in shapes.items() if channels == 1 or sizes == shape]
    if not fitting or len(fitting) == 2 and channels > 1:
        expected = "'categorical' for [C, L] or 'categorical-levels-first' for [L, C]"
        raise ValueError(
            f"{call}: head must say how the output is ordered, {expected}; got None for an output {tuple(features)} "
            f"of a pixel with C={channels}, L={levels}"
        )
    return fitting[0]
