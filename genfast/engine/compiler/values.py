"""Tensors that depend on the image while a graph is read: which feature of which step stands where."""

import math
from dataclasses import dataclass

import numpy as np

from genfast.engine.compiler.plan import Graph, View, cut

BATCH, ROW, COLUMN, FEATURE = "b", "r", "c", "f"


class Refused(Exception):
    """Why an operation cannot be run pixel by pixel; whoever reads the graph adds which one it is."""


@dataclass(eq=False)
class Value:
    """A tensor of features of `graph`.

    codes: int64, with size 1 for the dimensions of batch and space. dims: for every dimension "f" for features, else
    what it holds of "b" (batch), "r" (rows), "c" (columns), more than one where they were flattened together.
    size: of each of these. stride: pixels from a position to the next.
    """

    graph: Graph
    codes: np.ndarray
    dims: tuple[str, ...]
    size: dict
    stride: int

    @property
    def shape(self):
        sizes = zip(self.codes.shape, self.dims)
        return tuple(n if dim == FEATURE else math.prod(self.size[d] for d in dim) for n, dim in sizes)

    @property
    def domain(self):
        return 0, self.size[ROW], 0, self.size[COLUMN]

    def like(self, codes, dims=None, size=None, stride=None):
        return Value(self.graph, codes, dims or self.dims, size or self.size, stride or self.stride)

    def axis(self, dim):
        dim = dim + len(self.dims) if dim < 0 else dim
        return dim, self.dims[dim]

    def is_image(self):
        """Whether the dimensions are batch, features, rows and columns, in this order."""
        return self.dims == (BATCH, FEATURE, ROW, COLUMN)


def permuted(x, order):
    order = [d % len(x.dims) for d in order]
    return x.like(x.codes.transpose(order), tuple(x.dims[d] for d in order))


def reshaped(x, shape):
    """`x` in another shape: features are split and joined, batch and space only joined, never one with the other."""
    shape = list(shape)
    if -1 in shape:
        at = shape.index(-1)
        shape[at] = math.prod(x.shape) // max(1, -math.prod(shape))
    problem = Refused(f"a reshape from {x.shape} to {tuple(shape)}, which mixes features, batch, rows or columns")
    sizes = zip(x.codes.shape, x.dims)
    parts = [[d, n if dim == FEATURE else x.size[d]] for n, dim in sizes for d in (FEATURE if dim == FEATURE else dim)]
    dims, sizes = [], []
    for position, room in enumerate(shape):
        names, features, rest = "", 1, len(shape) - position - 1
        while parts and (room > 1 or _takes(parts, names, features, rest)):
            name, size = parts[0]
            if name == FEATURE and size > room:
                if size % room:
                    raise problem
                parts[0][1] = size // room
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


def _takes(parts, names, features, rest):
    """Whether a full dimension takes the next part too, one of size 1."""
    name, size = parts[0]
    return size == 1 and name != FEATURE and features == 1 and (not names or rest < len(parts))


def windowed(x, name, start, stop):
    """Rows (`name` "r") or columns ("c") from `start` to `stop` of x; where x has none, zeros."""
    if stop < start:
        raise Refused("more rows or columns cropped than there are")
    begin, end = max(start, 0), min(stop, x.size[name])
    row, column = (start, 0) if name == ROW else (0, start)

    def change(view):
        r0, r1, c0, c1 = view.window
        if name == ROW:
            kept = begin + view.row, end + view.row, c0, c1
        else:
            kept = r0, r1, begin + view.column, end + view.column
        return View(view.step, view.row + row, view.column + column, cut(kept, view.window) or (0, 0, 0, 0))

    return x.like(x.graph.moved(x.codes, change), size=x.size | {name: stop - start})


def sliced(x, dim, start, stop, step=1):
    """x[start:stop:step] of one dimension."""
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
        raise Refused("a part of the batch, or every other row or column")
    return windowed(x, name, start, stop)


def broadcast(values):
    """Values of one shape: features expand, batch, rows and columns stand in the same dimensions."""
    rank = max(len(v.dims) for v in values)
    wide = [_led(v, rank) for v in values]
    dims = []
    for at in range(rank):
        names = {v.dims[at] for v in wide if v.dims[at] != FEATURE or v.codes.shape[at] > 1}
        if len(names) > 1:
            raise Refused(f"a combination of dimensions that do not correspond, {wide[0].dims} and {wide[1].dims}")
        dims.append(names.pop() if names else wide[0].dims[at])
    spatial = [v.size for v in wide]
    if any(size != spatial[0] for size in spatial) or any(v.stride != wide[0].stride for v in wide):
        raise Refused(f"a combination of maps of different sizes, {wide[0].shape} and {wide[1].shape}")
    codes = np.broadcast_arrays(*(v.codes for v in wide))
    return [wide[0].like(c, tuple(dims)) for c in codes]


def _led(x, rank):
    """`x` with leading feature dimensions of size 1."""
    more = rank - len(x.dims)
    return x.like(x.codes.reshape((1,) * more + x.codes.shape), (FEATURE,) * more + x.dims)


def constant_like(x, constant, by_label):
    """A constant that is combined with x, position by position.

    constant: array that broadcasts with x; by_label: whether its batch dimension holds one entry for each label.
    Returns: x, as wide as the constant, and the constant [features] or [classes, features] of its flattened codes.
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
            raise Refused("a constant that changes over rows or columns")
        constant = first
    x = x.like(np.broadcast_to(x.codes, shape))
    if batch is None:
        return x, np.broadcast_to(constant, shape).reshape(-1)
    entry = (*shape[:batch], *shape[batch + 1 :])
    table = np.moveaxis(constant, batch, 0)
    return x, np.broadcast_to(table, (len(table), *entry)).reshape(len(table), -1)
