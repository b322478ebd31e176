"""Of which symbol the outputs of a model of sequences are the distribution: found by changing symbols, or asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from genfast.engine.calling import at_work
from genfast.engine.compiler import NotIncremental, chosen, trace_model
from genfast.engine.compiler.proof import MOVED, parameters, random_images
from genfast.engine.conventions import OF_FLOATS, Conventions
from genfast.engine.full_forward import FullForward, differ
from genfast.engine.unchecked import warn
from genfast.likelihoods import Reading

MOST_PLACES = 8  # at which a symbol is changed
# For each model and the key of its conventions what was found.
_FOUND: WeakKeyDictionary[nn.Module, dict[Any, str]] = WeakKeyDictionary()


def predicting(model: nn.Module, conventions: Conventions) -> Conventions:
    """The conventions of a model of sequences, with which symbol its outputs are of.

    Raises: ValueError where the outputs do not show it and it was not asked for, or show another.
    """
    sequences = conventions.sequences
    assert sequences is not None
    asked, kept = sequences.predicts, _FOUND.setdefault(model, {})
    found = kept.get(conventions.key) or _found(_network(model, conventions))
    if found == "leaks":  # the proof that it is causal will say where
        return replace(conventions, sequences=replace(sequences, predicts=asked or "own"))
    if found == "next":  # with other weights, one of its own symbols may be of the next
        kept[conventions.key] = found
    if found is None and asked is None:
        raise ValueError(
            "sample: predicts must be given for a model whose outputs do not move with its input, 'own' where the "
            "output at t is the distribution of symbol t, 'next' where it is that of t + 1; got None"
        )
    if found == "next" and asked == "own":
        raise ValueError("sample: predicts must be 'next' for a model whose output at t moves with symbol t; got 'own'")
    if found == "own" and asked == "next":
        warn(
            "sample: predicts should be 'own', as no output at t moves with symbol t; got 'next', with which the model "
            "does not know the symbol before the one that is drawn"
        )
    predicts = asked or found
    if sequences.start is not None and predicts == "own":
        expected = "None for a model whose output at t is of symbol t: it puts itself what comes before the first"
        raise ValueError(f"sample: start must be {expected}; got {sequences.start}")
    return replace(conventions, sequences=replace(sequences, predicts=predicts))


def _network(model: nn.Module, conventions: Conventions) -> FullForward:
    """The model, read as if its outputs were of their own symbols."""
    assert conventions.sequences is not None
    own = replace(conventions, sequences=replace(conventions.sequences, predicts="own", start=None))
    if own.inputs in OF_FLOATS and own.input_range is None:  # whatever it is: outputs move or not
        own = replace(own, input_range=(0.0, 1.0))

    def choose(network: FullForward, readings: list[Reading]) -> list[Reading]:
        try:
            return chosen(trace_model(model, network.spec, own), network, readings)
        except NotIncremental:
            return readings

    return FullForward(model, own, choose)


@torch.no_grad()
def _found(network: FullForward) -> str | None:
    """What the outputs of a model of sequences, read as those of their own symbols, show when one symbol is changed.

    Returns: "next" where the output of its own place moves, "own" where those after it do alone; "leaks" where one
        before it moves; None where none does.
    """
    spec, generator = network.spec, torch.Generator("cpu").manual_seed(0)
    unchanged = random_images(spec, 1, generator)
    order = torch.randperm(max(1, spec.width - 1), generator=generator, dtype=torch.int64, device="cpu")
    places = order[:MOST_PLACES].tolist()
    batch = unchanged.repeat(len(places) + 1, 1, 1, 1)
    for one, place in zip(batch[1:], places):
        by = torch.randint(1, spec.levels, (), generator=generator, dtype=torch.int64, device="cpu")
        one[0, 0, place] = ((one[0, 0, place].long() + by) % spec.levels).to(one.dtype)
    labels = torch.zeros(len(batch), dtype=torch.int64, device="cpu") if spec.classes else None
    with at_work(network.model):
        whole = parameters(network, batch, labels, same=True)[:, :, 0]
    if whole.isnan().any():
        raise ValueError("sample: the model must return finite numbers; got NaN, for a random sequence")
    moved = differ(whole[1:], whole[:1], MOVED).any(1)
    steps = [int(one.nonzero()[0]) - place for one, place in zip(moved, places) if one.any()]
    if not steps:
        return None
    return "leaks" if min(steps) < 0 else "own" if min(steps) else "next"
