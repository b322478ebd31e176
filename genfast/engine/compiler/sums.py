"""ATen operations that sum over features or neighbours: matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.compiler.handlers import HANDLERS, depends, handles
from genfast.engine.compiler.plan import Entry, Rectangle, Step
from genfast.engine.compiler.values import (
    BATCH,
    COLUMN,
    FEATURE,
    LINE,
    ROW,
    Operation,
    Unsupported,
    Value,
    array,
    line,
    reshaped,
)


def matrix(op: Operation, x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Value:
    """x [..., n] @ weight [n, m] + bias [m], every dimension but the last kept."""
    if x.dims[-1] != FEATURE:
        raise Unsupported("a matrix product over batch, rows or columns")
    n, m = weight.shape
    codes = x.codes.reshape(-1, n)
    lead, wide = len(codes), len(codes) * m
    entries = []
    for i, row in enumerate(codes):
        every = np.zeros((n, wide), np.float32)
        every[:, i * m : (i + 1) * m] = weight
        entries.append((row, 0, 0, (0, 0), every))
    bias = np.tile(np.zeros(m, np.float32) if bias is None else bias, lead)
    y = linear_step(x, entries, bias, x.domain, op.where)
    return x.like(y.reshape(*x.codes.shape[:-1], m))


def linear_step(
    x: Value,
    entries: Iterable[Entry],
    bias: np.ndarray,
    domain: Rectangle,
    where: str,
    stride: int | None = None,
    upsample: int = 1,
) -> np.ndarray:
    """Add a linear step that reads x: the codes of its outputs. `entries` as `Graph.taps`."""
    step = Step("linear", bias.shape[-1], stride or x.stride, domain, where, upsample)
    step.taps, step.bias = x.graph.taps(entries, bias.shape[-1]), bias
    return x.graph.add(step)


@handles("aten::linear")
def linear(op: Operation, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    check_constant(weight, bias)
    return matrix(op, x, array(weight).T, None if bias is None else array(bias))


@handles("aten::addmm")
def addmm(op: Operation, bias: Tensor, x: Value, weight: Tensor, beta: float = 1, alpha: float = 1) -> Value:
    check_constant(bias, weight)
    if bias.ndim != 1:
        raise Unsupported("addmm other than a bias of features + x @ weight")
    return matrix(op, x, array(weight) * np.float32(alpha), np.broadcast_to(array(bias) * beta, weight.shape[1:]))


def check_constant(*tensors: Any) -> None:
    """Raise Unsupported for a weight that depends on the image."""
    if any(map(depends, tensors)):
        raise Unsupported("weights that depend on the image")


def _pair(value: Any) -> list[int]:
    value = [value] if isinstance(value, int) else list(value)
    return (value * 2)[:2] if len(value) == 1 else value


@handles("aten::conv1d")
def conv1d(
    op: Operation,
    x: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    *rest: Any,
) -> Value:
    """Over columns or rows, where there is one row or column; with a kernel of one over what is flattened too."""
    check_constant(weight, bias)
    if len(x.dims) != 3 or x.dims[:2] != (BATCH, FEATURE):
        raise Unsupported("a convolution of anything but [B, F, length]")
    name = line(x, 2)
    if name == LINE and LINE in x.size:
        # The line is a row of its own.
        size = {BATCH: x.size[BATCH], ROW: 1, COLUMN: x.size[LINE]}
        image = x.like(np.expand_dims(x.codes, 2), (BATCH, FEATURE, ROW, COLUMN), size)
        y = _conv_beside(op, image, 2, weight, bias, stride, padding, dilation, *rest)
        return x.like(y.codes.squeeze(2), size=x.size | {LINE: y.size[COLUMN]}, stride=y.stride)
    if weight.shape[-1] == 1 and (_one(stride), _one(padding)) in ((1, 0), (1, "valid"), (1, "same")):
        # A kernel of one needs no neighbours.
        image = x.like(x.codes[..., None], (BATCH, FEATURE, ROW, COLUMN))
        y = conv2d(op, image, weight[..., None], bias, 1, 0, 1, *rest)
        return x.like(y.codes[..., 0])
    other = {COLUMN: ROW, ROW: COLUMN}.get(name)
    if other is None or x.size[other] != 1:
        raise Unsupported("a convolution over pixels in a sequence, with a kernel of more than one")
    at = 2 if other == ROW else 3
    image = x.like(np.expand_dims(x.codes, at), (BATCH, FEATURE, ROW, COLUMN))
    y = _conv_beside(op, image, at, weight, bias, stride, padding, dilation, *rest)
    return y.like(y.codes.squeeze(at), x.dims)


def _one(value: Any) -> Any:
    """A size of one dimension, which may be given in a list."""
    return value if isinstance(value, (str, int)) else value[0]


def _conv_beside(
    op: Operation, image: Value, at: int, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, *rest: Any
) -> Value:
    """A convolution of one dimension, of an image that has a single row (`at` 2) or column (3) beside it."""

    def pair(value: Any, other: int) -> Any:
        one = _one(value)
        return one if isinstance(one, str) else [other, one] if at == 2 else [one, other]

    sizes = pair(stride, 1), pair(padding, 0), pair(dilation, 1)
    return conv2d(op, image, weight.unsqueeze(at), bias, *sizes, *rest)


@handles("aten::conv2d", "aten::convolution", "aten::_convolution")
def conv2d(
    op: Operation,
    x: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    *rest: Any,
) -> Value:
    if len(rest) > 1:
        if rest[0] and len(weight.shape) == 3:
            raise Unsupported("a transposed convolution of a sequence")
        if rest[0]:
            return conv_transpose2d(op, x, weight, bias, stride, padding, rest[1], rest[2], dilation)
        rest = rest[2:]
    groups = rest[0] if rest else 1
    if len(weight.shape) == 3:
        return conv1d(op, x, weight, bias, stride, padding, dilation, groups)
    check_constant(weight, bias)
    x = x.as_image()
    outputs, inputs, height, width = weight.shape
    stride, dilation = _pair(stride), _pair(dilation)
    reach = [d * (k - 1) for d, k in zip(dilation, (height, width))]
    before, after = _padding(padding, reach)
    if not x.is_image():
        fits = x.dims == (BATCH, FEATURE, FEATURE, FEATURE) and groups == 1 and list(before) == list(after)
        # By rows such a model is refused for what keeps it from running as a grid.
        if not fits or not op.has_order:
            raise Unsupported("a convolution of anything but [B, F, H, W]")
        return _convolved(op, x, weight, bias, stride, before, dilation)
    weight = array(weight)
    if stride[0] != stride[1]:
        raise Unsupported(f"a convolution with stride {stride}")
    rows, columns = (
        (n + a + b - r - 1) // stride[0] + 1 for n, a, b, r in zip((x.size[ROW], x.size[COLUMN]), before, after, reach)
    )
    codes = x.codes.reshape(-1)
    dense = np.zeros((height, width, len(codes), outputs), np.float32)
    share = outputs // groups
    for g in range(groups):
        own = slice(g * share, (g + 1) * share)
        dense[:, :, g * inputs : (g + 1) * inputs, own] = weight[own].transpose(2, 3, 1, 0)
    entries = [
        (codes, a * dilation[0] - before[0], b * dilation[1] - before[1], (0, 0), dense[a, b])
        for a in range(height)
        for b in range(width)
    ]
    bias = np.zeros(outputs, np.float32) if bias is None else array(bias)
    y = linear_step(x, entries, bias, (0, rows, 0, columns), op.where, x.stride * stride[0])
    size = x.size | {ROW: rows, COLUMN: columns}
    return x.like(y.reshape(1, -1, 1, 1), size=size, stride=x.stride * stride[0])


def _convolved(op: Operation, x: Value, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any) -> Value:
    """A convolution where all pixels are features: a product with the windows of all of them."""
    # These are in modules that import this one.
    windows = HANDLERS["aten::im2col"](op, x, weight.shape[2:], dilation, padding, stride)
    y = HANDLERS["aten::matmul"](op, weight.detach().flatten(1), windows)
    if bias is not None:
        y = HANDLERS["aten::add"](op, y, bias.detach()[:, None])
    sizes = [n + 2 * p - d * (k - 1) for n, p, d, k in zip(x.shape[2:], padding, dilation, weight.shape[2:])]
    return reshaped(y, (x.shape[0], len(weight), *sizes))


def _padding(padding: Any, reach: list[int]) -> tuple[Sequence[int], Sequence[int]]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        before = [n // 2 for n in reach]
        return before, [n - b for n, b in zip(reach, before)]
    padding = _pair(padding)
    return padding, padding


@handles("aten::conv_transpose2d")
def conv_transpose2d(
    op: Operation,
    x: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    check_constant(weight, bias)
    stride, padding, output_padding, dilation = map(_pair, (stride, padding, output_padding, dilation))
    weight = array(weight)
    inputs, outputs, height, width = weight.shape
    if not x.is_image() or stride != [2, 2] or x.stride % 2 or groups != 1:
        raise Unsupported(
            f"a transposed convolution other than one with stride 2 and groups 1 of maps of half the size; "
            f"got stride {stride}, groups {groups}"
        )
    codes = x.codes.reshape(-1)
    rows, columns = (
        (n - 1) * 2 - 2 * p + d * (k - 1) + o + 1
        for n, p, d, k, o in zip((x.size[ROW], x.size[COLUMN]), padding, dilation, (height, width), output_padding)
    )
    entries = []
    for a in range(height):
        for b in range(width):
            # Output r reads input i where r = 2 i - padding + a.
            row, column = padding[0] - a * dilation[0], padding[1] - b * dilation[1]
            p, q = -row % 2, -column % 2
            entries.append((codes, (row + p) // 2, (column + q) // 2, (p, q), weight[:, :, a, b]))
    bias = np.zeros(outputs, np.float32) if bias is None else array(bias)
    y = linear_step(x, entries, bias, (0, rows, 0, columns), op.where, x.stride // 2, 2)
    return x.like(y.reshape(1, -1, 1, 1), size=x.size | {ROW: rows, COLUMN: columns}, stride=x.stride // 2)
