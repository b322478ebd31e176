"""Handlers of ATen operations on symbolic values; those in this module only rearrange features.

A handler takes the operation and its arguments, and returns values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from genfast import _registry
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
    Varies,
    array,
    broadcast,
    constant_like,
    field,
    line,
    permuted,
    reshaped,
    sliced,
    windowed,
)

H = TypeVar("H", bound=Callable[..., Any])
# operation -> its handler; filled by `handles`.
HANDLERS: dict[str, Callable[..., Any]] = {}


def handles(*names: str) -> Callable[[H], H]:
    """Decorator: the function handles the operations of these names."""

    def register(function: H) -> H:
        for name in names:
            _registry.add(HANDLERS, "operation", name, function, function.__module__)
        return function

    return register


def depends(value: Any) -> bool:
    """Whether an argument, or an entry of one, depends on the image."""
    return isinstance(value, (Value, Pairs)) or (isinstance(value, (list, tuple)) and any(map(depends, value)))


@handles(
    "aten::contiguous",
    "aten::clone",
    "aten::alias",
    "aten::detach",
    "aten::lift_fresh_copy",
    "aten::dropout",
    "aten::feature_dropout",
    "aten::alpha_dropout",
    "aten::feature_alpha_dropout",
    "aten::positive",
)
def same(op: Operation, x: Value, *rest: Any) -> Value:
    if len(rest) == 2 and rest[1] is True and rest[0] > 0:
        raise Unsupported("dropout in training mode")
    return x


@handles("aten::to", "aten::_to_copy", "aten::type_as", "aten::float")
def same_number(op: Operation, x: Value, *rest: Any) -> Value:
    kinds = [r for r in rest if isinstance(r, torch.dtype)]
    if kinds and not kinds[0].is_floating_point and kinds[0] != torch.bool:
        return HANDLERS["aten::long"](op, x)
    if kinds == [torch.bool]:
        # A comparison; that is in a module that imports this one.
        return HANDLERS["aten::ne"](op, x, 0.0)
    if any(kind != torch.float32 for kind in kinds):
        raise Unsupported(f"a conversion to {kinds[0]}")
    return x


@handles("aten::permute")
def permute(op: Operation, x: Value, order: Sequence[int]) -> Value:
    return permuted(x, order)


@handles("aten::movedim", "aten::moveaxis")
def movedim(op: Operation, x: Value, source: Any, target: Any) -> Value:
    order = list(range(len(x.dims)))
    for s, t in sorted(zip(np.atleast_1d(source) % len(order), np.atleast_1d(target) % len(order)), key=lambda p: p[1]):
        order.remove(s)
        order.insert(t, s)
    return permuted(x, order)


@handles("aten::transpose", "aten::swapaxes", "aten::swapdims")
def transpose(op: Operation, x: Value, a: int, b: int) -> Value:
    order = list(range(len(x.dims)))
    order[a], order[b] = order[b], order[a]
    return permuted(x, order)


@handles("aten::view", "aten::reshape", "aten::_unsafe_view", "aten::view_copy")
def view(op: Operation, x: Value, shape: Sequence[int]) -> Value:
    return reshaped(x, shape)


@handles("aten::flatten")
def flatten(op: Operation, x: Value, start: int, end: int) -> Value:
    shape, n = x.shape, len(x.dims)
    start, end = start % n, end % n
    return reshaped(x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@handles("aten::unflatten")
def unflatten(op: Operation, x: Value, dim: int, sizes: Sequence[int]) -> Value:
    dim %= len(x.dims)
    known = math.prod(s for s in sizes if s != -1)
    sizes = [x.shape[dim] // known if s == -1 else s for s in sizes]
    if x.dims[dim] == FEATURE:
        codes = x.codes.reshape((*x.codes.shape[:dim], *sizes, *x.codes.shape[dim + 1 :]))
        return x.like(codes, (*x.dims[:dim], *[FEATURE] * len(sizes), *x.dims[dim + 1 :]))
    return reshaped(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


@handles("aten::unsqueeze")
def unsqueeze(op: Operation, x: Value, dim: int) -> Value:
    dim %= len(x.dims) + 1
    return x.like(np.expand_dims(x.codes, dim), (*x.dims[:dim], FEATURE, *x.dims[dim:]))


@handles("aten::squeeze")
def squeeze(op: Operation, x: Value, dims: Any = None) -> Value:
    candidates = range(len(x.dims)) if dims is None else [d % len(x.dims) for d in np.atleast_1d(dims)]
    squeezed = [d for d in candidates if x.shape[d] == 1]
    if any(x.dims[d] not in (FEATURE, ROW, COLUMN) for d in squeezed):
        raise Unsupported("a squeeze of the batch")
    return x.like(np.squeeze(x.codes, tuple(squeezed)), tuple(d for i, d in enumerate(x.dims) if i not in squeezed))


@handles("aten::expand", "aten::expand_as", "aten::broadcast_to")
def expand(op: Operation, x: Any, shape: Any, implicit: bool = False) -> Any:
    shape = getattr(shape, "shape", shape)
    if not depends(x):
        if op.node(x) is not None:
            raise Unsupported("an expansion of what depends on labels or a condition")
        return x.expand(shape)
    more = len(shape) - len(x.dims)
    dims = (FEATURE,) * more + x.dims
    codes = x.codes.reshape((1,) * more + x.codes.shape)
    wanted = []
    for i, (n, full) in enumerate(zip(shape, (1,) * more + x.shape)):
        if dims[i] != FEATURE and n not in (-1, full):
            raise Unsupported("an expansion of batch, rows or columns")
        wanted.append(codes.shape[i] if dims[i] != FEATURE or n == -1 else n)
    return x.like(np.broadcast_to(codes, wanted), dims)


@handles("aten::slice")
def slice_(
    op: Operation, x: Value, dim: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    return sliced(x, dim, start, stop, step)


@handles("aten::narrow")
def narrow(op: Operation, x: Value, dim: int, start: int, length: int) -> Value:
    start = start + x.shape[dim] if start < 0 else start
    return sliced(x, dim, start, start + length)


@handles("aten::select")
def select(op: Operation, x: Value, dim: int, index: int) -> Value:
    dim, name = x.axis(dim)
    if name in (ROW, COLUMN) and x.shape[dim] > 1:
        index %= x.shape[dim]
        x, index = sliced(x, dim, index, index + 1), 0
    elif name not in (FEATURE, ROW, COLUMN):
        raise Unsupported("one image, or one of all pixels, alone")
    return x.like(np.take(x.codes, index, dim), (*x.dims[:dim], *x.dims[dim + 1 :]))


@handles("aten::unbind")
def unbind(op: Operation, x: Value, dim: int = 0) -> list[Value]:
    return [select(op, x, dim, i) for i in range(x.shape[dim])]


@handles("aten::chunk", "aten::unsafe_chunk")
def chunk(op: Operation, x: Value, chunks: int, dim: int = 0) -> list[Value]:
    return split(op, x, -(-x.shape[dim] // chunks), dim)


@handles("aten::split", "aten::split_with_sizes", "aten::unsafe_split", "aten::unsafe_split_with_sizes")
def split(op: Operation, x: Value, sizes: int | Sequence[int], dim: int = 0) -> list[Value]:
    whole = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    stops = np.cumsum(sizes)
    return [sliced(x, dim, int(stop) - size, int(stop)) for size, stop in zip(sizes, stops)]


@handles("aten::tensor_split")
def tensor_split(op: Operation, x: Value, sections: int | Sequence[int], dim: int = 0) -> list[Value]:
    whole = x.shape[dim]
    if isinstance(sections, int):
        sizes = [whole // sections + (i < whole % sections) for i in range(sections)]
        return split(op, x, sizes, dim)
    bounds = [0, *sections, whole]
    return [sliced(x, dim, a, b) for a, b in zip(bounds, bounds[1:])]


@handles("aten::flip")
def flip(op: Operation, x: Value, dims: Sequence[int]) -> Value:
    if any(x.axis(d)[1] != FEATURE for d in dims):
        raise Unsupported("a flip of batch, rows or columns")
    return x.like(np.flip(x.codes, tuple(dims)))


@handles("aten::cat", "aten::concat", "aten::concatenate")
def cat(op: Operation, tensors: Sequence[Any], dim: int = 0) -> Value:
    if op.spec.height > 1 and op.spec.width > 1:
        tensors = [t.as_image() if depends(t) else t for t in tensors]
    model = next(t for t in tensors if depends(t))
    dim, name = model.axis(dim)[0], line(model, dim)
    if name == FEATURE:
        values = [t if depends(t) else constant(op, t, model, dim) for t in tensors]
        whole = {v.dims for v in values}, {tuple(v.size.items()) for v in values}, {v.stride for v in values}
        if any(len(kinds) > 1 for kinds in whole):
            raise Unsupported("a concatenation of maps of different sizes")
        return model.like(np.concatenate([v.codes for v in values], dim))
    return beside(op, tensors, dim, name)


def beside(op: Operation, tensors: Sequence[Any], dim: int, name: str) -> Value:
    """Maps and constants after each other in rows, columns or along the line; constants around one map are padding."""
    maps = [t for t in tensors if depends(t)]
    model = maps[0]
    if name not in ((LINE,) if LINE in model.size else (ROW, COLUMN)):
        raise Unsupported("a concatenation of batches, or of rows or columns of a line")
    if any(t.dims != model.dims or t.stride != model.stride for t in maps):
        raise Unsupported("a concatenation of maps of different sizes")
    ends = np.cumsum([t.shape[dim] for t in tensors])
    starts = [int(end) - t.shape[dim] for end, t in zip(ends, tensors)]
    padded = [windowed(t, name, -start, int(ends[-1]) - start) for t, start in zip(tensors, starts) if depends(t)]
    constants = [t for t in tensors if not depends(t)]
    if not any(op.node(t) is not None or array(t).any() for t in constants):
        return summed(op, padded)
    if any(op.node(t) is not None for t in constants):
        raise Unsupported("a concatenation over rows or columns of what depends on labels or a condition")
    parts = [_nothing(t) if depends(t) else t for t in tensors]
    batch = model.dims.index(BATCH) if BATCH in model.dims else None
    if batch is not None:
        parts = [t.narrow(batch, 0, 1) for t in parts]
    around = field(op, padded[0], torch.cat([t.cpu().float() for t in parts], dim))
    return summed(op, broadcast([*padded, around]))


def _nothing(x: Value) -> Tensor:
    """Zeros of the shape of x, for a single image."""
    shape = [1 if d == BATCH else n for n, d in zip(x.shape, x.dims)]
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def summed(op: Operation, values: Sequence[Value]) -> Value:
    """The sum of maps of one shape; two at a time, so that maps which are zero but for a few rows stay exact."""
    total = values[0]
    for value in values[1:]:
        codes = [v.codes.reshape(-1) for v in broadcast([total, value])]
        y = total.graph.elementwise("add", codes, total.stride, total.domain, op.where)
        total = total.like(y.reshape(total.codes.shape))
    return total


@handles("aten::stack")
def stack(op: Operation, tensors: Sequence[Any], dim: int = 0) -> Value:
    rank = next(len(t.dims) for t in tensors if depends(t)) + 1
    dim %= rank
    return cat(op, [unsqueeze(op, t, dim) if depends(t) else t.unsqueeze(dim) for t in tensors], dim)


def constant(op: Operation, tensor: Tensor, model: Value, dim: int) -> Value:
    """A constant map with the dimensions of `model`; its size may differ in dimension `dim`."""
    codes = np.zeros([n if i == dim or d == FEATURE else 1 for i, (n, d) in enumerate(zip(tensor.shape, model.dims))])
    shape = model.like(codes.astype(np.int64))
    try:
        shaped, numbers = constant_like(op, shape, tensor)
    except Varies:
        return field(op, shape, tensor)
    y = model.graph.elementwise("constant", [], model.stride, model.domain, op.where, bias=numbers)
    return shaped.like(y.reshape(shaped.codes.shape))


@handles("aten::pad", "aten::constant_pad_nd")
def pad(op: Operation, x: Value, padding: Sequence[int], mode: Any = "constant", value: float | None = None) -> Value:
    if not isinstance(mode, str):
        mode, value = "constant", mode
    pairs = list(zip(padding[::2], padding[1::2]))
    for back, (before, after) in enumerate(pairs):
        dim = len(x.dims) - 1 - back
        name = line(x, dim)
        if before == after == 0:
            continue
        if name == FEATURE:
            if mode != "constant" or min(before, after) < 0:
                raise Unsupported("padding of features that is not constant")
            shape = list(x.shape)
            sizes = ([*shape[:dim], n, *shape[dim + 1 :]] for n in (before, after))
            parts = [torch.full(size, value or 0.0, dtype=torch.float32, device="cpu") for size in sizes]
            x = cat(op, [p for p in (parts[0], x, parts[1]) if depends(p) or p.shape[dim]], dim)
            continue
        if name not in ((LINE,) if LINE in x.size else (ROW, COLUMN)):
            raise Unsupported("padding of the batch, or of rows or columns of a line")
        if max(before, after) > 0 and mode != "constant":
            raise Unsupported(f"padding of rows or columns by {mode}, not by a constant")
        kept = windowed(x, name, max(0, -before), x.size[name] + min(0, after))
        shape = [1 if d == BATCH else size for size, d in zip(x.shape, x.dims)]
        sizes = ([*shape[:dim], n, *shape[dim + 1 :]] for n in (max(0, before), max(0, after)))
        parts = [torch.full(size, value or 0.0, dtype=torch.float32, device="cpu") for size in sizes]
        x = beside(op, [parts[0], kept, parts[1]], dim, name)
    return x
