"""ATen operations that pick, repeat and move features: by constant indices, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.compiler.entrance import embedding
from genfast.engine.compiler.handlers import depends, handles, pad, stack, view
from genfast.engine.compiler.values import FEATURE, Operation, Unsupported, Value, reshaped, sliced


def _feature(x: Value, dim: int, what: str) -> int:
    dim, name = x.axis(dim)
    if name != FEATURE:
        raise Unsupported(f"{what} of batch, rows or columns")
    return dim


def _numbers(index: Any) -> np.ndarray:
    """A constant index."""
    if depends(index):
        raise Unsupported("an index that depends on the image")
    return index.detach().cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)


@handles("aten::view_as", "aten::reshape_as")
def view_as(op: Operation, x: Any, other: Any) -> Any:
    return view(op, x, other.shape) if depends(x) else x.reshape(other.shape)


@handles("aten::t", "aten::mT", "aten::numpy_T")
def turned(op: Operation, x: Value) -> Value:
    order = [*range(len(x.dims) - 2), len(x.dims) - 1, len(x.dims) - 2][-len(x.dims) :]
    return x.like(x.codes.transpose(order), tuple(x.dims[d] for d in order))


@handles("aten::index_select")
def index_select(op: Operation, x: Any, dim: int, index: Any) -> Value:
    if not depends(x):
        if dim % len(x.shape) != 0:
            raise Unsupported("an index that depends on the image, of anything but rows")
        return view(op, embedding(op, x.reshape(len(x), -1), index), (*index.shape, *x.shape[1:]))
    return x.like(np.take(x.codes, _numbers(index), _feature(x, dim, "an index")))


@handles("aten::index")
def index(op: Operation, x: Any, indices: Sequence[Any]) -> Value:
    if not depends(x):
        if len(indices) != 1:
            raise Unsupported("an index that depends on the image, beside others")
        rows = embedding(op, x.reshape(len(x), -1), indices[0])
        return view(op, rows, (*indices[0].shape, *x.shape[1:]))
    given = [(dim, _numbers(one)) for dim, one in enumerate(indices) if one is not None]
    if len(given) != 1:
        raise Unsupported("an index in several dimensions")
    (dim, numbers) = given[0]
    if numbers.dtype == bool:
        raise Unsupported("an index by a mask")
    dim = _feature(x, dim, "an index")
    dims = (*x.dims[:dim], *[FEATURE] * numbers.ndim, *x.dims[dim + 1 :])
    return x.like(np.take(x.codes, numbers, dim), dims)


@handles("aten::take_along_dim")
def take_along_dim(op: Operation, x: Value, places: Any, dim: int | None = None) -> Value:
    if dim is None:
        raise Unsupported("an index of a whole batch")
    sizes = [n if name == FEATURE else m for n, m, name in zip(places.shape, x.shape, x.dims)]
    return gather(op, x, dim, places.expand(sizes))


@handles("aten::gather")
def gather(op: Operation, x: Value, dim: int, places: Any, *rest: Any) -> Value:
    dim, numbers = _feature(x, dim, "an index"), _numbers(places)
    for at, name in enumerate(x.dims):
        if name == FEATURE:
            continue
        first = numbers.take([0], at)
        if numbers.shape[at] != x.shape[at] or not (numbers == first).all():
            raise Unsupported("an index that changes over batch, rows or columns")
        numbers = first
    codes = x.codes[tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(numbers.shape))]
    return x.like(np.take_along_axis(codes, numbers, dim))


@handles("aten::roll")
def roll(op: Operation, x: Value, shifts: Any, dims: Any = ()) -> Value:
    shifts, dims = np.atleast_1d(shifts), np.atleast_1d(dims)
    if not dims.size:
        raise Unsupported("a roll of a whole batch")
    places = tuple(_feature(x, int(d), "a roll") for d in dims)
    return x.like(np.roll(x.codes, tuple(int(s) for s in shifts), places))


@handles("aten::repeat", "aten::tile")
def repeat(op: Operation, x: Value, times: Sequence[int]) -> Value:
    times = [1] * (len(x.dims) - len(times)) + list(times)
    dims = (FEATURE,) * (len(times) - len(x.dims)) + x.dims
    if any(n != 1 and name != FEATURE for n, name in zip(times, dims)):
        raise Unsupported("a repetition of batch, rows or columns")
    return x.like(np.tile(x.codes, times), dims)


@handles("aten::repeat_interleave")
def repeat_interleave(op: Operation, x: Value, times: Any, dim: int | None = None, *rest: Any) -> Value:
    if dim is None:
        raise Unsupported("a repetition of a whole batch")
    return x.like(np.repeat(x.codes, _numbers(times), _feature(x, dim, "a repetition")))


@handles("aten::im2col")
def im2col(
    op: Operation,
    x: Value,
    window: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """The windows of all pixels, [B, F * window, H * W]."""
    if len(x.shape) != 4 or any(step != 1 for step in stride):
        raise Unsupported("windows with strides, or of what is no image")
    x = pad(op, x, [padding[1], padding[1], padding[0], padding[0]])
    sizes = [n - d * (k - 1) for n, k, d in zip(x.shape[2:], window, dilation)]
    moved = []
    for i, j in np.ndindex(*window):
        row, column = i * dilation[0], j * dilation[1]
        moved.append(sliced(sliced(x, 2, row, row + sizes[0]), 3, column, column + sizes[1]))
    return reshaped(stack(op, moved, 2), (x.shape[0], x.shape[1] * len(moved), sizes[0] * sizes[1]))


@handles("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(op: Operation, x: Value, groups: int) -> Value:
    dim = _feature(x, 1, "a shuffle")
    codes = np.moveaxis(x.codes, dim, 0)
    order = np.arange(len(codes)).reshape(groups, -1).T.reshape(-1)
    return x.like(np.moveaxis(codes[order], 0, dim))
