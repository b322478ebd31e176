"""Other conventions of a model of sequences: which of them agree with its author's loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from genfast.engine.conventions import Conventions
from genfast.engine.engine import Engine
from genfast.engine.sequences import INPUTS
from genfast.tasks._alternatives import BOUND, keywords_of
from genfast.tasks._loss import Loss

_RANGES = ((0.0, 1.0), (-1.0, 1.0))


def sequence_remedy(
    model: nn.Module, own: Conventions, images: Tensor, labels: Tensor | None, loss: Loss
) -> str | None:
    """What makes a model of sequences agree with the loss, a sentence; None if no single change does."""
    for text, changed in _changes(own):
        keywords: Any = {**keywords_of(own), **changed}
        try:
            nats = -Engine(model, **keywords).log_prob(images, labels)
        except (ValueError, TypeError):  # the model does not take such inputs, or returns nothing that fits
            continue
        if (difference := loss.difference(nats)) <= BOUND:
            return f"{text} makes them agree (difference {difference:.0e})"
    return None


def _changes(own: Conventions) -> Iterator[tuple[str, dict[str, Any]]]:
    sequences = own.sequences
    assert sequences is not None
    if sequences.start is not None:
        yield "start=None, as the loss does not count the first symbol,", {"start": None}
    for start in (0, sequences.vocabulary):
        if start != sequences.start and sequences.predicts != "own":
            yield f"predicts='next' and start={start}", {"predicts": "next", "start": start}
    for inputs in INPUTS:
        for between in _RANGES if inputs == "values" else (None,):
            text = f"inputs={inputs!r}" + (f" and input_range={between}" if between else "")
            yield text, {"inputs": inputs, "input_range": between}
