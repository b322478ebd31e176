"""ATen operations that compute element by element."""

import numpy as np

from genfast.engine.compiler.handlers import array, depends, handles
from genfast.engine.compiler.values import Refused, broadcast, constant_like


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
