"""Scores and weights of attention: tensors over pairs of positions, which are never made.

A score is factor * (left . right) + bias, of features of two positions and of constants; a weight is a softmax of it
along one side, times a constant. What remains of them is an instruction that looks back, see `program.Attention`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.compiler.plan import Graph, NotCausal, Operand, Step, View
from genfast.engine.compiler.sums import linear_step
from genfast.engine.compiler.values import (
    BATCH,
    COLUMN,
    FEATURE,
    LINE,
    ROW,
    Operation,
    Pairs,
    Unsupported,
    Value,
    line,
)
from genfast.engine.program import Attention

MOST_POSITIONS = 8192  # of attention, whose masks have the square of them
# What lies as much below the largest has an exponential of 0: scores themselves would have to differ by 900 for more.
FAR = -1000.0


class _Heads(Graph):
    """The graph of the numbers of heads, which are no features."""

    def moved(self, codes: np.ndarray, change: Callable[[View], View]) -> np.ndarray:
        raise Unsupported("a part of the scores of attention")


def position_labels(x: Value, labels: str) -> list[str]:
    """The labels of the dimensions of rows, columns or positions."""
    return [label for label, dim in zip(labels, x.dims) if dim not in (FEATURE, BATCH)]


def scores(op: Operation, a: Value, first: str, b: Value, second: str, result: str) -> Pairs | None:
    """einsum(f"{first},{second}->{result}") where each operand has positions of its own; None where it has not."""
    (p, *more), (q, *others) = (position_labels(x, labels) or [""] for x, labels in ((a, first), (b, second)))
    if more or others or not p or not q or p in second or q in first or {p, q} - set(result):
        return None
    rows, columns = a.domain[1], a.domain[3]
    for x, labels, label in ((a, first, p), (b, second, q)):
        at = labels.index(label)
        whole = line(x, at) == LINE if min(rows, columns) > 1 else line(x, at) in (LINE, ROW, COLUMN)
        if not whole or x.shape[at] != rows * columns or x.size != a.size or x.stride != a.stride:
            raise Unsupported("attention over anything but all pixels in raster order")
    if not 1 < rows * columns <= MOST_POSITIONS:
        raise Unsupported(f"attention over {rows * columns} positions; it is for 2 to {MOST_POSITIONS}")
    gone = [label for label in dict.fromkeys(first + second) if label not in result]
    kept = [label for label in result if label not in (p, q)]
    if any(label not in first or label not in second for label in gone):
        raise Unsupported("scores of attention that sum the features of one side alone")
    names = [a.dims[first.index(label)] if label in first else b.dims[second.index(label)] for label in kept]
    sides = [arranged(x, labels, [*kept, *gone]) for x, labels in ((a, first), (b, second))]
    left, right = np.broadcast_arrays(*sides)
    shape = left.shape[: len(kept)]
    heads = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    dims = dict(zip(kept, names)) | {p: ROW, q: COLUMN}
    codes = heads.reshape([1 if label in (p, q) else shape[kept.index(label)] for label in result])
    size = {BATCH: a.size[BATCH], ROW: rows * columns, COLUMN: rows * columns}
    head = Value(_Heads(a.graph.domain), codes, tuple(dims[label] for label in result), size, 1)
    return Pairs(head, (left.reshape(heads.size, -1), right.reshape(heads.size, -1)), a)


def arranged(x: Value, labels: str, names: list[str]) -> np.ndarray:
    """The codes of x without its dimension of positions, in the order of `names`; of size 1 where x has no such."""
    for label, dim in zip(labels, x.dims):
        if dim in (BATCH, FEATURE) and label not in names:
            raise Unsupported("attention whose operands do not share the batch")
    order = [labels.index(name) for name in names if name in labels]
    rest = [at for at in range(len(labels)) if at not in order]
    codes = x.codes.transpose([*order, *rest])
    sizes = iter(codes.shape)
    return codes.reshape([next(sizes) if name in labels else 1 for name in names])


def table_of(op: Operation, x: Pairs, constant: Any) -> np.ndarray:
    """A constant that broadcasts with the scores, as [1 or heads, 1 or positions, 1 or positions]."""
    if op.node(constant) is not None:
        raise Unsupported("scores of attention combined with what depends on a label or a condition")
    values = constant.detach().cpu().numpy() if isinstance(constant, Tensor) else np.asarray(constant)
    if values.size == 1:
        return values.reshape(1, 1, 1)
    heads = x.heads
    if values.ndim > len(heads.dims) or sorted(heads.dims.count(name) for name in (ROW, COLUMN)) != [1, 1]:
        raise Unsupported("a constant that does not broadcast with scores of attention")
    values = values.reshape((1,) * (len(heads.dims) - values.ndim) + values.shape)
    others = [at for at, name in enumerate(heads.dims) if name not in (ROW, COLUMN)]
    for at in others:
        count = heads.codes.shape[at]
        if heads.dims[at] == BATCH and values.shape[at] > 1:
            by_image = np.moveaxis(values, at, 0).reshape(-1, count, *np.delete(values.shape, at))
            if not (by_image == by_image[:1]).all():
                raise Unsupported("scores of attention combined with what differs from image to image")
            values = np.moveaxis(by_image[0], 0, at)
    values = values.transpose([*others, heads.dims.index(ROW), heads.dims.index(COLUMN)])
    codes = heads.codes.transpose([*others, heads.dims.index(ROW), heads.dims.index(COLUMN)])[..., 0, 0]
    if values.size == math.prod(values.shape[-2:]):
        return values.reshape(1, *values.shape[-2:])
    every = np.broadcast_to(values, (*codes.shape, *values.shape[-2:])).reshape(-1, *values.shape[-2:])
    table = np.ones((len(x.sides[0]), *values.shape[-2:]), values.dtype)
    table[codes.reshape(-1)] = every
    return table


def times(op: Operation, x: Pairs, constant: Any, inverse: bool = False) -> Pairs:
    """Scores or weights times a constant, or divided by it."""
    table = table_of(op, x, constant).astype(np.float32)
    if inverse:
        if not table.all():
            raise Unsupported("scores of attention divided by zero")
        table = np.float32(1) / table
    if x.key:
        return replace(x, after=x.after * _by_query(x, table))
    return replace(x, factor=x.factor * table, bias=_finite_product(x.bias, table))


def _finite_product(bias: np.ndarray, table: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        product: np.ndarray = bias * table
    if np.isnan(product).any():
        raise Unsupported("a mask of minus infinity times zero")
    return product


def plus(op: Operation, x: Pairs, constant: Any, sign: float = 1.0) -> Pairs:
    """Scores plus a constant."""
    if x.key:
        raise Unsupported("a sum of the weights of attention and a constant")
    return replace(x, bias=x.bias + sign * table_of(op, x, constant).astype(np.float32))


def filled(op: Operation, x: Pairs, mask: Any, value: Any) -> Pairs:
    """Scores or weights with a number where a mask holds."""
    held = table_of(op, x, mask) != 0
    number = table_of(op, x, value).astype(np.float32)
    if not x.key:
        factor, bias = np.where(held, np.float32(0), x.factor), np.where(held, number, x.bias)
        return replace(x, factor=factor, bias=bias)
    held = _by_query(x, held)
    if (number != 0).any():
        raise Unsupported("weights of attention that are set to anything but zero")
    whole = np.broadcast_to(held, (*held.shape[:2], x.positions)).all(2)
    return replace(x, after=np.where(held, np.float32(0), x.after), empty=x.empty & ~whole)


def _by_query(x: Pairs, table: np.ndarray) -> np.ndarray:
    """A table with the positions of queries before those of keys."""
    return table if x.key == COLUMN else table.swapaxes(1, 2)


def normalised(op: Operation, x: Pairs, dim: int, safe: bool = False) -> Pairs:
    """The softmax of scores along a dimension; `safe`: where nothing but minus infinity is left, zeros, not NaN."""
    name = x.heads.axis(dim)[1]
    if x.key or name not in (ROW, COLUMN):
        raise Unsupported("a softmax of scores of attention that is not over the positions of keys")
    y = replace(x, key=name)
    bias = np.broadcast_to(_by_query(y, x.bias), (len(x.bias), x.positions, x.positions))
    if np.isnan(bias).any() or (bias == np.inf).any():
        raise Unsupported("a mask of attention that is NaN or infinity")
    empty = (bias == -np.inf).all(2) & (not safe)
    return replace(y, factor=_by_query(y, x.factor), bias=bias, empty=empty)


def without_nan(x: Pairs) -> Pairs:
    """Weights with zeros where they are NaN."""
    if not x.key:
        raise Unsupported("scores of attention whose NaN are replaced")
    return replace(x, empty=np.zeros_like(x.empty))


def weighted(op: Operation, x: Pairs, first: str, b: Any, second: str, result: str) -> Value:
    """einsum(f"{first},{second}->{result}") of weights and values of positions."""
    if not x.key or not isinstance(b, Value):
        raise Unsupported("a product of scores of attention before a softmax, or with anything but values of positions")
    query = first[x.heads.dims.index(COLUMN if x.key == ROW else ROW)]
    key = first[x.heads.dims.index(x.key)]
    if position_labels(b, second) != [key] or key in result or query not in result or query in second:
        raise Unsupported("weights of attention that are not multiplied with the values of the positions of keys")
    at = second.index(key)
    if line(b, at) not in (LINE, ROW, COLUMN) or b.shape[at] != x.positions or b.size != x.model.size:
        raise Unsupported("attention to values of other positions than those of the keys")
    gone = set(first + second) - set(result) - {key}
    kept = [label for label in first if label not in (query, key)]
    wide = [label for label in second if label not in (*first, key)]
    if gone:
        raise Unsupported("weights of attention that are summed over heads or features")
    heads, values = arranged(x.heads, first, kept), arranged(b, second, [*kept, *wide])
    lead = np.broadcast_shapes(heads.shape, values.shape[: len(kept)])
    shape = (*lead, *values.shape[len(kept) :])
    number = np.broadcast_to(heads, lead).reshape(-1)
    codes = np.broadcast_to(values, shape).reshape(len(number), -1)
    y = attended(op, x, number, codes).reshape(shape)
    names = dict(zip(first, x.heads.dims)) | dict.fromkeys(wide, FEATURE) | {query: _line(x.model)}
    order = [[*kept, *wide].index(label) for label in result if label != query]
    y = np.expand_dims(y.transpose(order), result.index(query))
    return x.model.like(y, tuple(names[label] for label in result))


def _line(x: Value) -> str:
    return next(dim for dim in x.dims if dim not in (BATCH, FEATURE))


def attended(op: Operation, x: Pairs, number: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The codes [heads, width] of attention: its heads are `number` of the weights, with codes of values each.

    Raises: NotCausal where a weight of a later position is not zero.
    """
    bias, after, behind, nan = _looking_back(op, x, number)
    sides = x.sides if x.key == COLUMN else x.sides[::-1]
    queries, keys = (side[number] for side in sides)
    scale = _scale(x, number, bias)
    (rows, columns), graph = (x.model.domain[1], x.model.domain[3]), x.model.graph
    groups = _groups(np.concatenate([keys, values], 1))
    share = len(number) // groups
    keys, wanted = keys[::share], values[::share]
    q = queries.reshape(-1)
    if (scale != 1).any():
        weight = np.repeat(scale, queries.shape[1]).astype(np.float32)
        domain, zeros = x.model.domain, np.zeros(len(q), np.float32)
        q = graph.elementwise("affine", [q], x.model.stride, domain, op.where, weight, zeros)
    sizes = queries.shape[1], values.shape[1]
    step = Step("attention", values.size, x.model.stride, x.model.domain, op.where)
    step.attention = Attention(len(number), groups, *sizes, rows, columns, behind=behind, nan=nan)
    step.table = _table(bias, after, behind)
    step.operands = [_operand(op, x.model, codes) for codes in (q, keys.reshape(-1), wanted.reshape(-1))]
    step.operands[1:] = [operand.moved(0, -behind) for operand in step.operands[1:]]
    return graph.add(step).reshape(values.shape)


def _looking_back(op: Operation, x: Pairs, number: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(bias, minus infinity where a weight is zero; what multiplies weights; behind; nan), of the heads `number`."""
    n = x.positions
    bias, after, empty = (table[number] if len(table) > 1 else table for table in (x.bias, x.after, x.empty))
    after = np.broadcast_to(after, (len(after), n, n))
    with np.errstate(invalid="ignore"):
        live = bias - bias.max(2, keepdims=True) > FAR
    live = live & (after != 0).any(2, keepdims=True)
    where = np.argwhere((live & ~np.tri(n, dtype=bool)).any(0))
    if len(where):
        query, key = where[0]
        raise NotCausal(
            f"sample: the model must be causal; got attention of position {query} to position {key}, drawn later; "
            f"it enters at {op.where}"
        )
    if not live.any():
        raise Unsupported("attention to no position at all")
    none = ~live.any(2)
    nan = bool((none & empty).any())
    if nan and (none & ~empty).any():
        raise Unsupported("attention that is NaN where some positions have no keys, and zero where others have none")
    distance = np.where(live.any((0, 2)), np.arange(n) - (n - 1 - live.any(0)[:, ::-1].argmax(1)), n)
    return np.where(live, bias, np.float32(-np.inf)), after, int(distance.min()), int(nan)


def _scale(x: Pairs, number: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What multiplies the products of each head, where they count."""
    factor = x.factor[number] if len(x.factor) > 1 else x.factor
    factor, bias = np.broadcast_arrays(factor, bias)
    scale = np.array([one[which > -np.inf][0] if (which > -np.inf).any() else 1 for one, which in zip(factor, bias)])
    if any((one[which > -np.inf] != value).any() for one, which, value in zip(factor, bias, scale)):
        raise Unsupported("scores of attention that are scaled differently from position to position")
    return np.broadcast_to(scale.astype(np.float32), (len(number),))


def _table(bias: np.ndarray, after: np.ndarray, behind: int) -> np.ndarray | None:
    """The table of an instruction; None where nothing is masked but what comes later, and nothing added."""
    n = bias.shape[1]
    seen = np.tri(n, k=-behind, dtype=bool)
    plain = (after == 1) | (bias == -np.inf)
    if plain.all() and (bias[:, seen] == 0).all():
        return None
    parts = [bias] if plain.all() else np.broadcast_arrays(bias, after)
    return np.stack(parts).astype(np.float32)


def _groups(codes: np.ndarray) -> int:
    """Into how many groups of neighbours with equal rows the heads fall."""
    changes = np.flatnonzero((np.diff(codes, axis=0) != 0).any(1)) + 1
    groups = len(changes) + 1
    even = len(codes) % groups == 0 and np.array_equal(changes, np.arange(1, groups) * (len(codes) // groups))
    return groups if even else len(codes)


def _operand(op: Operation, x: Value, codes: np.ndarray) -> Operand:
    """Codes as features of one step, at all positions of x."""
    graph = x.graph
    index, feature = graph.split(codes)
    view = graph.view(int(index[0]))
    if (index != index[0]).any():
        identity = np.eye(len(codes), dtype=np.float32)
        zeros = np.zeros(len(codes), np.float32)
        codes = linear_step(x, [(codes, 0, 0, (0, 0), identity)], zeros, x.domain, op.where)
    elif (view.row, view.column) != (0, 0) or not view.window == view.step.domain == x.domain:
        codes = graph.elementwise("copy", [codes], x.stride, x.domain, op.where)
    index, feature = graph.split(codes)
    return Operand(graph.view(int(index[0])), feature)
