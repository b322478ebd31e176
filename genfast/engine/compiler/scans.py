"""Genfast's own operations: gates and LSTMs over the image."""

import numpy as np

from genfast.engine.compiler.arithmetic import add, apply
from genfast.engine.compiler.handlers import HANDLERS, array, chunk, handles, select, stack, unbind
from genfast.engine.compiler.plan import Operand, Step
from genfast.engine.compiler.sums import constants, linear_step, matrix
from genfast.engine.compiler.values import BATCH, COLUMN, FEATURE, ROW, Refused, reshaped, windowed

# This module comes last: with it every handler is registered.
__all__ = ["HANDLERS"]


@handles("genfast::gated_activation_forward")
def gated_activation(at, x, *rest):
    a, b = chunk(at, x, 2, 1)
    return apply(at, "mul", [apply(at, "tanh", [a]), apply(at, "sigmoid", [b])])


@handles("genfast::diagonal_lstm_forward")
def diagonal_lstm(at, gates, weight, h0, c0, *rest):
    constants(weight, h0, c0)
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
    constants(weight, h0, c0)
    weight, h0, c0 = map(array, (weight, h0, c0))
    return [scan(at, gates, [(-1, side, w) for side, w in zip((-1, 0, 1), weight)], (-1, 0), h0, c0, 0)]


@handles("genfast::diagonal_block_forward")
def diagonal_block(at, x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias, *rest):
    constants(input_weight, input_bias, output_weight, output_bias)
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
