"""Symbolic tensors: while a graph is read, which feature of which step each entry of a tensor is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import fx

from genfast.engine.compiler.known import Source
from genfast.engine.compiler.plan import Graph, Rectangle, Step, View, cut
from genfast.engine.protocols import ImageSpec

BATCH, ROW, COLUMN, FEATURE = "b", "r", "c", "f"
LINE = ROW + COLUMN  # all pixels in one dimension


class Operation(Protocol):
    """The operation that a handler is called for.

    Attributes:
        name: without its namespace.
        where: the operation and its place in the model, for errors.
        image_values: float32 [levels], what the image of the graph holds for each level.
        has_order: whether values are drawn in an order of their own, not by rows.
    """

    name: str
    where: str
    image_values: np.ndarray
    has_order: bool

    def entries(self, tensor: Any) -> list[Any] | None:
        """What a constant is for all labels, in groups along its batch; None if it depends on no label.

        Raises: `Varies` if it is another for each image.
        """
        ...

    def node(self, tensor: Any) -> fx.Node | None:
        """The node of a constant that depends on labels or conditions; None for others."""
        ...

    @property
    def spec(self) -> ImageSpec:
        """Of the images."""
        ...


class Unsupported(Exception):
    """An operation cannot be run pixel by pixel. The message says why; the reader of the graph adds which operation."""


class Varies(Unsupported):
    """A constant changes over rows, columns or images: it is no weight, but can be a `field`."""


@dataclass(eq=False)
class Value:
    """A tensor of features of `graph`.

    Attributes:
        codes: int64, the feature of each entry; of size 1 in the dimensions of batch, rows and columns, but that of the
            batch may hold features too, which vary faster: [B * F].
        dims: of each dimension: "f" for features, or "b" (batch), "r" (rows), "c" (columns), or several of these where
            they were flattened together.
        size: of "b", "r" and "c"; where the graph has all pixels in one line, also of "rc", which may be shifted.
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
        return tuple(n if dim == FEATURE else n * self.extent(dim) for n, dim in sizes)

    def extent(self, dim: str) -> int:
        """The size of a dimension that is none of features."""
        return self.size[dim] if dim in self.size else math.prod(n for _, n in self.parts(dim))

    def parts(self, dim: str) -> list[tuple[str, int]]:
        """The dimensions that were flattened into one, with their sizes."""
        if self.size.get(LINE) not in (None, self.size[ROW] * self.size[COLUMN]) and LINE in dim:
            before, after = dim.split(LINE)
            return [*((d, self.size[d]) for d in before), (LINE, self.size[LINE]), *((d, self.size[d]) for d in after)]
        return [(d, self.size[d]) for d in dim]

    @property
    def domain(self) -> Rectangle:
        """(first row, end row, first column, end column)."""
        if LINE in self.size:
            return 0, 1, 0, self.size[LINE]
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

    def is_arranged(self, dims: Sequence[str]) -> bool:
        """Whether the dimensions are these; a single row or column may be anywhere, or have become a feature."""

        def seen(name: str) -> str:
            return name if name == FEATURE else "".join(d for d in name if self.size[d] > 1) or FEATURE

        return len(dims) == len(self.dims) and all(
            seen(is_) == seen(wanted) and (wanted == FEATURE or n == 1)
            for is_, wanted, n in zip(self.dims, dims, self.codes.shape)
        )

    def as_image(self) -> Value:
        """The same with a single row or column, which may have been squeezed and be back as a feature, in its place."""
        dims = (BATCH, FEATURE, ROW, COLUMN)
        return self.like(self.codes, dims) if LINE not in self.size and self.is_arranged(dims) else self

    def is_image(self) -> bool:
        """Whether the dimensions are batch, features, rows and columns, in this order."""
        return self.dims == (BATCH, FEATURE, ROW, COLUMN) and LINE not in self.size


@dataclass(eq=False)
class Pairs:
    """Scores or weights of attention, of pairs of positions.

    Attributes:
        heads: of each entry the number of its head; its rows are the positions of one side, its columns of the other.
        sides: int64 [heads, depth] each, the features whose products are summed.
        model: a value of the positions.
        factor, bias: float32 [1 or heads, 1 or positions, 1 or positions], of scores: factor * product + bias.
        key: "": scores; else "r" or "c", the side of the keys of weights. All tables then have queries before keys.
        after: what multiplies the weights.
        empty: bool [1 or heads, positions], where weights are NaN, as nothing is left.
    """

    heads: Value
    sides: tuple[np.ndarray, np.ndarray]
    model: Value
    factor: np.ndarray = dataclasses.field(default_factory=lambda: np.ones((1, 1, 1), np.float32))
    bias: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((1, 1, 1), np.float32))
    key: str = ""
    after: np.ndarray = dataclasses.field(default_factory=lambda: np.ones((1, 1, 1), np.float32))
    empty: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((1, 1), np.bool_))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.heads.shape

    @property
    def positions(self) -> int:
        """Of queries, and of keys."""
        return self.heads.size[ROW]


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
        parts += x.parts(dim) if dim != FEATURE else []
        parts += [(FEATURE, n)] if dim == FEATURE or n > 1 else []
    dims: list[str] = []
    sizes: list[int] = []
    for position, room in enumerate(shape):
        names, features, rest = "", 1, len(shape) - position - 1
        if room == 1 and rest and parts and parts[0] == (FEATURE, 1):
            # One for one: what follows has dimensions of its own.
            parts.pop(0)
            dims.append(FEATURE)
            sizes.append(1)
            continue
        while parts and (room > 1 or _takes(parts, names, features, rest)):
            name, size = parts[0]
            alone = size == 1 < room and name in (ROW, COLUMN) and not names
            if alone and [part for part, _ in parts[1:2]] == [FEATURE]:
                parts.pop(0)  # squeezed, where features are split
                continue
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
            elif features > 1:
                raise problem
            else:
                names += name
        if room > 1 or (names not in ("", BATCH) and features > 1):
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
    if LINE in x.size and name != LINE:
        raise Unsupported("rows or columns cropped or padded, where all pixels are taken as one line")
    begin, end = max(start, 0), min(stop, x.size[name])
    row, column = (start, 0) if name == ROW else (0, start)  # a line is a row

    def change(view: View) -> View:
        r0, r1, c0, c1 = view.window
        if name == ROW:
            kept = begin + view.row, end + view.row, c0, c1
        else:
            kept = r0, r1, begin + view.column, end + view.column
        return View(view.step, view.row + row, view.column + column, cut(kept, view.window) or (0, 0, 0, 0))

    return x.like(x.graph.moved(x.codes, change), size=x.size | {name: stop - start})


def line(x: Value, dim: int) -> str:
    """The entry of `dims` of a dimension, without rows or columns of which there is but one."""
    name = x.axis(dim)[1]
    if len(name) == 1 or LINE in x.size:
        return name
    return "".join(d for d in name if x.size[d] > 1) or name[-1]


def sliced(x: Value, dim: int, start: int | None, stop: int | None, step: int = 1) -> Value:
    """x[start:stop:step] in one dimension."""
    dim, name = x.axis(dim)[0], line(x, dim)
    start, stop, step = slice(start, stop, step).indices(x.shape[dim])
    stop = max(start, stop)
    if name == FEATURE:
        index = [slice(None)] * len(x.dims)
        index[dim] = slice(start, stop, step)
        return x.like(x.codes[tuple(index)])
    if (start, stop, step) == (0, x.shape[dim], 1):
        return x
    if name not in ((ROW, COLUMN) if LINE not in x.size else (LINE,)) or step != 1:
        raise Unsupported("a part of the batch, or every other row or column")
    return windowed(x, name, start, stop)


def broadcast(values: Sequence[Value]) -> list[Value]:
    """The values, broadcast to one shape: features expand; batch, rows and columns must be in the same dimensions."""
    rank = max(len(v.dims) for v in values)
    first, *others = (_led(v, rank) for v in values)
    # A single row or column may stand in another dimension of each.
    same = [LINE not in v.size and v.is_arranged(first.dims) for v in others]
    wide = [first, *(v.like(v.codes, first.dims) if alike else v for v, alike in zip(others, same))]
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


def array(tensor: Any) -> np.ndarray:
    """A constant as float32."""
    if not isinstance(tensor, torch.Tensor):
        return np.asarray(tensor, np.float32)
    return tensor.detach().cpu().numpy().astype(np.float32)


Change = Callable[[np.ndarray], np.ndarray]


def constant_like(op: Operation, x: Value, constant: Any, change: Change | None = None) -> tuple[Value, np.ndarray]:
    """x and a constant, for an operation position by position.

    Args: constant, a number or a tensor that broadcasts with x; change, a function that is applied to it.
    Returns: x, broadcast; the constant, broadcast to its flattened codes: [features] or, by label, [classes, features].
    Raises: `Varies` for a constant that changes over rows or columns, or from image to image.
    """
    groups = op.entries(constant)
    arrays = [array(part) for part in ([constant] if groups is None else groups)]
    parts = [_by_feature(x, part if change is None else change(part), groups is not None) for part in arrays]
    if parts[0][1].ndim == 2:
        return parts[0][0], np.concatenate([table for _, table in parts])[: op.spec.classes]
    if any((part != parts[0][1]).any() for _, part in parts):
        raise Unsupported("a constant that mixes the labels of a batch")
    return parts[0]


def _by_feature(x: Value, constant: np.ndarray, by_label: bool) -> tuple[Value, np.ndarray]:
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
        if not (_alike(constant, first) if dim == BATCH else (constant == first).all()):
            raise Varies("a constant that changes over rows, columns or images")
        constant = first
    x = x.like(np.broadcast_to(x.codes, shape))
    if batch is None:
        return x, np.broadcast_to(constant, shape).reshape(-1)
    entry = (*shape[:batch], *shape[batch + 1 :])
    table = np.moveaxis(constant, batch, 0)
    return x, np.broadcast_to(table, (len(table), *entry)).reshape(len(table), -1)


def _alike(values: np.ndarray, first: np.ndarray) -> bool:
    """Whether constants are equal but for rounding, which may differ with the place in a batch."""
    return bool(np.allclose(values, first, rtol=1e-5, atol=1e-6, equal_nan=True))


MOST_TABLE = 1 << 24  # numbers that a program keeps of a field for all labels; larger ones are computed with each call


def field(op: Operation, x: Value, constant: Any, change: Change | None = None) -> Value:
    """A constant that broadcasts with x as a value: it may change over rows, columns, labels and images."""
    shape = tuple(constant.shape) if isinstance(constant, torch.Tensor) else np.shape(constant)
    x = _led(x, max(len(x.dims), len(shape)))
    shape = (1,) * (len(x.dims) - len(shape)) + shape

    def arranged(tensor: Any) -> np.ndarray:
        values = array(tensor)
        return _arranged(x, (values if change is None else change(values)).reshape(shape))

    node, source = op.node(constant), None
    try:
        groups = op.entries(constant)
    except Varies:
        groups = [constant]
        assert node is not None  # or nothing could vary from image to image
        source = Source(node, arranged)
    tables = [arranged(part) for part in ([constant] if groups is None else groups)]
    table = tables[0] if groups is None or source else np.concatenate(tables)[: op.spec.classes]
    if groups is None and not _alike(table, table[:1]):
        raise Unsupported("a constant that differs from image to image and does not depend on labels or a condition")
    table = table if groups is not None and not source else table[:1]
    if table.size > MOST_TABLE and node is not None:
        source, table = Source(node, arranged), table[:1]
    codes = [n if dim == FEATURE else 1 for n, dim in zip(shape, x.dims)]
    return x.like(field_codes(op, x, table, source).reshape(codes))


def field_codes(op: Operation, x: Value, table: np.ndarray, source: Source | None = None) -> np.ndarray:
    """The codes of a step "field" over the positions of x: `table` [K, R, C, features], see `Step`."""
    count = table.shape[3]
    step = Step("field", count, x.stride, x.domain, op.where, grid=x.domain, source=source)
    step.bias, step.weight = table, np.arange(count)
    return x.graph.add(step)


def _arranged(x: Value, values: np.ndarray) -> np.ndarray:
    """Values that broadcast with x as [K, R, C, features], where batch, rows and columns of size 1 stay so."""
    names: list[str] = []
    sizes: list[int] = []
    for n, dim in zip(values.shape, x.dims):
        if dim == FEATURE:
            names, sizes = [*names, FEATURE], [*sizes, n]
            continue
        if n not in (1, x.extent(dim)):
            raise Unsupported("a constant that does not broadcast")
        parts = x.parts(dim)
        names += [name for name, _ in parts]
        sizes += [1 if n == 1 else size for _, size in parts]
    values = values.reshape(sizes)
    features = [at for at, name in enumerate(names) if name == FEATURE]
    if len(set(names) - {FEATURE}) + len(features) < len(names):
        raise Unsupported("a map over pairs of rows or columns")
    spatial = [name for name in (BATCH, ROW, COLUMN, LINE) if name in names]
    values = values.transpose([*(names.index(name) for name in spatial), *features])
    shape = {name: values.shape[at] for at, name in enumerate(spatial)}
    values = values.reshape([shape.get(name, 1) for name in (BATCH, ROW, COLUMN, LINE)] + [-1])
    if LINE not in x.size:
        return values[:, :, :, 0]
    rows, columns = values.shape[1:3]
    if max(rows, columns) > 1:
        full = x.size[ROW], x.size[COLUMN]
        values = np.broadcast_to(values, (len(values), *full, 1, values.shape[-1]))
        return values.reshape(len(values), 1, -1, values.shape[-1])
    return values[:, 0]
