"""The operations of genfast: gates and LSTMs over the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

import genfast.engine.compiler.entrance  # noqa: F401  its handlers
from genfast.engine.compiler import functions, products, rearrange
from genfast.engine.compiler.arithmetic import add, apply
from genfast.engine.compiler.handlers import HANDLERS, chunk, handles, line, select, stack, unbind
from genfast.engine.compiler.plan import Operand, Step
from genfast.engine.compiler.sums import check_constant, linear_step, matrix
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
    reshaped,
    windowed,
)

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


def check_grid(gates: Value) -> None:
    if gates.dims[:3] != (BATCH, ROW, COLUMN) or LINE in gates.size:
        raise Unsupported("an LSTM over anything but [B, H, W, features]")


@handles("aten::lstm")
def lstm(
    op: Operation,
    x: Value,
    state: Sequence[Any],
    weights: Sequence[Any],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Any]:
    """`torch.nn.LSTM` along the columns of each row, or along the line of all pixels."""
    check_constant(*state, *weights)
    along = line(x, 1 if batch_first else 0) if len(x.dims) == 3 else ""
    if along != (LINE if LINE in x.size else COLUMN) or x.dims[-1] != FEATURE or bidirectional:
        raise Unsupported(
            "an LSTM over anything but the columns of rows or all pixels in a line, or in both directions"
        )
    each = 4 if has_biases else 2
    if len(weights) != layers * each or (dropout and train):
        raise Unsupported("an LSTM with projections, or with dropout in training mode")
    h0, c0 = (array(part) for part in state)
    if (h0 != h0[:, :1]).any() or (c0 != c0[:, :1]).any():
        raise Unsupported("an LSTM whose first state differs from image to image")
    for layer in range(layers):
        own = [array(weight) for weight in weights[layer * each : (layer + 1) * each]]
        gates = matrix(op, x, own[0].T, own[2] + own[3] if has_biases else None)
        x = scan(op, gates, [(0, -1, np.ascontiguousarray(own[1].T))], (0, -1), h0[layer, 0], c0[layer, 0], 1)
    return [x, None, None]


def scan(
    op: Operation,
    gates: Value,
    recurrent: list[tuple[int, int, np.ndarray]],
    cell: tuple[int, int],
    h0: np.ndarray,
    c0: np.ndarray,
    sweep: int,
) -> Value:
    """An LSTM step from gates [B, H, W, 4C]: hidden [B, H, W, C]."""
    graph, codes, size = gates.graph, gates.codes.reshape(-1), len(h0)
    step = Step("scan", size, gates.stride, gates.domain, op.where, recurrent=recurrent, cell=cell, sweep=sweep)
    step.outside, step.bias = (h0, c0), np.zeros(4 * size, np.float32)
    index, feature = graph.split(codes)
    if (index == index[0]).all():
        step.operands = [Operand(graph.view(index[0]), feature)]
    else:
        step.taps = graph.taps([(codes, 0, 0, (0, 0), np.eye(4 * size, dtype=np.float32))], 4 * size)
    return gates.like(graph.add(step).reshape(*gates.codes.shape[:-1], -1))
