"""Symbolic tensors: while a graph is read, which feature of which step each entry of a tensor is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from genfast.engine.compiler.plan import Graph, Rectangle, View, cut

BATCH, ROW, COLUMN, FEATURE = "b", "r", "c", "f"


class Operation(Protocol):
    """The operation that a handler is called for.

    Attributes:
        name: without its namespace.
        where: the operation and its place in the model, for errors.
    """

    name: str
    where: str

    def by_label(self, tensor: Any) -> bool:
        """Whether a constant has one entry for each label, in its batch dimension."""
        ...


class Unsupported(Exception):
    """An operation cannot be run pixel by pixel. The message says why; the reader of the graph adds which operation."""


@dataclass(eq=False)
class Value:
    """A tensor of features of `graph`.

    Attributes:
        codes: int64, the feature of each entry; of size 1 in the dimensions of batch, rows and columns.
        dims: of each dimension: "f" for features, or "b" (batch), "r" (rows), "c" (columns), or several of these where
            they were flattened together.
        size: of "b", "r" and "c".
        stride: pixels from one position to the next.
    """

    graph: Graph
    codes: np.ndarray
    dims: tuple[str, ...]
    size: dict[str, int]
    stride: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        sizes = zip(self.codes.shape, self.dims)
        return tuple(n if dim == FEATURE else math.prod(self.size[d] for d in dim) for n, dim in sizes)

    @property
    def domain(self) -> Rectangle:
        """(first row, end row, first column, end column)."""
        return 0, self.size[ROW], 0, self.size[COLUMN]

    def like(
        self,
        codes: np.ndarray,
        dims: tuple[str, ...] | None = None,
        size: dict[str, int] | None = None,
        stride: int | None = None,
    ) -> Value:
        """A value of other codes, with this one's attributes where none are given."""
        return Value(self.graph, codes, dims or self.dims, size or self.size, stride or self.stride)

    def axis(self, dim: int) -> tuple[int, str]:
        """(dimension, at least 0; its entry of `dims`)."""
        dim = dim + len(self.dims) if dim < 0 else dim
        return dim, self.dims[dim]

    def is_image(self) -> bool:
        """Whether the dimensions are batch, features, rows and columns, in this order."""
        return self.dims == (BATCH, FEATURE, ROW, COLUMN)


def permuted(x: Value, order: Iterable[int]) -> Value:
    """x with its dimensions in another order."""
    order = [d % len(x.dims) for d in order]
    return x.like(x.codes.transpose(order), tuple(x.dims[d] for d in order))


def reshaped(x: Value, shape: Iterable[int]) -> Value:
    """`x` in another shape. Features can be split and joined; batch, rows and columns only joined with each other."""
    shape = list(shape)
    if -1 in shape:
        at = shape.index(-1)
        shape[at] = math.prod(x.shape) // max(1, -math.prod(shape))
    problem = Unsupported(f"a reshape from {x.shape} to {tuple(shape)}, which mixes features, batch, rows or columns")
    parts: list[tuple[str, int]] = []
    for n, dim in zip(x.codes.shape, x.dims):
        parts += [(FEATURE, n)] if dim == FEATURE else [(d, x.size[d]) for d in dim]
    dims: list[str] = []
    sizes: list[int] = []
    for position, room in enumerate(shape):
        names, features, rest = "", 1, len(shape) - position - 1
        while parts and (room > 1 or _takes(parts, names, features, rest)):
            name, size = parts[0]
            if name == FEATURE and size > room:
                if size % room:
                    raise problem
                parts[0] = name, size // room
                features, room = features * room, 1
                break
            if size < 1 or room % size:
                raise problem
            parts.pop(0)
            room //= size
            if name == FEATURE:
                features *= size
            else:
                names += name
        if room > 1 or (names and features > 1):
            raise problem
        dims.append(names or FEATURE)
        sizes.append(features)
    if any(name != FEATURE or size > 1 for name, size in parts):
        raise problem
    return x.like(x.codes.reshape(sizes), tuple(dims))


def _takes(parts: list[tuple[str, int]], names: str, features: int, rest: int) -> bool:
    """Whether a dimension that is complete also takes the next part, which has size 1."""
    name, size = parts[0]
    return size == 1 and name != FEATURE and features == 1 and (not names or rest < len(parts))


def windowed(x: Value, name: str, start: int, stop: int) -> Value:
    """Rows (`name` "r") or columns ("c") from `start` to `stop` of x, with zeros outside of x."""
    if stop < start:
        raise Unsupported("more rows or columns cropped than there are")
    begin, end = max(start, 0), min(stop, x.size[name])
    row, column = (start, 0) if name == ROW else (0, start)

    def change(view: View) -> View:
        r0, r1, c0, c1 = view.window
        if name == ROW:
            kept = begin + view.row, end + view.row, c0, c1
        else:
            kept = r0, r1, begin + view.column, end + view.column
        return View(view.step, view.row + row, view.column + column, cut(kept, view.window) or (0, 0, 0, 0))

    return x.like(x.graph.moved(x.codes, change), size=x.size | {name: stop - start})


def sliced(x: Value, dim: int, start: int | None, stop: int | None, step: int = 1) -> Value:
    """x[start:stop:step] in one dimension."""
    dim, name = x.axis(dim)
    start, stop, step = slice(start, stop, step).indices(x.shape[dim])
    stop = max(start, stop)
    if name == FEATURE:
        index = [slice(None)] * len(x.dims)
        index[dim] = slice(start, stop, step)
        return x.like(x.codes[tuple(index)])
    if (start, stop, step) == (0, x.shape[dim], 1):
        return x
    if name not in (ROW, COLUMN) or step != 1:
        raise Unsupported("a part of the batch, or every other row or column")
    return windowed(x, name, start, stop)


def broadcast(values: Sequence[Value]) -> list[Value]:
    """The values, broadcast to one shape: features expand; batch, rows and columns must be in the same dimensions."""
    rank = max(len(v.dims) for v in values)
    wide = [_led(v, rank) for v in values]
    dims = []
    for at in range(rank):
        names = {v.dims[at] for v in wide if v.dims[at] != FEATURE or v.codes.shape[at] > 1}
        if len(names) > 1:
            raise Unsupported(f"a combination of dimensions that do not correspond, {wide[0].dims} and {wide[1].dims}")
        dims.append(names.pop() if names else wide[0].dims[at])
    spatial = [v.size for v in wide]
    if any(size != spatial[0] for size in spatial) or any(v.stride != wide[0].stride for v in wide):
        raise Unsupported(f"a combination of maps of different sizes, {wide[0].shape} and {wide[1].shape}")
    codes = np.broadcast_arrays(*(v.codes for v in wide))
    return [wide[0].like(c, tuple(dims)) for c in codes]


def _led(x: Value, rank: int) -> Value:
    """`x` with leading feature dimensions of size 1."""
    more = rank - len(x.dims)
    return x.like(x.codes.reshape((1,) * more + x.codes.shape), (FEATURE,) * more + x.dims)


def constant_like(x: Value, constant: np.ndarray, by_label: bool) -> tuple[Value, np.ndarray]:
    """x and a constant, for an operation position by position.

    Args: constant, an array that broadcasts with x; by_label, whether its batch dimension has one entry for each label.
    Returns: x, broadcast; the constant, broadcast to its flattened codes: [features] or [classes, features].
    """
    rank = max(len(x.dims), constant.ndim)
    x = _led(x, rank)
    constant = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    batch, shape = None, []
    for at, (dim, n) in enumerate(zip(x.dims, x.codes.shape)):
        if dim == FEATURE or constant.shape[at] == 1:
            shape.append(n if dim != FEATURE else max(n, constant.shape[at]))
            continue
        shape.append(1)
        if dim == BATCH and by_label:
            batch = at
            continue
        first = constant.take([0], at)
        if not (constant == first).all():
            raise Unsupported("a constant that changes over rows or columns")
        constant = first
    x = x.like(np.broadcast_to(x.codes, shape))
    if batch is None:
        return x, np.broadcast_to(constant, shape).reshape(-1)
    entry = (*shape[:batch], *shape[batch + 1 :])
    table = np.moveaxis(constant, batch, 0)
    return x, np.broadcast_to(table, (len(table), *entry)).reshape(len(table), -1)
