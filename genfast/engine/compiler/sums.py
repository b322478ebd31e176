"""ATen operations that sum over features or neighbours: products with matrices and convolutions."""

import numpy as np

from genfast.engine.compiler.handlers import array, depends, handles
from genfast.engine.compiler.plan import Step
from genfast.engine.compiler.values import COLUMN, FEATURE, ROW, Refused


def matrix(at, x, weight, bias):
    """x [..., n] @ weight [n, m] + bias [m], every dimension but the last kept."""
    if x.dims[-1] != FEATURE:
        raise Refused("a matrix product over batch, rows or columns")
    n, m = weight.shape
    codes = x.codes.reshape(-1, n)
    lead, wide = len(codes), len(codes) * m
    entries = []
    for i, row in enumerate(codes):
        every = np.zeros((n, wide), np.float32)
        every[:, i * m : (i + 1) * m] = weight
        entries.append((row, 0, 0, (0, 0), every))
    bias = np.tile(np.zeros(m, np.float32) if bias is None else bias, lead)
    made = linear_step(at, x, entries, bias, x.domain)
    return x.like(made.reshape(*x.codes.shape[:-1], m))


def linear_step(at, x, entries, bias, domain, stride=None, upsample=1):
    step = Step("linear", len(bias), stride or x.stride, domain, at.where, upsample)
    step.taps, step.bias = x.graph.taps(entries, len(bias)), bias
    return x.graph.add(step)


@handles("aten::linear")
def linear(at, x, weight, bias=None):
    constants(weight, bias)
    return matrix(at, x, array(weight).T, None if bias is None else array(bias))


@handles("aten::matmul", "aten::mm")
def matmul(at, x, weight):
    if not depends(x) or depends(weight) or weight.ndim != 2:
        raise Refused("a matrix product that is not features times a constant matrix")
    return matrix(at, x, array(weight), None)


@handles("aten::addmm")
def addmm(at, bias, x, weight, beta=1, alpha=1):
    constants(bias, weight)
    if beta != 1 or alpha != 1 or bias.ndim != 1:
        raise Refused("addmm other than bias + x @ weight")
    return matrix(at, x, array(weight), array(bias))


def constants(*tensors):
    if any(map(depends, tensors)):
        raise Refused("weights that depend on the image")


def _pair(value, default=None):
    value = [default] if value is None else [value] if isinstance(value, int) else list(value)
    return (value * 2)[:2] if len(value) == 1 else value


@handles("aten::conv2d", "aten::convolution")
def conv2d(at, x, weight, bias=None, stride=1, padding=0, dilation=1, *rest):
    if len(rest) > 1:
        if rest[0]:
            return conv_transpose2d(at, x, weight, bias, stride, padding, rest[1], rest[2], dilation)
        rest = rest[2:]
    groups = rest[0] if rest else 1
    constants(weight, bias)
    if not x.is_image():
        raise Refused("a convolution of anything but [B, F, H, W]")
    weight = array(weight)
    outputs, inputs, height, width = weight.shape
    stride, dilation = _pair(stride), _pair(dilation)
    reach = [d * (k - 1) for d, k in zip(dilation, (height, width))]
    before, after = _padding(padding, reach)
    if stride[0] != stride[1]:
        raise Refused(f"a convolution with stride {stride}")
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
    made = linear_step(at, x, entries, bias, (0, rows, 0, columns), x.stride * stride[0])
    size = x.size | {ROW: rows, COLUMN: columns}
    return x.like(made.reshape(1, -1, 1, 1), size=size, stride=x.stride * stride[0])


def _padding(padding, reach):
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        before = [n // 2 for n in reach]
        return before, [n - b for n, b in zip(reach, before)]
    padding = _pair(padding)
    return padding, padding


@handles("aten::conv_transpose2d")
def conv_transpose2d(at, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    constants(weight, bias)
    stride, padding, output_padding, dilation = map(_pair, (stride, padding, output_padding, dilation))
    weight = array(weight)
    inputs, outputs, height, width = weight.shape
    if not x.is_image() or stride != [2, 2] or x.stride % 2 or groups != 1:
        raise Refused(
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
            # Output r takes input i where r = 2 i - padding + a.
            row, column = padding[0] - a * dilation[0], padding[1] - b * dilation[1]
            p, q = -row % 2, -column % 2
            entries.append((codes, (row + p) // 2, (column + q) // 2, (p, q), weight[:, :, a, b]))
    bias = np.zeros(outputs, np.float32) if bias is None else array(bias)
    made = linear_step(at, x, entries, bias, (0, rows, 0, columns), x.stride // 2, 2)
    return x.like(made.reshape(1, -1, 1, 1), size=x.size | {ROW: rows, COLUMN: columns}, stride=x.stride // 2)
