"""Attention: handlers of operations on scores and weights, and of attention that is one operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast.engine.compiler.handlers import HANDLERS, H, depends, handles
from genfast.engine.compiler.pairs import filled, normalised, plus, times, without_nan
from genfast.engine.compiler.products import matmul
from genfast.engine.compiler.values import FEATURE, Operation, Pairs, Unsupported, Value

# operation -> its handler where an argument is scores or weights.
OF_PAIRS: dict[str, Callable[..., Any]] = {}
_REARRANGING = (
    *("permute", "movedim", "moveaxis", "transpose", "swapaxes", "swapdims", "view", "reshape", "_unsafe_view"),
    *("view_copy", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "expand_as", "broadcast_to", "slice"),
    *("narrow", "select", "unbind", "chunk", "unsafe_chunk", "split", "split_with_sizes", "contiguous", "clone"),
    *("alias", "detach", "lift_fresh_copy", "dropout", "positive", "mT"),
)
_PRODUCTS = ("matmul", "bmm", "einsum", "baddbmm")


def of_pairs(*names: str) -> Callable[[H], H]:
    """Decorator: the function handles the operations of these names where an argument is scores or weights."""

    def register(function: H) -> H:
        OF_PAIRS.update({f"aten::{name}": function for name in names})
        return function

    return register


OF_PAIRS |= {f"aten::{name}": HANDLERS[f"aten::{name}"] for name in _PRODUCTS}


@of_pairs(*_REARRANGING)
def rearranged(op: Operation, x: Any, *rest: Any) -> Any:
    if not isinstance(x, Pairs):
        raise Unsupported("the shape of scores of attention for something else")
    like = [one.heads if isinstance(one, Pairs) else one for one in rest]
    heads = HANDLERS[f"aten::{op.name}"](op, x.heads, *like)
    return [_with(x, one) for one in heads] if isinstance(heads, list) else _with(x, heads)


def _with(x: Pairs, heads: Value) -> Pairs:
    """x in another arrangement."""
    return Pairs(heads, x.sides, x.model, x.factor, x.bias, x.key, x.after, x.empty)


@of_pairs("to", "_to_copy", "type_as", "float")
def same_number(op: Operation, x: Pairs, *rest: Any) -> Pairs:
    if any(isinstance(r, torch.dtype) and r != torch.float32 for r in rest):
        raise Unsupported("scores of attention in another dtype")
    return x


@of_pairs("mul", "multiply")
def mul(op: Operation, a: Any, b: Any) -> Pairs:
    x, other = _constant(a, b)
    return times(op, x, other)


@of_pairs("div", "divide", "true_divide")
def div(op: Operation, a: Any, b: Any, rounding_mode: str | None = None) -> Pairs:
    if rounding_mode or not isinstance(a, Pairs):
        raise Unsupported("a quotient that is no scaling of scores of attention")
    x, other = _constant(a, b)
    return times(op, x, other, inverse=True)


@of_pairs("neg", "negative")
def neg(op: Operation, x: Pairs) -> Pairs:
    return times(op, x, -1.0)


@of_pairs("add")
def add(op: Operation, a: Any, b: Any, alpha: float = 1) -> Pairs:
    x, other = _constant(a, b)
    return plus(op, x, other, alpha) if x is a else plus(op, times(op, x, alpha), other)


@of_pairs("sub", "subtract")
def sub(op: Operation, a: Any, b: Any, alpha: float = 1) -> Pairs:
    return add(op, a, b, -alpha)


@of_pairs("masked_fill")
def masked_fill(op: Operation, x: Any, mask: Any, value: Any) -> Pairs:
    x, mask = _constant(x, mask)
    return filled(op, x, mask, value)


@of_pairs("where")
def where(op: Operation, condition: Any, a: Any, b: Any) -> Pairs:
    if isinstance(condition, Pairs):
        raise Unsupported("a choice by scores of attention")
    if isinstance(a, Pairs) and isinstance(condition, Tensor):
        x, other = _constant(a, b)
        return filled(op, x, ~condition.bool(), other)
    x, other = _constant(b, a)
    return filled(op, x, condition, other)


@of_pairs("softmax", "_softmax", "_safe_softmax")
def softmax(op: Operation, x: Pairs, dim: int, *rest: Any) -> Pairs:
    return normalised(op, x, dim, safe=op.name == "_safe_softmax")


@of_pairs("nan_to_num")
def nan_to_num(op: Operation, x: Pairs, nan: float | None = None, *rest: Any) -> Pairs:
    if nan:
        raise Unsupported("NaN replaced by anything but zero")
    return without_nan(x)


def _constant(a: Any, b: Any) -> tuple[Pairs, Any]:
    """The one of two operands that is scores or weights, and the other, which must be a constant."""
    x, other = (a, b) if isinstance(a, Pairs) else (b, a)
    if depends(other):
        raise Unsupported("scores of attention combined with what depends on the image")
    return x, other


@handles("aten::scaled_dot_product_attention")
def attention(
    op: Operation,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    grouped: bool = False,
) -> Value:
    if not all(isinstance(x, Value) for x in (query, key, value)):
        raise Unsupported("attention whose queries, keys or values do not depend on the image")
    if dropout:
        raise Unsupported("dropout in training mode")
    if grouped:
        key, value = (_repeated(query, x) for x in (key, value))
    swapped = [*range(len(key.dims) - 2), -1, -2]
    x = matmul(op, query, HANDLERS["aten::permute"](op, key, swapped))
    if not isinstance(x, Pairs):
        raise Unsupported("attention over anything but all pixels in a sequence")
    x = times(op, x, query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        x = filled(op, x, ~torch.ones(x.positions, x.positions, dtype=torch.bool, device="cpu").tril(), -np.inf)
    if mask is not None and depends(mask):
        raise Unsupported("a mask of attention that depends on the image")
    boolean = mask is not None and mask.dtype == torch.bool
    if mask is not None:
        x = filled(op, x, ~mask, -np.inf) if boolean else plus(op, x, mask)
    return matmul(op, normalised(op, x, -1, safe=_is_safe(boolean)), value)


@handles("aten::_scaled_dot_product_flash_attention_for_cpu")
def flash_attention(
    op: Operation,
    query: Any,
    key: Any,
    value: Any,
    dropout: float = 0.0,
    causal: bool = False,
    mask: Any = None,
    scale: float | None = None,
) -> Sequence[Value]:
    return [attention(op, query, key, value, mask, dropout, causal, scale)]


def _repeated(query: Value, x: Value) -> Value:
    """Keys or values of a group of heads, for each of its heads."""
    if x.dims[-3] != FEATURE or query.shape[-3] % x.shape[-3]:
        raise Unsupported("groups of heads that are not features")
    return x.like(np.repeat(x.codes, query.shape[-3] // x.shape[-3], -3))


@cache
def _is_safe(boolean: bool) -> bool:
    """Whether torch's attention is zero, not NaN, where a mask leaves nothing."""
    one = torch.ones(1, 1, 2, 8, dtype=torch.float32, device="cpu")
    mask = torch.full((2, 2), -torch.inf, dtype=torch.float32, device="cpu")
    y = torch.nn.functional.scaled_dot_product_attention(one, one, one, mask == 0 if boolean else mask)
    return bool((y == 0).all())
