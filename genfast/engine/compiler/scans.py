"""Recurrent layers over the image, and the other ops of genfast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import genfast.engine.compiler.entrance  # noqa: F401  its handlers
from genfast.engine.compiler import functions, products, rearrange
from genfast.engine.compiler.arithmetic import add, apply, mul
from genfast.engine.compiler.handlers import HANDLERS, chunk, depends, handles, permute, select, stack, unbind
from genfast.engine.compiler.plan import Operand, Step
from genfast.engine.compiler.sums import check_constant, conv2d, linear, linear_step, matrix
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
    windowed,
)
from genfast.reference.masked_conv2d import tap_mask

# This module imports all others with handlers: after it every handler is registered.
__all__ = ["HANDLERS", "functions", "products", "rearrange"]


@handles("genfast::gated_activation_forward")
def gated_activation(op: Operation, x: Value, *rest: Any) -> Value:
    a, b = chunk(op, x, 2, 1)
    return apply(op, "mul", [apply(op, "tanh", [a]), apply(op, "sigmoid", [b])])


@handles("genfast::diagonal_lstm_forward")
def diagonal_lstm(op: Operation, gates: Value, weight: Any, h0: Any, c0: Any, *rest: Any) -> list[Value]:
    check_constant(weight, h0, c0)
    weight, h0, c0 = map(array, (weight, h0, c0))
    check_grid(gates)
    hidden = [
        scan(
            op,
            select(op, gates, 3, d),
            [(-1, 0, weight[d, 0]), (0, side, weight[d, 1])],
            (0, side),
            h0[d],
            c0[d],
            -side,
        )
        for d, side in zip(range(len(weight)), (-1, 1))
    ]
    return [stack(op, hidden, 3)]


@handles("genfast::row_lstm_forward")
def row_lstm(op: Operation, gates: Value, weight: Any, h0: Any, c0: Any, *rest: Any) -> list[Value]:
    check_constant(weight, h0, c0)
    weight, h0, c0 = map(array, (weight, h0, c0))
    check_grid(gates)
    return [scan(op, gates, [(-1, side, w) for side, w in zip((-1, 0, 1), weight)], (-1, 0), h0, c0, 0)]


@handles("genfast::diagonal_block_forward")
def diagonal_block(
    op: Operation,
    x: Value,
    input_weight: Tensor,
    input_bias: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    *rest: Any,
) -> list[Value]:
    check_constant(input_weight, input_bias, output_weight, output_bias)
    gates = matrix(op, x, array(input_weight.flatten(1)), array(input_bias.flatten()))
    gates = reshaped(gates, (*gates.shape[:3], *input_bias.shape))
    hidden = diagonal_lstm(op, gates, weight, h0, c0)[0]
    left, right = unbind(op, hidden, 3)
    projection = array(output_weight)
    lowered = windowed(right, ROW, -1, right.size[ROW] - 1)
    entries = [(v.codes.reshape(-1), 0, 0, (0, 0), projection) for v in (left, lowered)]
    y = linear_step(x, entries, array(output_bias), x.domain, op.where)
    return [add(op, x.like(y.reshape(x.codes.shape)), x)]


@handles("genfast::masked_conv2d_forward")
def masked_conv(op: Operation, x: Value, weight: Tensor, bias: Tensor, centre: int, dilation: int, *rest: Any) -> Value:
    check_constant(weight, bias)
    used = torch.where(tap_mask(weight.shape, "B" if centre else "A", 1).to(weight.device), weight, 0)
    padding = [size // 2 * dilation for size in weight.shape[2:]]
    image = permute(op, x, (0, 3, 1, 2))
    y = conv2d(op, image, used, bias if bias.numel() else None, 1, padding, dilation)
    return permute(op, y, (0, 2, 3, 1))


@handles("genfast::pixelcnn_block_forward")
def pixelcnn_block(
    op: Operation,
    x: Value,
    down_weight: Tensor,
    down_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    *rest: Any,
) -> list[Value]:
    inner = linear(op, apply(op, "relu", [x]), down_weight, down_bias)
    outer = masked_conv(op, apply(op, "relu", [inner]), weight, bias, 1, 1)
    return [add(op, linear(op, apply(op, "relu", [outer]), up_weight, up_bias), x)]


def check_grid(gates: Value) -> None:
    if gates.dims[:3] != (BATCH, ROW, COLUMN) or LINE in gates.size:
        raise Unsupported("an LSTM over anything but [B, H, W, features]")


@handles("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu")
def recurrent(
    op: Operation,
    x: Value,
    state: Any,
    weights: Sequence[Any],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Any]:
    """`torch.nn.LSTM`, `GRU` and `RNN` along the columns of each row, or along the line of all pixels."""
    unit = op.name.removeprefix("rnn_")
    states = list(state) if unit == "lstm" else [state]
    check_constant(*states, *weights)
    along = line(x, 1 if batch_first else 0) if len(x.dims) == 3 else ""
    if bidirectional:
        raise Unsupported(f"a bidirectional {unit.upper()}, which reads what comes later")
    if along != (LINE if LINE in x.size else COLUMN) or x.dims[-1] != FEATURE:
        raise Unsupported("a recurrent layer over anything but the columns of rows or all pixels in a line")
    each = 4 if has_biases else 2
    if len(weights) != layers * each or (dropout and train):
        raise Unsupported("an LSTM with projections, or dropout in training mode")
    outside = [array(part) for part in states]
    if any((part != part[:, :1]).any() for part in outside):
        raise Unsupported("a recurrent layer whose first state differs from image to image")
    for layer in range(layers):
        own = [array(weight) for weight in weights[layer * each : (layer + 1) * each]]
        bias, inner = (own[2].copy(), own[3]) if has_biases else (np.zeros(len(own[0]), np.float32), None)
        last = len(bias) if unit != "gru" or inner is None else len(bias) // 3 * 2
        bias[:last] += 0 if inner is None else inner[:last]
        gates = matrix(op, x, own[0].T, bias)
        first = [part[layer, 0] for part in outside]
        before = [(0, -1, np.ascontiguousarray(own[1].T))]
        hidden_bias = None if unit != "gru" else np.zeros(len(first[0]), np.float32) if inner is None else inner[last:]
        x = scan(op, gates, before, (0, -1), first[0], first[-1], 1, unit, hidden_bias)
    return [x, None, None]


@handles("aten::lstm_cell")
def lstm_cell(op: Operation, x: Any, state: Sequence[Any], w: Any, u: Any, b: Any = None, c: Any = None) -> list[Any]:
    """A step of an LSTM, where a model loops over pixels itself."""
    i, f, g, o = chunk(op, _gates(op, x, state[0], w, u, b, c), 4, 1)
    keep, new = (apply(op, "sigmoid", [part]) for part in (f, i))
    cell = add(op, mul(op, keep, state[1]), mul(op, new, apply(op, "tanh", [g])))
    return [mul(op, apply(op, "sigmoid", [o]), apply(op, "tanh", [cell])), cell]


@handles("aten::gru_cell")
def gru_cell(op: Operation, x: Any, h: Any, w: Any, u: Any, b: Any = None, c: Any = None) -> Value:
    size = u.shape[1]
    both = (part[: 2 * size] if part is not None else None for part in (w, u, b, c))
    r, z = (apply(op, "sigmoid", [part]) for part in chunk(op, _gates(op, x, h, *both), 2, 1))
    last = [part[2 * size :] if part is not None else None for part in (w, u, b, c)]
    inner = mul(op, r, _product(op, h, last[1], last[3]))
    n = apply(op, "tanh", [add(op, inner, _product(op, x, last[0], last[2]))])
    return add(op, n, mul(op, z, add(op, h, n, -1)))


@handles("aten::rnn_tanh_cell", "aten::rnn_relu_cell")
def rnn_cell(op: Operation, x: Any, h: Any, w: Any, u: Any, b: Any = None, c: Any = None) -> Value:
    return apply(op, op.name.removeprefix("rnn_").removesuffix("_cell"), [_gates(op, x, h, w, u, b, c)])


def _gates(op: Operation, x: Any, h: Any, w: Any, u: Any, b: Any, c: Any) -> Value:
    return add(op, _product(op, x, w, b), _product(op, h, u, c))


def _product(op: Operation, x: Any, weight: Any, bias: Any) -> Any:
    check_constant(weight, bias)
    return linear(op, x, weight, bias) if depends(x) else torch.nn.functional.linear(x, weight, bias)


def scan(
    op: Operation,
    gates: Value,
    recurrent: list[tuple[int, int, np.ndarray]],
    cell: tuple[int, int],
    h0: np.ndarray,
    c0: np.ndarray,
    sweep: int,
    unit: str = "lstm",
    hidden_bias: np.ndarray | None = None,
) -> Value:
    """A recurrent layer from gates [B, H, W, gates * C]: hidden [B, H, W, C]."""
    graph, codes, size = gates.graph, gates.codes.reshape(-1), len(h0)
    step = Step("scan", size, gates.stride, gates.domain, op.where, recurrent=recurrent, cell=cell, sweep=sweep)
    step.outside, step.unit, step.weight = (h0, c0), unit, hidden_bias
    step.bias = np.zeros(step.columns, np.float32)
    index, feature = graph.split(codes)
    if (index == index[0]).all():
        step.operands = [Operand(graph.view(index[0]), feature)]
    else:
        step.taps = graph.taps([(codes, 0, 0, (0, 0), np.eye(step.columns, dtype=np.float32))], step.columns)
    return gates.like(graph.add(step).reshape(*gates.codes.shape[:-1], -1))
