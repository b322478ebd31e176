"""What each ATen operation makes of values that depend on the image: steps of a graph, or other views of them."""

import math

import numpy as np
import torch

from genfast.sample._values import (
    BATCH, COLUMN, FEATURE, ROW, Refused, Value, broadcast, constant_like, permuted, reshaped, sliced, windowed,
)  # fmt: skip
from genfast.sample.plan import Operand, Step

HANDLERS = {}


def handles(*names):
    def register(function):
        for name in names:
            HANDLERS[name] = function
        return function

    return register


def array(tensor):
    """A constant as float32."""
    if not isinstance(tensor, torch.Tensor):
        return np.asarray(tensor, np.float32)
    return tensor.detach().cpu().numpy().astype(np.float32)


def depends(value):
    """Whether an argument, or an entry of one, depends on the image."""
    return isinstance(value, Value) or (isinstance(value, (list, tuple)) and any(map(depends, value)))


# Shapes


@handles("aten::contiguous", "aten::clone", "aten::alias", "aten::detach", "aten::lift_fresh_copy", "aten::dropout",
         "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout", "aten::positive")  # fmt: skip
def same(at, x, *rest):
    if len(rest) == 2 and rest[1] is True and rest[0] > 0:
        raise Refused("dropout in training mode")
    return x


@handles("aten::to", "aten::_to_copy", "aten::type_as", "aten::float")
def same_number(at, x, *rest):
    other = [r for r in rest if isinstance(r, torch.dtype) and r != torch.float32]
    if other:
        raise Refused(f"a conversion to {other[0]}")
    return x


@handles("aten::permute")
def permute(at, x, order):
    return permuted(x, order)


@handles("aten::movedim")
def movedim(at, x, source, target):
    order = list(range(len(x.dims)))
    for s, t in sorted(zip(np.atleast_1d(source) % len(order), np.atleast_1d(target) % len(order)), key=lambda p: p[1]):
        order.remove(s)
        order.insert(t, s)
    return permuted(x, order)


@handles("aten::transpose", "aten::swapaxes")
def transpose(at, x, a, b):
    order = list(range(len(x.dims)))
    order[a], order[b] = order[b], order[a]
    return permuted(x, order)


@handles("aten::view", "aten::reshape", "aten::_unsafe_view", "aten::view_copy")
def view(at, x, shape):
    return reshaped(x, shape)


@handles("aten::flatten")
def flatten(at, x, start, end):
    shape, n = x.shape, len(x.dims)
    start, end = start % n, end % n
    return reshaped(x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


@handles("aten::unflatten")
def unflatten(at, x, dim, sizes):
    dim %= len(x.dims)
    known = math.prod(s for s in sizes if s != -1)
    sizes = [x.shape[dim] // known if s == -1 else s for s in sizes]
    return reshaped(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


@handles("aten::unsqueeze")
def unsqueeze(at, x, dim):
    dim %= len(x.dims) + 1
    return x.like(np.expand_dims(x.codes, dim), (*x.dims[:dim], FEATURE, *x.dims[dim:]))


@handles("aten::squeeze")
def squeeze(at, x, dims=None):
    chosen = range(len(x.dims)) if dims is None else [d % len(x.dims) for d in np.atleast_1d(dims)]
    chosen = [d for d in chosen if x.shape[d] == 1]
    if any(x.dims[d] != FEATURE for d in chosen):
        raise Refused("a squeeze of batch, rows or columns")
    return x.like(np.squeeze(x.codes, tuple(chosen)), tuple(d for i, d in enumerate(x.dims) if i not in chosen))


@handles("aten::expand", "aten::expand_as", "aten::broadcast_to")
def expand(at, x, shape, implicit=False):
    shape = getattr(shape, "shape", shape)
    more = len(shape) - len(x.dims)
    dims = (FEATURE,) * more + x.dims
    codes = x.codes.reshape((1,) * more + x.codes.shape)
    wanted = []
    for n, dim, have, full in zip(shape, dims, codes.shape, (1,) * more + x.shape):
        if dim != FEATURE and n not in (-1, full):
            raise Refused("an expansion of batch, rows or columns")
        wanted.append(have if dim != FEATURE or n == -1 else n)
    return x.like(np.broadcast_to(codes, wanted), dims)


@handles("aten::slice")
def slice_(at, x, dim=0, start=None, stop=None, step=1):
    return sliced(x, dim, start, stop, step)


@handles("aten::narrow")
def narrow(at, x, dim, start, length):
    start = start + x.shape[dim] if start < 0 else start
    return sliced(x, dim, start, start + length)


@handles("aten::select")
def select(at, x, dim, index):
    dim, name = x.axis(dim)
    if name != FEATURE:
        raise Refused("one image, row or column alone")
    return x.like(np.take(x.codes, index, dim), (*x.dims[:dim], *x.dims[dim + 1 :]))


@handles("aten::unbind")
def unbind(at, x, dim=0):
    return [select(at, x, dim, i) for i in range(x.shape[dim])]


@handles("aten::chunk")
def chunk(at, x, chunks, dim=0):
    return split(at, x, -(-x.shape[dim] // chunks), dim)


@handles("aten::split", "aten::split_with_sizes")
def split(at, x, sizes, dim=0):
    whole = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    stops = np.cumsum(sizes)
    return [sliced(x, dim, int(stop) - size, int(stop)) for size, stop in zip(sizes, stops)]


@handles("aten::tensor_split")
def tensor_split(at, x, sections, dim=0):
    whole = x.shape[dim]
    if isinstance(sections, int):
        sizes = [whole // sections + (i < whole % sections) for i in range(sections)]
        return split(at, x, sizes, dim)
    bounds = [0, *sections, whole]
    return [sliced(x, dim, a, b) for a, b in zip(bounds, bounds[1:])]


@handles("aten::index_select")
def index_select(at, x, dim, index):
    dim, name = x.axis(dim)
    if name != FEATURE or depends(index):
        raise Refused("an index other than a constant one over features")
    return x.like(np.take(x.codes, index.numpy(), dim))


@handles("aten::flip")
def flip(at, x, dims):
    if any(x.axis(d)[1] != FEATURE for d in dims):
        raise Refused("a flip of batch, rows or columns")
    return x.like(np.flip(x.codes, dims))


@handles("aten::cat", "aten::concat")
def cat(at, tensors, dim=0):
    model = next(t for t in tensors if depends(t))
    dim, name = model.axis(dim)
    if name == FEATURE:
        values = [t if depends(t) else constant(at, t, model, dim) for t in tensors]
        whole = {v.dims for v in values}, {tuple(v.size.items()) for v in values}, {v.stride for v in values}
        if any(len(kinds) > 1 for kinds in whole):
            raise Refused("a concatenation of maps of different sizes")
        return model.like(np.concatenate([v.codes for v in values], dim))
    # Rows or columns of zeros beside the map are what padding makes.
    if (
        name not in (ROW, COLUMN)
        or sum(map(depends, tensors)) > 1
        or any(array(t).any() for t in tensors if not depends(t))
    ):
        raise Refused("a concatenation over batch, rows or columns of anything but one map and zeros")
    place = next(i for i, t in enumerate(tensors) if depends(t))
    before = sum(t.shape[dim] for t in tensors[:place])
    after = sum(t.shape[dim] for t in tensors[place + 1 :])
    return windowed(model, name, -before, model.size[name] + after)


@handles("aten::stack")
def stack(at, tensors, dim=0):
    rank = next(len(t.dims) for t in tensors if depends(t)) + 1
    dim %= rank
    return cat(at, [unsqueeze(at, t, dim) if depends(t) else t.unsqueeze(dim) for t in tensors], dim)


def constant(at, tensor, model, dim):
    """A constant map with the dimensions of `model`, whose dimension `dim` may have another size."""
    values = array(tensor)
    codes = np.zeros([n if i == dim or d == FEATURE else 1 for i, (n, d) in enumerate(zip(values.shape, model.dims))])
    shaped, numbers = constant_like(model.like(codes.astype(np.int64)), values, at.by_label(tensor))
    made = model.graph.elementwise("constant", [], model.stride, model.domain, at.where, bias=numbers)
    return shaped.like(made.reshape(shaped.codes.shape))


@handles("aten::pad", "aten::constant_pad_nd")
def pad(at, x, padding, mode="constant", value=None):
    if not isinstance(mode, str):
        mode, value = "constant", mode
    pairs = list(zip(padding[::2], padding[1::2]))
    for back, (before, after) in enumerate(pairs):
        dim = len(x.dims) - 1 - back
        name = x.dims[dim]
        if before == after == 0:
            continue
        if name == FEATURE:
            if mode != "constant" or min(before, after) < 0:
                raise Refused("padding of features that is not constant")
            shape = list(x.shape)
            parts = [torch.full([*shape[:dim], n, *shape[dim + 1 :]], value or 0.0) for n in (before, after)]
            x = cat(at, [p for p in (parts[0], x, parts[1]) if depends(p) or p.shape[dim]], dim)
            continue
        if name not in (ROW, COLUMN):
            raise Refused("padding of the batch")
        if max(before, after) > 0 and (mode != "constant" or value):
            raise Refused(f"padding of rows or columns by {mode if mode != 'constant' else value}, not by zeros")
        x = windowed(x, name, -before, x.size[name] + after)
    return x


# Numbers


@handles("aten::relu", "aten::tanh", "aten::sigmoid")
def unary(at, x):
    return apply(at, at.name, [x])


@handles("aten::elu")
def elu(at, x, alpha=1.0, scale=1.0, input_scale=1.0):
    if (alpha, scale, input_scale) != (1, 1, 1):
        raise Refused(f"an ELU with alpha={alpha}, scale={scale}")
    return apply(at, "elu", [x])


@handles("aten::silu")
def silu(at, x):
    return apply(at, "mul", [x, apply(at, "sigmoid", [x])])


@handles("aten::leaky_relu")
def leaky_relu(at, x, slope=0.01):
    return add(at, scaled(at, apply(at, "relu", [x]), 1 - slope), scaled(at, x, slope))


@handles("aten::neg")
def neg(at, x):
    return scaled(at, x, -1.0)


@handles("aten::add")
def add(at, a, b, alpha=1):
    if depends(a) and depends(b):
        return apply(at, "add", broadcast([a, scaled(at, b, alpha)]))
    if depends(b):
        return shifted(at, scaled(at, b, alpha), a)
    return shifted(at, a, array(b) * alpha, at.by_label(b))


@handles("aten::sub")
def sub(at, a, b, alpha=1):
    return add(at, a, b, -alpha)


@handles("aten::rsub")
def rsub(at, a, b, alpha=1):
    return add(at, b, a, -alpha)


@handles("aten::mul")
def mul(at, a, b):
    if depends(a) and depends(b):
        return apply(at, "mul", broadcast([a, b]))
    return scaled(at, a, b) if depends(a) else scaled(at, b, a)


@handles("aten::div", "aten::true_divide")
def div(at, a, b, rounding_mode=None):
    if depends(b) or rounding_mode:
        raise Refused("a division by what depends on the image")
    return scaled(at, a, 1 / array(b), at.by_label(b))


def apply(at, kind, values):
    """`kind`, element by element, of values of one shape."""
    x = values[0]
    codes = [v.codes.reshape(-1) for v in values]
    made = x.graph.elementwise(kind, codes, x.stride, x.domain, at.where)
    return x.like(made.reshape(x.codes.shape))


def affine(at, x, weight, bias):
    codes = x.codes.reshape(-1)
    ones, zeros = np.ones(len(codes), np.float32), np.zeros(len(codes), np.float32)
    weight, bias = ones if weight is None else weight, zeros if bias is None else bias
    made = x.graph.elementwise("affine", [codes], x.stride, x.domain, at.where, weight, bias)
    return x.like(made.reshape(x.codes.shape))


def scaled(at, x, factor, by_label=None):
    """x times a constant."""
    by_label = at.by_label(factor) if by_label is None else by_label
    values = array(factor)
    if values.size == 1 and values.reshape(-1)[0] == 1:
        return x
    x, weight = constant_like(x, values, by_label)
    if weight.ndim > 1:
        raise Refused("a product with something that depends on the label")
    return affine(at, x, weight, None)


def shifted(at, x, constant, by_label=None):
    """x plus a constant."""
    by_label = at.by_label(constant) if by_label is None else by_label
    x, bias = constant_like(x, array(constant), by_label)
    return affine(at, x, None, bias)


@handles("aten::batch_norm", "aten::cudnn_batch_norm", "aten::_native_batch_norm_legit_no_training")
def batch_norm(at, x, weight, bias, mean, variance, *rest):
    if rest[0] is True:
        raise Refused("batch norm in training mode")
    if mean is None or not x.is_image():
        raise Refused("batch norm without running statistics, or not over images")
    epsilon = rest[-1] if at.name.startswith("_native") else rest[2]
    mean, variance = (tensor.double() for tensor in (mean, variance))
    scale = (1 if weight is None else weight.double()) / (variance + epsilon).sqrt()
    shift = (0 if bias is None else bias.double()) - mean * scale
    made = affine(at, x, array(scale), array(shift))
    return [made] if at.name.startswith("_native") else made


# Sums


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
    _constants(weight, bias)
    return matrix(at, x, array(weight).T, None if bias is None else array(bias))


@handles("aten::matmul", "aten::mm")
def matmul(at, x, weight):
    if not depends(x) or depends(weight) or weight.ndim != 2:
        raise Refused("a matrix product that is not features times a constant matrix")
    return matrix(at, x, array(weight), None)


@handles("aten::addmm")
def addmm(at, bias, x, weight, beta=1, alpha=1):
    _constants(bias, weight)
    if beta != 1 or alpha != 1 or bias.ndim != 1:
        raise Refused("addmm other than bias + x @ weight")
    return matrix(at, x, array(weight), array(bias))


def _constants(*tensors):
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
    _constants(weight, bias)
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
    _constants(weight, bias)
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


# Genfast's own


@handles("genfast::gated_activation_forward")
def gated_activation(at, x, *rest):
    a, b = chunk(at, x, 2, 1)
    return apply(at, "mul", [apply(at, "tanh", [a]), apply(at, "sigmoid", [b])])


@handles("genfast::diagonal_lstm_forward")
def diagonal_lstm(at, gates, weight, h0, c0, *rest):
    _constants(weight, h0, c0)
    weight, h0, c0 = map(array, (weight, h0, c0))
    hidden = [
        scan(
            at,
            select(at, gates, 3, d),
            [(-1, 0, weight[d, 0]), (0, side, weight[d, 1])],
            (0, side),
            h0[d],
            c0[d],
            -side,
        )
        for d, side in zip(range(len(weight)), (-1, 1))
    ]
    return [stack(at, hidden, 3)]


@handles("genfast::row_lstm_forward")
def row_lstm(at, gates, weight, h0, c0, *rest):
    _constants(weight, h0, c0)
    weight, h0, c0 = map(array, (weight, h0, c0))
    return [scan(at, gates, [(-1, side, w) for side, w in zip((-1, 0, 1), weight)], (-1, 0), h0, c0, 0)]


@handles("genfast::diagonal_block_forward")
def diagonal_block(at, x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias, *rest):
    _constants(input_weight, input_bias, output_weight, output_bias)
    gates = matrix(at, x, array(input_weight.flatten(1)), array(input_bias.flatten()))
    gates = reshaped(gates, (*gates.shape[:3], *input_bias.shape))
    hidden = diagonal_lstm(at, gates, weight, h0, c0)[0]
    left, right = unbind(at, hidden, 3)
    weight = array(output_weight)
    lowered = windowed(right, ROW, -1, right.size[ROW] - 1)
    entries = [(v.codes.reshape(-1), 0, 0, (0, 0), weight) for v in (left, lowered)]
    made = linear_step(at, x, entries, array(output_bias), x.domain)
    return [add(at, x.like(made.reshape(x.codes.shape)), x)]


def scan(at, gates, recurrent, cell, h0, c0, sweep):
    """An LSTM step from gates [B, H, W, 4C]: hidden [B, H, W, C]."""
    if gates.dims != (BATCH, ROW, COLUMN, FEATURE):
        raise Refused("an LSTM over anything but [B, H, W, features]")
    graph, codes, size = gates.graph, gates.codes.reshape(-1), len(h0)
    step = Step("scan", size, gates.stride, gates.domain, at.where, recurrent=recurrent, cell=cell, sweep=sweep)
    step.outside, step.bias = (h0, c0), np.zeros(4 * size, np.float32)
    index, feature = graph.split(codes)
    if (index == index[0]).all():
        step.operands = [Operand(graph.view(index[0]), feature)]
    else:
        step.taps = graph.taps([(codes, 0, 0, (0, 0), np.eye(4 * size, dtype=np.float32))], 4 * size)
    return gates.like(graph.add(step).reshape(1, 1, 1, -1))
