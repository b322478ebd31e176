"""Functions of one value, element by element: activations, exponentials, logarithms and powers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.compiler.arithmetic import add, affine, apply, as_values, mul, reciprocal, scaled, shifted, square
from genfast.engine.compiler.choices import above, clamp, where
from genfast.engine.compiler.handlers import chunk, depends, handles
from genfast.engine.compiler.values import FEATURE, Operation, Unsupported, Value, array

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
# The names of torch of what a map of the program computes.
MAPS = {"absolute": "abs", "special_expit": "sigmoid", "special_erf": "erf", "special_log1p": "log1p"}


@handles(
    "aten::relu", "aten::tanh", "aten::sigmoid", "aten::exp", "aten::log", "aten::log1p", "aten::sqrt", "aten::erf"
)
@handles("aten::abs", *(f"aten::{name}" for name in MAPS))
def unary(op: Operation, x: Value) -> Value:
    return apply(op, MAPS.get(op.name, op.name), [x])


@handles("aten::elu")
def elu(op: Operation, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    if (alpha, scale, input_scale) == (1, 1, 1):
        return apply(op, "elu", [x])
    below = scaled(op, apply(op, "relu", [scaled(op, x, -input_scale)]), -1.0)
    return add(op, scaled(op, apply(op, "relu", [x]), scale), scaled(op, apply(op, "elu", [below]), scale * alpha))


@handles("aten::celu")
def celu(op: Operation, x: Value, alpha: float = 1.0) -> Value:
    return elu(op, x, alpha, 1.0, 1 / alpha)


@handles("aten::selu")
def selu(op: Operation, x: Value) -> Value:
    return elu(op, x, SELU_ALPHA, SELU_SCALE)


@handles("aten::silu")
def silu(op: Operation, x: Value) -> Value:
    return apply(op, "mul", [x, apply(op, "sigmoid", [x])])


@handles("aten::glu")
def glu(op: Operation, x: Value, dim: int = -1) -> Value:
    if x.axis(dim)[1] != FEATURE:
        raise Unsupported("a gate over batch, rows or columns")
    a, b = chunk(op, x, 2, dim)
    return apply(op, "mul", [a, apply(op, "sigmoid", [b])])


@handles("aten::leaky_relu")
def leaky_relu(op: Operation, x: Value, slope: Any = 0.01) -> Value:
    return add(op, scaled(op, apply(op, "relu", [x]), 1 - slope), scaled(op, x, slope))


@handles("aten::prelu")
def prelu(op: Operation, x: Value, weight: Tensor) -> Value:
    if depends(weight):
        raise Unsupported("slopes that depend on the image")
    slopes = array(weight)
    return leaky_relu(op, x, slopes if slopes.size == 1 else slopes.reshape(-1, *[1] * (len(x.dims) - 2)))


@handles("aten::_prelu_kernel")
def prelu_kernel(op: Operation, x: Value, weight: Tensor) -> Value:
    return leaky_relu(op, x, array(weight))


@handles("aten::rrelu")
def rrelu(
    op: Operation, x: Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *rest: Any
) -> Value:
    if training:
        raise Unsupported("random slopes")
    return leaky_relu(op, x, (lower + upper) / 2)


@handles("aten::gelu")
def gelu(op: Operation, x: Value, approximate: str = "none") -> Value:
    if approximate == "none":
        y = apply(op, "erf", [scaled(op, x, math.sqrt(0.5))])
    else:
        root = math.sqrt(2 / math.pi)
        y = apply(op, "tanh", [mul(op, x, linear_of(op, square(op, x), 0.044715 * root, root))])
    return mul(op, x, linear_of(op, y, 0.5, 0.5))


def linear_of(op: Operation, x: Value, weight: float, bias: float) -> Value:
    """weight * x + bias."""
    return affine(op, x, *(np.full(x.codes.size, number, np.float32) for number in (weight, bias)))


@handles("aten::softplus")
def softplus(op: Operation, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    inner = scaled(op, x, beta)
    y = scaled(op, apply(op, "softplus", [inner]), 1 / beta)
    # From 17 on the identity and the function are the same float.
    return y if threshold >= 17 else where(op, above(op, inner, threshold), x, y)


@handles("aten::log_sigmoid")
def log_sigmoid(op: Operation, x: Value) -> Value:
    return scaled(op, apply(op, "softplus", [scaled(op, x, -1.0)]), -1.0)


@handles("aten::log_sigmoid_forward")
def log_sigmoid_forward(op: Operation, x: Value) -> list[Any]:
    return [log_sigmoid(op, x), None]


@handles("aten::logaddexp")
def logaddexp(op: Operation, a: Any, b: Any) -> Value:
    a, b = as_values(op, a, b)
    return add(op, b, apply(op, "softplus", [add(op, a, b, -1)]))


@handles("aten::mish")
def mish(op: Operation, x: Value) -> Value:
    return mul(op, x, apply(op, "tanh", [apply(op, "softplus", [x])]))


@handles("aten::relu6")
def relu6(op: Operation, x: Value) -> Value:
    return clamp(op, x, 0.0, 6.0)


@handles("aten::hardsigmoid")
def hardsigmoid(op: Operation, x: Value) -> Value:
    return clamp(op, linear_of(op, x, 1 / 6, 0.5), 0.0, 1.0)


@handles("aten::hardswish")
def hardswish(op: Operation, x: Value) -> Value:
    return mul(op, x, hardsigmoid(op, x))


@handles("aten::hardshrink")
def hardshrink(op: Operation, x: Value, bound: float = 0.5) -> Value:
    return where(op, above(op, apply(op, "abs", [x]), bound), x, 0.0)


@handles("aten::softshrink")
def softshrink(op: Operation, x: Value, bound: float = 0.5) -> Value:
    return add(op, x, clamp(op, x, -bound, bound), -1)


@handles("aten::threshold")
def threshold(op: Operation, x: Value, least: float, value: float) -> Value:
    return where(op, above(op, x, least), x, value)


@handles("aten::sign", "aten::sgn")
def sign(op: Operation, x: Value) -> Value:
    return add(op, above(op, x, 0.0), above(op, 0.0, x), -1)


@handles("aten::rsqrt")
def rsqrt(op: Operation, x: Value) -> Value:
    return apply(op, "reciprocal", [apply(op, "sqrt", [x])])


@handles("aten::expm1", "aten::special_expm1")
def expm1(op: Operation, x: Value) -> Value:
    # An ELU is exact below 0; above, e^x - 1 = e^x (1 - e^-x).
    larger = mul(op, apply(op, "exp", [x]), scaled(op, apply(op, "elu", [scaled(op, x, -1.0)]), -1.0))
    return where(op, above(op, x, 0.0), larger, apply(op, "elu", [x]))


@handles("aten::exp2", "aten::special_exp2")
def exp2(op: Operation, x: Value) -> Value:
    return apply(op, "exp", [scaled(op, x, math.log(2))])


@handles("aten::log2", "aten::log10")
def logarithm(op: Operation, x: Value) -> Value:
    return scaled(op, apply(op, "log", [x]), 1 / math.log(float(op.name.removeprefix("log"))))


@handles("aten::pow", "aten::float_power")
def power(op: Operation, x: Any, exponent: Any) -> Value:
    if depends(exponent):
        base = np.unique(array(x)) if not depends(x) else np.zeros(0)
        if len(base) != 1 or base[0] <= 0:
            raise Unsupported("a power whose exponent depends on the image, of anything but one positive number")
        return apply(op, "exp", [scaled(op, exponent, math.log(base[0]))])
    numbers = np.unique(array(exponent))
    if len(numbers) != 1:
        raise Unsupported("powers with different exponents")
    return _power(op, x, float(numbers[0]))


def _power(op: Operation, x: Value, exponent: float) -> Value:
    if exponent < 0:
        return reciprocal(op, _power(op, x, -exponent))
    if exponent % 1 == 0 and exponent <= 16:
        if exponent == 0:
            return shifted(op, scaled(op, x, 0.0), 1.0)
        half = _power(op, x, exponent // 2) if exponent > 1 else x
        even = square(op, half) if exponent > 1 else x
        return mul(op, even, x) if exponent > 1 and exponent % 2 else even
    if exponent == 0.5:
        return apply(op, "sqrt", [x])
    if exponent % 0.5 == 0 and exponent <= 16:
        return mul(op, _power(op, x, exponent - 0.5), apply(op, "sqrt", [x]))
    if exponent % 1 == 0:
        raise Unsupported(f"a power of {exponent:.0f}")
    return apply(op, "exp", [scaled(op, apply(op, "log", [x]), exponent)])
