"""Shared memory: an operation in place also changes what its tensor is a view of, and all other views of that."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from torch import Tensor, fx

from genfast.engine.compiler.arithmetic import add, as_values
from genfast.engine.compiler.handlers import constant, expand, handles, unsqueeze
from genfast.engine.compiler.nodes import ITSELF, operation, writes
from genfast.engine.compiler.values import COLUMN, FEATURE, LINE, ROW, Operation, Unsupported, Value, windowed

_SAME_NUMBERS = ("view", "unflatten", "unsqueeze", "squeeze", "view_as", "_unsafe_view")
_PARTS = ("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split")


@handles("aten::copy")
def copy(op: Operation, x: Any, source: Any, *rest: Any) -> Value:
    return expand(op, source, x.shape) if isinstance(source, Value) else fill(op, x, source)


@handles("aten::fill")
def fill(op: Operation, x: Value, value: Any) -> Value:
    return as_values(op, x, value)[1]


@handles("aten::zero")
def zero(op: Operation, x: Value) -> Value:
    return fill(op, x, 0.0)


def written(op: Operation, node: fx.Node, whole: Any, part: Any) -> Any:
    """What `whole` is after its view `node` has become `part`. Raises: Unsupported."""
    name, args = operation(node), _arguments(node)
    if node.target is operator.getitem:
        return [part if at == args[0] else one for at, one in enumerate(whole)]
    if name in ITSELF or name == "to" or writes(node):
        return part
    whole = whole if isinstance(whole, Value) else _as_value(op, node, whole, part)
    if name in _SAME_NUMBERS:
        return whole.like(part.codes.reshape(whole.codes.shape))
    if name in ("permute", "transpose", "swapaxes", "t"):
        order = _order(name, args, len(whole.dims))
        return whole.like(np.broadcast_to(part.codes.transpose(np.argsort(order)), whole.codes.shape))
    if name in _PARTS:
        return _joined(node, whole, part)
    if name not in ("slice", "narrow", "select"):
        raise Unsupported(f"it changes what {name} returned, which may share memory with something else, in place")
    dim, dim_name = whole.axis(args[0] if args else 0)
    if name == "select":
        part, index = unsqueeze(op, part, dim), args[1] % whole.shape[dim]
        part = part.like(part.codes, whole.dims)
        picked = slice(index, index + 1)
    elif name == "narrow":
        picked = slice(args[1], args[1] + args[2])
    else:
        picked = slice(*(None if at is None else at for at in (*args[1:], None, None, None)[:3]))
    start, stop, step = picked.indices(whole.shape[dim])
    if dim_name == FEATURE:
        codes, index_of = whole.codes.copy(), [slice(None)] * len(whole.dims)
        index_of[dim] = slice(start, stop, step)
        codes[tuple(index_of)] = part.codes
        return whole.like(codes)
    if (start, stop, step) == (0, whole.shape[dim], 1):
        return part
    if dim_name not in ((LINE,) if LINE in whole.size else (ROW, COLUMN)) or step != 1:
        raise Unsupported("it changes a part of the batch, or every other row or column, in place")
    return _pasted(op, whole, part, dim_name, start, stop)


def _pasted(op: Operation, whole: Value, part: Value, name: str, start: int, stop: int) -> Value:
    """Rows or columns start .. stop - 1 of `part`, the others of `whole`: each is zero where another is not."""
    size = whole.size[name]
    pieces = [windowed(part, name, -start, size - start)]
    if start:
        pieces.append(windowed(windowed(whole, name, 0, start), name, 0, size))
    if stop < size:
        pieces.append(windowed(windowed(whole, name, stop, size), name, -stop, size - stop))
    total = pieces[0]
    for piece in pieces[1:]:
        total = add(op, total, piece)
    return total


def _joined(node: fx.Node, whole: Value, parts: list[Value]) -> Value:
    """The parts, one of which has changed, in one again."""
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if operation(node) == "unbind":
        dim = node.args[1] if len(node.args) > 1 else 0
    dim, name = whole.axis(dim)  # type: ignore[arg-type]
    if name != FEATURE:
        raise Unsupported("it changes a part of batch, rows or columns in place")
    if operation(node) == "unbind":
        return whole.like(np.stack([part.codes for part in parts], dim))
    return whole.like(np.concatenate([part.codes for part in parts], dim))


def _arguments(node: fx.Node) -> tuple[Any, ...]:
    """The arguments of a view but the tensor."""
    return node.args[1:]


def _order(name: str, args: tuple[Any, ...], rank: int) -> list[int]:
    if name == "permute":
        return [at % rank for at in args[0]]
    order = list(range(rank))
    a, b = (0, 1) if name == "t" else args
    order[a], order[b] = order[b], order[a]
    return order


def _as_value(op: Operation, node: fx.Node, whole: Any, part: Any) -> Value:
    """A constant of which `node`, a view, has become `part`: it has its batch, rows and columns where that has them."""
    name, args = operation(node), _arguments(node)
    if not isinstance(whole, Tensor) or not isinstance(part, Value):
        raise Unsupported("it changes what is no tensor in place")
    if name in ("slice", "narrow"):
        dims = part.dims
    elif name == "select":
        at = args[0] % whole.dim()
        dims = (*part.dims[:at], _alone(op, part), *part.dims[at:])
    else:
        raise Unsupported(f"it changes {name} of a constant in place")
    size = part.size | {name: n for name, n in zip(dims, whole.shape) if name in part.size}
    if size[ROW] * size[COLUMN] != part.size[ROW] * part.size[COLUMN] and LINE in size:
        raise Unsupported("it changes a part of a constant along all pixels in place")
    # NaN marks what will be overwritten; were it read, the program would not equal the model.
    return constant(op, whole.nan_to_num(nan=0.0), part.like(part.codes, dims, size), -1)


def _alone(op: Operation, part: Value) -> str:
    """The dimension that was picked of an image: rows or columns where one alone is left, else features."""
    if part.graph.domain == (0, 1, 0, 1):  # all values are features
        return FEATURE
    sizes = ((ROW, op.spec.height), (COLUMN, op.spec.width))
    picked = [name for name, full in sizes if name not in part.dims and part.size[name] == 1 < full]
    if len(picked) > 1:
        raise Unsupported("it changes one pixel alone in place")
    return picked[0] if picked else FEATURE
