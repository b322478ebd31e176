"""Sums, means and variances over features, and the normalizations made of them.

A sum over features is a linear step: four chains, in the order that `Instruction` states.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from genfast.engine.compiler.arithmetic import add, affine, apply, div, mul, reciprocal, square, sub
from genfast.engine.compiler.choices import clamp, folded
from genfast.engine.compiler.handlers import depends, handles
from genfast.engine.compiler.plan import Logit
from genfast.engine.compiler.sums import linear_step
from genfast.engine.compiler.values import BATCH, FEATURE, Operation, Unsupported, Value, array

LATER = "over batch, rows or columns, which includes later pixels"
RMS_EPSILON = float(np.finfo(np.float32).eps)


def total(op: Operation, x: Value, dims: Any, keepdim: bool = False, factor: float = 1.0, bias: float = 0.0) -> Value:
    """bias + factor * the sum over dimensions of features; dims: an int, a list, or None: all."""
    dims = _dims(x, dims, "a sum")
    kept = [d for d in range(len(x.dims)) if d not in dims]
    codes = x.codes.transpose(*kept, *dims)
    shape = codes.shape[: len(kept)]
    lead = math.prod(shape)
    weight = np.repeat(np.eye(lead, dtype=np.float32) * np.float32(factor), codes.size // max(lead, 1), 0)
    entries = [(codes.reshape(-1), 0, 0, (0, 0), weight)]
    y = linear_step(x, entries, np.full(lead, bias, np.float32), x.domain, op.where).reshape(shape)
    if keepdim:
        return x.like(np.expand_dims(y, tuple(dims)))
    return x.like(y, tuple(x.dims[d] for d in kept))


def _dims(x: Value, dims: Any, what: str) -> list[int]:
    """The dimensions of a statistic, which must be features."""
    dims = range(len(x.dims)) if dims is None or dims == [] else np.atleast_1d(dims)
    found = sorted({int(d) % len(x.dims) for d in dims})
    if any(x.dims[d] != FEATURE for d in found):
        raise Unsupported(f"{what} {LATER}")
    return found


def _count(x: Value, dims: Any) -> int:
    return math.prod(x.codes.shape[d] for d in _dims(x, dims, "a mean"))


@handles("aten::sum")
def sum_(op: Operation, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return total(op, x, dims, keepdim)


@handles("aten::mean")
def mean(op: Operation, x: Value, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return total(op, x, dims, keepdim, 1 / _count(x, dims))


@handles("aten::var")
def variance(op: Operation, x: Value, dims: Any = None, correction: float | None = 1, keepdim: bool = False) -> Value:
    # `unbiased`, a bool, is the correction 1 or 0.
    n, less = _count(x, dims), 1 if correction is None else float(correction)
    centred = sub(op, x, mean(op, x, dims, True))
    return total(op, square(op, centred), dims, keepdim, 1 / (n - less) if n > less else math.nan)


@handles("aten::std")
def deviation(op: Operation, x: Value, dims: Any = None, correction: float | None = 1, keepdim: bool = False) -> Value:
    return apply(op, "sqrt", [variance(op, x, dims, correction, keepdim)])


@handles("aten::var_mean", "aten::std_mean")
def spread_and_mean(
    op: Operation, x: Value, dims: Any = None, correction: float | None = 1, keepdim: bool = False
) -> list[Value]:
    spread = variance if op.name == "var_mean" else deviation
    return [spread(op, x, dims, correction, keepdim), mean(op, x, dims, keepdim)]


@handles("aten::linalg_vector_norm", "aten::linalg_norm", "aten::norm")
def norm(op: Operation, x: Value, order: Any = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    if isinstance(dims, list) and len(dims) > 1 and op.name == "linalg_norm":
        raise Unsupported("the norm of a matrix")
    order = 2 if order is None else float(order)
    if order == 2:
        return apply(op, "sqrt", [total(op, square(op, x), dims, keepdim)])
    if order == 1:
        return total(op, apply(op, "abs", [x]), dims, keepdim)
    if order == math.inf:
        return folded(op, "max", apply(op, "abs", [x]), _dims(x, dims, "a norm"), keepdim)
    raise Unsupported(f"a norm of order {order}")


@handles("aten::cumsum")
def cumsum(op: Operation, x: Value, dim: int, dtype: Any = None) -> Value:
    (dim,) = _dims(x, dim, "a sum")
    codes = np.moveaxis(x.codes, dim, -1)
    n, lead = codes.shape[-1], codes.size // codes.shape[-1]
    weight = np.kron(np.eye(lead, dtype=np.float32), np.triu(np.ones((n, n), np.float32)))
    y = linear_step(x, [(codes.reshape(-1), 0, 0, (0, 0), weight)], np.zeros(lead * n, np.float32), x.domain, op.where)
    return x.like(np.moveaxis(y.reshape(codes.shape), -1, dim))


def _exponentials(op: Operation, x: Value, dim: Any) -> tuple[Value, Value, Value, Value]:
    """The maximum; x less it, the exponentials of that, and their sum."""
    largest = folded(op, "max", x, _dims(x, dim, "a softmax"), True)
    centred = sub(op, x, largest)
    powers = apply(op, "exp", [centred])
    return largest, centred, powers, total(op, powers, dim, True)


@handles("aten::softmax", "aten::_softmax")
def softmax(op: Operation, x: Value, dim: int, *rest: Any) -> Value:
    _, _, powers, whole = _exponentials(op, x, dim)
    return _noted("probabilities", x, div(op, powers, whole), dim)


@handles("aten::log_softmax", "aten::_log_softmax")
def log_softmax(op: Operation, x: Value, dim: int, *rest: Any) -> Value:
    _, centred, _, whole = _exponentials(op, x, dim)
    return _noted("log-probabilities", x, sub(op, centred, apply(op, "log", [whole])), dim)


def _noted(head: str, x: Value, y: Value, dim: int) -> Value:
    """y, of which the graph notes what went into the softmax, in case that y is what the model returns."""
    inner, outer = (np.moveaxis(value.codes, dim, -1) for value in (x, y))
    levels = outer.shape[-1]
    for before, after in zip(inner.reshape(-1, levels), outer.reshape(-1, levels)):
        y.graph.logits.update((int(a), Logit(head, int(b), int(after[0]), levels)) for a, b in zip(after, before))
    return y


@handles("aten::logsumexp")
def logsumexp(op: Operation, x: Value, dims: Any, keepdim: bool = False) -> Value:
    largest, _, _, whole = _exponentials(op, x, dims)
    y = add(op, largest, apply(op, "log", [whole]))
    return y if keepdim else total(op, y, dims)


def normalized(op: Operation, x: Value, dims: Sequence[int], epsilon: float, centre: bool = True) -> Value:
    """x less its mean over dimensions of features, where `centre`, divided by the root of its mean square + epsilon."""
    centred = sub(op, x, mean(op, x, dims, True)) if centre else x
    spread = total(op, square(op, centred), dims, True, 1 / _count(x, dims), epsilon)
    return mul(op, centred, reciprocal(op, apply(op, "sqrt", [spread])))


def _scaled(op: Operation, x: Value, weight: Any, bias: Any) -> Value:
    """weight * x + bias, constants that broadcast with the features of x or None."""
    if depends([weight, bias]):
        y = x if weight is None else mul(op, x, weight)
        return y if bias is None else add(op, y, bias)
    if weight is None and bias is None:
        return x
    parts = [None if t is None else np.broadcast_to(array(t), x.codes.shape).reshape(-1) for t in (weight, bias)]
    return affine(op, x, *parts)


def _trailing(x: Value, shape: Sequence[int]) -> list[int]:
    """The last dimensions, which must be features."""
    dims = list(range(len(x.dims) - len(shape), len(x.dims)))
    return _dims(x, dims, "a normalization")


@handles("aten::layer_norm")
def layer_norm(
    op: Operation, x: Value, shape: Sequence[int], weight: Any = None, bias: Any = None, epsilon: float = 1e-5, *r: Any
) -> Value:
    return _scaled(op, normalized(op, x, _trailing(x, shape), epsilon), weight, bias)


@handles("aten::native_layer_norm")
def native_layer_norm(op: Operation, *arguments: Any) -> list[Value]:
    return [layer_norm(op, *arguments)]


@handles("aten::rms_norm")
def rms_norm(op: Operation, x: Value, shape: Sequence[int], weight: Any = None, epsilon: float | None = None) -> Value:
    epsilon = RMS_EPSILON if epsilon is None else epsilon
    return _scaled(op, normalized(op, x, _trailing(x, shape), epsilon, centre=False), weight, None)


@handles("aten::_fused_rms_norm")
def fused_rms_norm(op: Operation, *arguments: Any) -> list[Value]:
    return [rms_norm(op, *arguments)]


@handles("aten::group_norm")
def group_norm(
    op: Operation, x: Value, groups: int, weight: Any = None, bias: Any = None, epsilon: float = 1e-5, *rest: Any
) -> Value:
    if BATCH not in x.dims[0] or len(x.dims) < 2 or x.dims[1] != FEATURE:
        raise Unsupported("a group norm over anything but [B, F, ..]")
    if any(dim != FEATURE and size > 1 for dim, size in zip(x.dims[2:], x.shape[2:])):
        raise Unsupported("a group norm whose statistics are those of rows and columns, which include later pixels")
    parts = x.like(x.codes.reshape(1, groups, -1), (x.dims[0], FEATURE, FEATURE))
    y = x.like(normalized(op, parts, [2], epsilon).codes.reshape(x.codes.shape))
    return _scaled(op, y, *(_by_feature(y, t) for t in (weight, bias)))


@handles("aten::instance_norm")
def instance_norm(op: Operation, *rest: Any) -> Value:
    raise Unsupported("its statistics are those of rows and columns, which include later pixels")


def _by_feature(x: Value, tensor: Any) -> Any:
    """A constant [F] that broadcasts along dimension 1."""
    return None if tensor is None else array(tensor).reshape(-1, *[1] * (len(x.dims) - 2))


@handles("aten::batch_norm", "aten::cudnn_batch_norm", "aten::native_batch_norm")
@handles("aten::_native_batch_norm_legit_no_training")
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
    if mean is None or variance is None or x.dims[1] != FEATURE:
        raise Unsupported("batch norm without running statistics, or not over features")
    epsilon = rest[-1] if "native" in op.name else rest[2]
    mean, variance = (tensor.double() for tensor in (mean, variance))
    scale = (1 if weight is None else weight.double()) / (variance + epsilon).sqrt()
    shift = (0 if bias is None else bias.double()) - mean * scale
    y = _scaled(op, x, _by_feature(x, scale), _by_feature(x, shift))
    return [y] if "native" in op.name else y


@handles("aten::cosine_similarity")
def cosine_similarity(op: Operation, a: Any, b: Any, dim: int = 1, epsilon: float = 1e-8) -> Value:
    if not (depends(a) and depends(b)):
        raise Unsupported("a cosine with a constant")
    sizes = [clamp(op, norm(op, v, 2, dim, True), epsilon) for v in (a, b)]
    return total(op, mul(op, div(op, a, sizes[0]), div(op, b, sizes[1])), dim)
