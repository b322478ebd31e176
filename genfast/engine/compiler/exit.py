"""The end of a model: what turns logits into probabilities is taken off, or undone by a logarithm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from genfast.engine.compiler.plan import Operand, Step
from genfast.engine.compiler.values import Value
from genfast.engine.full_forward import FullForward


def bare(value: Value, network: FullForward) -> Value:
    """The output of a model as parameters of its likelihood: of probabilities, the logits.

    Where the graph shows that the model gives probabilities, the reading of `network` says so from now on.
    """
    reading, graph = network.reading, value.graph
    assert reading is not None
    codes = value.codes.reshape(-1)
    of_levels = "L" in reading.layout.letters
    logits = _softmax(value) if of_levels else _sigmoid(value)
    found = logits is not None or (_are_probabilities(value) if not of_levels else network.sums_to_one)
    if reading.head != "probabilities" and not found:
        return value
    if network.asked_head in (None, "probabilities") or logits is not None:
        network.reading = replace(reading, head="probabilities")
    else:
        return value
    if logits is None:
        logits = _mapped(value, "log", codes)
        if not of_levels:
            # log p - log(1 - p)
            ones, minus = np.ones(len(codes), np.float32), -np.ones(len(codes), np.float32)
            others = graph.elementwise("affine", [codes], value.stride, value.domain, "the output", minus, ones)
            negative = _mapped(value, "log", others)
            negative = graph.elementwise("affine", [negative], value.stride, value.domain, "the output", minus, 0 * ones)
            logits = graph.elementwise("add", [logits, negative], value.stride, value.domain, "the output")
    return value.like(logits.reshape(value.codes.shape))


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


def _softmax(value: Value) -> np.ndarray | None:
    """The codes of what goes into a last softmax; None where the last operation is another."""
    logits = [value.graph.logits.get(int(code)) for code in value.codes.reshape(-1)]
    return None if None in logits else np.array(logits, np.int64)


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
