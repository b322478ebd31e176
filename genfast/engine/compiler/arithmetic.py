"""Arithmetic, element by element: sums and products of what depends on the image, and of constants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from genfast.engine.compiler.entrance import by_whole_number
from genfast.engine.compiler.handlers import depends, handles
from genfast.engine.compiler.sums import linear_step
from genfast.engine.compiler.values import (
    Change,
    Operation,
    Value,
    Varies,
    array,
    broadcast,
    constant_like,
    field,
)

# Most runs of features, one instruction each, that an elementwise operation may take beside one for every 8 features.
RUNS = 4


@handles("aten::neg", "aten::negative")
def neg(op: Operation, x: Value) -> Value:
    return scaled(op, x, -1.0)


@handles("aten::add")
def add(op: Operation, a: Any, b: Any, alpha: float = 1) -> Value:
    if depends(a) and depends(b):
        return apply(op, "add", broadcast([a, scaled(op, b, alpha)]))
    if depends(b):
        return shifted(op, scaled(op, b, alpha), a)
    return shifted(op, a, b, lambda value: value * np.float32(alpha))


@handles("aten::sub", "aten::subtract")
def sub(op: Operation, a: Any, b: Any, alpha: float = 1) -> Value:
    return add(op, a, b, -alpha)


@handles("aten::rsub")
def rsub(op: Operation, a: Any, b: Any, alpha: float = 1) -> Value:
    return add(op, b, a, -alpha)


@handles("aten::mul", "aten::multiply")
def mul(op: Operation, a: Any, b: Any) -> Value:
    if depends(a) and depends(b):
        return apply(op, "mul", broadcast([a, b]))
    return scaled(op, a, b) if depends(a) else scaled(op, b, a)


@handles("aten::div", "aten::divide", "aten::true_divide")
def div(op: Operation, a: Any, b: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode:
        return by_whole_number(op, a, b, partial(torch.div, rounding_mode=rounding_mode))
    if depends(b):
        return mul(op, a, apply(op, "reciprocal", [b]))
    return scaled(op, a, b, lambda value: 1 / value)


@handles("aten::reciprocal")
def reciprocal(op: Operation, x: Value) -> Value:
    return apply(op, "reciprocal", [x])


@handles("aten::square")
def square(op: Operation, x: Value) -> Value:
    return apply(op, "mul", [x, x])


@handles("aten::addcmul")
def addcmul(op: Operation, x: Any, a: Any, b: Any, value: float = 1) -> Value:
    return add(op, x, mul(op, a, b) if depends([a, b]) else a * b, value)


@handles("aten::addcdiv")
def addcdiv(op: Operation, x: Any, a: Any, b: Any, value: float = 1) -> Value:
    return add(op, x, div(op, a, b) if depends([a, b]) else a / b, value)


@handles("aten::lerp")
def lerp(op: Operation, start: Any, end: Any, weight: Any) -> Value:
    way = sub(op, end, start) if depends([start, end]) else end - start
    return add(op, start, mul(op, way, weight))


def apply(op: Operation, kind: str, values: Sequence[Value]) -> Value:
    """The operation `kind`, element by element, of values of one shape."""
    x = values[0]
    codes, places = _in_runs(op, x, [v.codes.reshape(-1) for v in values])
    y = x.graph.elementwise(kind, codes, x.stride, x.domain, op.where)
    return x.like(y[places].reshape(x.codes.shape))


def _in_runs(op: Operation, x: Value, codes: list[np.ndarray]) -> tuple[list[np.ndarray], Any]:
    """The codes of operands, so that few runs of features hold them all; and the place in these of each result.

    Operands that are a permutation of features, or a few of them repeated, are computed in the order in which they lie;
    what then still does not lie in runs is copied.
    """
    if not _scattered(codes):
        return codes, slice(None)
    once, places = np.unique(np.stack(codes), axis=1, return_inverse=True)
    ordered = [gathered(op, x, c) if _scattered([c]) else c for c in once]
    return ordered, places.reshape(-1)


def _scattered(codes: Sequence[np.ndarray]) -> bool:
    runs = 1 + np.count_nonzero(np.any([np.diff(c) != 1 for c in codes], axis=0))
    return bool(runs > max(RUNS, len(codes[0]) // 8))


def gathered(
    op: Operation, x: Value, codes: np.ndarray, weight: np.ndarray | float = 1.0, bias: np.ndarray | None = None
) -> np.ndarray:
    """New codes [n] of weight * codes + bias; a product with a matrix of which every column has one weight is exact."""
    once, places = np.unique(codes, return_inverse=True)
    matrix = np.zeros((len(once), len(codes)), np.float32)
    matrix[places.reshape(-1), np.arange(len(codes))] = weight
    bias = np.zeros(len(codes), np.float32) if bias is None else bias
    return linear_step(x, [(once, 0, 0, (0, 0), matrix)], bias, x.domain, op.where)


def as_values(op: Operation, *operands: Any) -> list[Value]:
    """Operands of an elementwise operation, broadcast to one shape; constants become maps."""
    whole = iter(broadcast([operand for operand in operands if depends(operand)]))
    values = [next(whole) if depends(operand) else operand for operand in operands]
    model = next(v for v in values if depends(v))
    return broadcast([v if depends(v) else constant_map(op, model, v) for v in values])


@handles("aten::broadcast_tensors")
def broadcast_tensors(op: Operation, tensors: Sequence[Any]) -> list[Value]:
    return as_values(op, *tensors)


def constant_map(op: Operation, model: Value, tensor: Any) -> Value:
    """A constant as a map that broadcasts with `model`."""
    # Finite: a product with a weight of 0 must stay 0.
    largest = np.finfo(np.float32).max

    def finite(values: np.ndarray) -> np.ndarray:
        return np.clip(values, -largest, largest)

    try:
        shaped, numbers = constant_like(op, model, tensor, finite)
    except Varies:
        return field(op, model, tensor, finite)
    y = model.graph.elementwise("constant", [], model.stride, model.domain, op.where, bias=numbers)
    return shaped.like(y.reshape(shaped.codes.shape))


def affine(op: Operation, x: Value, weight: np.ndarray | None, bias: np.ndarray | None) -> Value:
    """weight * x + bias by feature; None: 1, and 0."""
    codes = x.codes.reshape(-1)
    ones, zeros = np.ones(len(codes), np.float32), np.zeros(len(codes), np.float32)
    weight, bias = ones if weight is None else weight, zeros if bias is None else bias
    if _scattered([codes]):
        return x.like(gathered(op, x, codes, weight, bias).reshape(x.codes.shape))
    y = x.graph.elementwise("affine", [codes], x.stride, x.domain, op.where, weight, bias)
    return x.like(y.reshape(x.codes.shape))


def scaled(op: Operation, x: Value, factor: Any, change: Change | None = None) -> Value:
    """x times a constant, to which `change` is applied."""
    if op.node(factor) is None and (values := array(factor)).size == 1 and (change(values) if change else values) == 1:
        return x
    try:
        wide, weight = constant_like(op, x, factor, change)
        if weight.ndim == 1:
            return affine(op, wide, weight, None)
    except Varies:
        pass
    return apply(op, "mul", broadcast([x, field(op, x, factor, change)]))


def shifted(op: Operation, x: Value, constant: Any, change: Change | None = None) -> Value:
    """x plus a constant, to which `change` is applied."""
    try:
        wide, bias = constant_like(op, x, constant, change)
    except Varies:
        return apply(op, "add", broadcast([x, field(op, x, constant, change)]))
    return affine(op, wide, None, bias)
