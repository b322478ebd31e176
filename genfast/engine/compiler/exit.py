"""The end of a model: what turns logits into probabilities is taken off, or undone by a logarithm."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from genfast.engine.compiler.plan import NotIncremental, Operand, Step
from genfast.engine.compiler.values import Value
from genfast.engine.full_forward import FullForward
from genfast.likelihoods.reading import PROBABILITIES


def bare(value: Value, network: FullForward) -> Value:
    """The output of a model as parameters of its likelihood: of probabilities, the logits.

    Where the graph shows that the model gives probabilities, the reading of `network` says so from now on.
    """
    reading = network.reading
    assert reading is not None
    if "L" in reading.layout.letters:
        head, logits = _softmax(value, network.spec.levels)
        found = network.sums_to_one
    else:
        head, logits = "probabilities", _sigmoid(value)
        found = _are_probabilities(value)
    if logits is not None:
        reading = replace(reading, head=head)
    elif found and network.asked_head is None:
        reading = replace(reading, head="probabilities")
    network.reading = reading
    if reading.head not in PROBABILITIES:
        return value
    if logits is None and reading.head == "log-probabilities":
        if "L" in reading.layout.letters:
            return value
        raise NotIncremental("sample: the logarithm of one probability cannot be run pixel by pixel")
    if logits is None:
        logits = _of_probabilities(value, "L" in reading.layout.letters)
    return value.like(logits.reshape(value.codes.shape))


def _of_probabilities(value: Value, of_levels: bool) -> np.ndarray:
    """log p, or log p - log(1 - p) where there is one probability for each value."""
    codes = value.codes.reshape(-1)
    logits = _mapped(value, "log", codes)
    if of_levels:
        return logits
    ones = np.ones(len(codes), np.float32)
    others = _mapped(value, "log", _affine(value, codes, -ones, ones))
    both = [logits, _affine(value, others, -ones, 0 * ones)]
    return value.graph.elementwise("add", both, value.stride, value.domain, "the output")


def _affine(value: Value, codes: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return value.graph.elementwise("affine", [codes], value.stride, value.domain, "the output", weight, bias)


def _mapped(value: Value, kind: str, codes: np.ndarray) -> np.ndarray:
    return value.graph.elementwise(kind, [codes], value.stride, value.domain, "the output")


def _sigmoid(value: Value) -> np.ndarray | None:
    """The codes of what goes into a last sigmoid; None where the last operation is another."""
    inner = [_inner(value, int(code)) for code in value.codes.reshape(-1)]
    return None if None in inner else np.array(inner, np.int64)


def _inner(value: Value, code: int) -> int | None:
    graph = value.graph
    index, feature = graph.split(np.array([code]))
    view = graph.view(int(index[0]))
    if view.step.kind != "sigmoid" or (view.row, view.column) != (0, 0):
        return None
    operand = view.step.operands[0]
    return graph.code(operand.view) + int(operand.features[feature[0]])


def _softmax(value: Value, levels: int) -> tuple[str, np.ndarray | None]:
    """How the last softmax, over all levels, gives its result, and the codes of what goes into it.

    ("", None) where the last operation is another.
    """
    found = [value.graph.logits.get(int(code)) for code in value.codes.reshape(-1)]
    entries = [entry for entry in found if entry is not None]
    if len(entries) < len(found) or any(entry.levels != levels for entry in entries):
        return "", None
    groups = Counter(entry.group for entry in entries)
    if set(groups.values()) != {levels} or len({entry.head for entry in entries}) > 1:
        return "", None
    return entries[0].head, np.array([entry.code for entry in entries], np.int64)


def _are_probabilities(value: Value) -> bool:
    """Whether every entry is a sigmoid, or one held between two constants within 0 and 1."""
    graph = value.graph
    for index, feature in zip(*graph.split(value.codes.reshape(-1))):
        if not _is_probability(graph.view(int(index)).step, int(feature)):
            return False
    return True


def _is_probability(step: Step, feature: int) -> bool:
    if step.kind == "sigmoid":
        return True
    if step.kind not in ("min", "max"):
        return False

    def holds(operand: Operand) -> bool:
        inner, at = operand.view.step, int(operand.features[feature])
        if inner.kind == "constant" and np.ndim(inner.bias) == 1:
            return bool(0 <= inner.bias[at] <= 1)
        return _is_probability(inner, at)

    return all(holds(operand) for operand in step.operands)


def are_unbounded(value: Value) -> bool:
    """Whether the last operation shows that the outputs may be any numbers: they are sums of products."""
    graph = value.graph
    views, _ = graph.split(value.codes.reshape(-1))
    return all(_is_unbounded(graph.view(int(index)).step) for index in np.unique(views))


def _is_unbounded(step: Step) -> bool:
    if step.kind in ("affine", "add", "copy", "neg"):
        return any(_is_unbounded(operand.view.step) for operand in step.operands)
    return step.kind == "linear"
