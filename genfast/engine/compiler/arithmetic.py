"""ATen operations that compute element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.compiler.handlers import depends, handles
from genfast.engine.compiler.values import (
    Change,
    Operation,
    Unsupported,
    Value,
    Varies,
    array,
    broadcast,
    constant_like,
    field,
)


@handles("aten::relu", "aten::tanh", "aten::sigmoid")
def unary(op: Operation, x: Value) -> Value:
    return apply(op, op.name, [x])


@handles("aten::elu")
def elu(op: Operation, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    if (alpha, scale, input_scale) != (1, 1, 1):
        raise Unsupported(f"an ELU with alpha={alpha}, scale={scale}")
    return apply(op, "elu", [x])


@handles("aten::silu")
def silu(op: Operation, x: Value) -> Value:
    return apply(op, "mul", [x, apply(op, "sigmoid", [x])])


@handles("aten::leaky_relu")
def leaky_relu(op: Operation, x: Value, slope: float = 0.01) -> Value:
    return add(op, scaled(op, apply(op, "relu", [x]), 1 - slope), scaled(op, x, slope))


@handles("aten::neg")
def neg(op: Operation, x: Value) -> Value:
    return scaled(op, x, -1.0)


@handles("aten::add")
def add(op: Operation, a: Any, b: Any, alpha: float = 1) -> Value:
    if depends(a) and depends(b):
        return apply(op, "add", broadcast([a, scaled(op, b, alpha)]))
    if depends(b):
        return shifted(op, scaled(op, b, alpha), a)
    return shifted(op, a, b, lambda value: value * np.float32(alpha))


@handles("aten::sub")
def sub(op: Operation, a: Any, b: Any, alpha: float = 1) -> Value:
    return add(op, a, b, -alpha)


@handles("aten::rsub")
def rsub(op: Operation, a: Any, b: Any, alpha: float = 1) -> Value:
    return add(op, b, a, -alpha)


@handles("aten::mul")
def mul(op: Operation, a: Any, b: Any) -> Value:
    if depends(a) and depends(b):
        return apply(op, "mul", broadcast([a, b]))
    return scaled(op, a, b) if depends(a) else scaled(op, b, a)


@handles("aten::div", "aten::true_divide")
def div(op: Operation, a: Any, b: Any, rounding_mode: str | None = None) -> Value:
    if depends(b) or rounding_mode:
        raise Unsupported("a division by what depends on the image")
    return scaled(op, a, b, lambda value: 1 / value)


def apply(op: Operation, kind: str, values: Sequence[Value]) -> Value:
    """The operation `kind`, element by element, of values of one shape."""
    x = values[0]
    codes = [v.codes.reshape(-1) for v in values]
    y = x.graph.elementwise(kind, codes, x.stride, x.domain, op.where)
    return x.like(y.reshape(x.codes.shape))


def affine(op: Operation, x: Value, weight: np.ndarray | None, bias: np.ndarray | None) -> Value:
    """weight * x + bias by feature; None: 1, and 0."""
    codes = x.codes.reshape(-1)
    ones, zeros = np.ones(len(codes), np.float32), np.zeros(len(codes), np.float32)
    weight, bias = ones if weight is None else weight, zeros if bias is None else bias
    y = x.graph.elementwise("affine", [codes], x.stride, x.domain, op.where, weight, bias)
    return x.like(y.reshape(x.codes.shape))


def scaled(op: Operation, x: Value, factor: Any, change: Change | None = None) -> Value:
    """x times a constant, to which `change` is applied."""
    if op.node(factor) is None and (values := array(factor)).size == 1 and (change(values) if change else values) == 1:
        return x
    try:
        wide, weight = constant_like(op, x, factor, change)
        if weight.ndim == 1:
            return affine(op, wide, weight, None)
    except Varies:
        pass
    return apply(op, "mul", broadcast([x, field(op, x, factor, change)]))


def shifted(op: Operation, x: Value, constant: Any, change: Change | None = None) -> Value:
    """x plus a constant, to which `change` is applied."""
    try:
        wide, bias = constant_like(op, x, constant, change)
    except Varies:
        return apply(op, "add", broadcast([x, field(op, x, constant, change)]))
    return affine(op, wide, None, bias)


@handles("aten::batch_norm", "aten::cudnn_batch_norm", "aten::_native_batch_norm_legit_no_training")
def batch_norm(
    op: Operation,
    x: Value,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    *rest: Any,
) -> Value | list[Value]:
    if rest[0] is True:
        raise Unsupported("batch norm in training mode")
    if mean is None or variance is None or not x.is_image():
        raise Unsupported("batch norm without running statistics, or not over images")
    epsilon = rest[-1] if op.name.startswith("_native") else rest[2]
    mean, variance = (tensor.double() for tensor in (mean, variance))
    scale = (1 if weight is None else weight.double()) / (variance + epsilon).sqrt()
    shift = (0 if bias is None else bias.double()) - mean * scale
    y = affine(op, x, array(scale), array(shift))
    return [y] if op.name.startswith("_native") else y
