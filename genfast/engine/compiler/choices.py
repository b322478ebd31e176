"""Comparisons, extremes and choices, element by element. A comparison is 1 or 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from genfast.engine.compiler.arithmetic import apply, as_values, constant_map, scaled, shifted
from genfast.engine.compiler.entrance import one_hot, settled
from genfast.engine.compiler.handlers import depends, handles, select
from genfast.engine.compiler.values import (
    FEATURE,
    Operation,
    Unsupported,
    Value,
    Varies,
    broadcast,
    constant_like,
    permuted,
)


def above(op: Operation, a: Any, b: Any) -> Value:
    """1 where a > b, else 0."""
    return apply(op, "greater", as_values(op, a, b))


@handles("aten::gt", "aten::greater")
def greater(op: Operation, a: Any, b: Any) -> Any:
    same = settled(op, np.greater, a, b)
    return above(op, a, b) if same is None else same


@handles("aten::lt", "aten::less")
def less(op: Operation, a: Any, b: Any) -> Any:
    return greater(op, b, a)


@handles("aten::ge", "aten::greater_equal")
def greater_equal(op: Operation, a: Any, b: Any) -> Any:
    return negated(op, greater(op, b, a))


@handles("aten::le", "aten::less_equal")
def less_equal(op: Operation, a: Any, b: Any) -> Any:
    return negated(op, greater(op, a, b))


@handles("aten::eq")
def equal(op: Operation, a: Any, b: Any) -> Any:
    return negated(op, not_equal(op, a, b))


@handles("aten::ne", "aten::not_equal")
def not_equal(op: Operation, a: Any, b: Any) -> Any:
    if (same := settled(op, np.not_equal, a, b)) is not None:
        return same
    a, b = as_values(op, a, b)
    return apply(op, "max", [above(op, a, b), above(op, b, a)])


@handles("aten::bitwise_not")
def negated(op: Operation, x: Any) -> Any:
    if not depends(x):
        return ~x
    return shifted(op, scaled(op, x, -1.0), 1.0)


@handles("aten::logical_not")
def is_zero(op: Operation, x: Value) -> Value:
    return where(op, x, 0.0, 1.0)


@handles("aten::logical_and", "aten::bitwise_and", "aten::__and__")
def both(op: Operation, a: Any, b: Any) -> Value:
    return apply(op, "min", as_values(op, a, b))


@handles("aten::logical_or", "aten::bitwise_or", "aten::__or__")
def either(op: Operation, a: Any, b: Any) -> Value:
    return apply(op, "max", as_values(op, a, b))


@handles("aten::maximum", "aten::fmax")
def maximum(op: Operation, a: Any, b: Any) -> Value:
    return apply(op, "max", as_values(op, a, b))


@handles("aten::minimum", "aten::fmin")
def minimum(op: Operation, a: Any, b: Any) -> Value:
    return apply(op, "min", as_values(op, a, b))


@handles("aten::clamp", "aten::clip", "aten::hardtanh")
def clamp(op: Operation, x: Any, least: Any = None, most: Any = None) -> Value:
    if op.name == "hardtanh":
        least, most = -1.0 if least is None else least, 1.0 if most is None else most
    if isinstance(least, float | int) and least == 0:
        x, least = apply(op, "relu", [x]), None
    x = x if least is None else maximum(op, x, least)
    return x if most is None else minimum(op, x, most)


@handles("aten::clamp_min")
def clamp_min(op: Operation, x: Any, least: Any) -> Value:
    return clamp(op, x, least)


@handles("aten::clamp_max")
def clamp_max(op: Operation, x: Any, most: Any) -> Value:
    return clamp(op, x, None, most)


@handles("aten::where")
def where(op: Operation, condition: Any, *choices: Any) -> Value:
    if len(choices) != 2:
        raise Unsupported("the places where something holds")
    if depends(condition):
        return apply(op, "where", as_values(op, condition, *choices))
    return _chosen(op, condition, *choices)


@handles("aten::nan_to_num")
def nan_to_num(op: Operation, x: Value, nan: Any = None, above_all: Any = None, below_all: Any = None) -> Value:
    if nan or above_all is not None or below_all is not None:
        raise Unsupported("NaN or infinities replaced by other numbers than those of torch")
    # Neither NaN nor 0 is more than 0, or less.
    signed = either(op, above(op, x, 0.0), above(op, 0.0, x))
    largest = float(np.finfo(np.float32).max)
    return clamp(op, apply(op, "where", as_values(op, signed, x, 0.0)), -largest, largest)


@handles("aten::masked_fill")
def masked_fill(op: Operation, x: Any, mask: Any, value: Any) -> Value:
    return where(op, mask, value, x)


@handles("aten::scatter")
def scatter(op: Operation, base: Any, dim: int, index: Any, source: Any, *rest: Any) -> Value:
    """A number written where a whole number of the image points: a one-hot vector, as people write it."""
    dim = dim % len(base.shape)
    if depends(base) or not isinstance(source, (int, float)) or not depends(index) or index.shape[dim] != 1:
        raise Unsupported("a scatter of anything but one number into a constant, one place for each pixel")
    order = [*range(dim), *range(dim + 1, len(base.shape)), dim]  # as `one_hot` gives it
    hot = one_hot(op, select(op, index, dim, 0), base.shape[dim])
    hot = permuted(hot, [order.index(d) for d in range(len(order))])
    return hot if source == 1 and not base.any() else where(op, hot, float(source), base)


def _chosen(op: Operation, condition: Any, a: Any, b: Any) -> Value:
    """Of two values, by a constant condition: nothing is computed."""
    values = [v for v in (a, b) if depends(v)]
    try:
        model, picked = constant_like(op, broadcast(values)[0], condition)
    except Varies:
        return apply(op, "where", as_values(op, condition, a, b))
    if picked.ndim > 1:  # by the label
        return apply(op, "where", as_values(op, condition, a, b))
    a, b = broadcast([v if depends(v) else constant_map(op, model, v) for v in (a, b)])
    a, b, model = broadcast([a, b, model])
    return a.like(np.where(picked.reshape(model.codes.shape) != 0, a.codes, b.codes))


@handles("aten::max", "aten::min")
def extreme(op: Operation, x: Value, other: Any = None, keepdim: bool = False) -> Any:
    if isinstance(other, int) and not isinstance(other, bool):
        return [folded(op, op.name, x, [other], keepdim)]
    if other is None:
        raise Unsupported("an extreme of a whole batch")
    return apply(op, op.name, as_values(op, x, other))


@handles("aten::amax", "aten::amin")
def extremes(op: Operation, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    dims = [dims] if isinstance(dims, int) else list(dims)
    return folded(op, op.name.removeprefix("a"), x, dims or list(range(len(x.dims))), keepdim)


@handles("aten::prod")
def product(op: Operation, x: Value, dim: int | None = None, keepdim: bool = False, *rest: Any) -> Value:
    return folded(op, "mul", x, list(range(len(x.dims))) if dim is None else [dim], keepdim)


def folded(op: Operation, kind: str, x: Value, dims: list[int], keepdim: bool) -> Value:
    """The maximum, minimum or product over dimensions of features: halves are combined until one is left."""
    dims = [d % len(x.dims) for d in dims]
    if any(x.dims[d] != FEATURE for d in dims):
        raise Unsupported("an extreme or a product over batch, rows or columns, which includes later pixels")
    codes = np.moveaxis(x.codes, dims, range(len(dims)))
    codes = codes.reshape(-1, *codes.shape[len(dims) :])
    kept = [d for d in range(len(x.dims)) if d not in dims]
    names = tuple(x.dims[d] for d in kept)
    while len(codes) > 1:
        half = len(codes) // 2
        parts = [x.like(part, (FEATURE, *names)) for part in (codes[:half], codes[half : 2 * half])]
        codes = np.concatenate([apply(op, kind, parts).codes, codes[2 * half :]])
    codes = codes[0]
    return x.like(np.expand_dims(codes, tuple(dims))) if keepdim else x.like(codes, names)
