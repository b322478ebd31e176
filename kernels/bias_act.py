"""Bias, activation, gain and limit in Triton: x as a matrix of which a tile is read, worked on and written once.

Where a channel has pixels of its own in memory, a row of the matrix is a channel of an image; where channels are
innermost, it is a pixel. The gradient of the bias is a sum of each tile, and then a sum of those: no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of, sigmoid, sum_parts, tanh

# Values of a tile; channels of it where they are innermost; tiles of a program that sums over pixels.
TILE, MOST, STEPS = 2048, 128, 8


def bias_act_forward(
    x: Tensor, bias: Tensor, activation: str, slope: float, gain: float, limit: float, save: bool
) -> Tensor:
    """Returns `y` of the shape of x; an empty bias stands for zeros."""
    y = x.new_empty(x.shape)
    if x.numel():
        launch, grid = _launch(x, bias, activation)
        with device_of(x):
            bias_act_forward_kernel[grid](x, bias, y, slope, gain, limit, **launch)
    return y


def bias_act_backward(
    grad_y: Tensor, x: Tensor, bias: Tensor, activation: str, slope: float, gain: float, limit: float, wanted: int
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of x and of the bias, the latter empty unless bit 1 of `wanted` is set."""
    grad_x, of_bias = x.new_empty(x.shape), bool(wanted & 2) and bias.numel() > 0
    launch, (down, across) = _launch(x, bias, activation)
    steps = STEPS if of_bias and launch["BY_COLUMN"] else 1
    down = triton.cdiv(down, steps)
    count = down if launch["BY_COLUMN"] else len(x) * across
    parts = x.new_empty(len(bias) if of_bias else 0, count, dtype=torch.float32)
    if x.numel():
        with device_of(x):
            bias_act_backward_kernel[(down, across)](
                grad_y, x, bias, grad_x, parts, slope, gain, limit, count, OF_BIAS=of_bias, STEPS=steps, **launch
            )
    return grad_x, sum_parts(parts, bias.dtype)


def _launch(x, bias, activation):
    """The arguments that both kernels share, and the grid, one program for each tile."""
    channels, size = x.shape[1], x.shape[2:].numel()
    by_column = size == 1
    rows, columns = (len(x), channels) if by_column else (len(x) * channels, size)
    block = max(1, min(MOST if by_column else TILE, triton.next_power_of_2(columns)))
    launch = {"COUNT": rows, "COLUMNS": columns, "CHANNELS": channels, "KIND": activation}
    launch |= {"BIASED": bias.numel() > 0, "BY_COLUMN": by_column, "ROWS": TILE // block, "BLOCK": block}
    return launch, (triton.cdiv(rows, launch["ROWS"]), triton.cdiv(columns, block))


@triton.jit
def load_biased(x, bias, row, column, at, COUNT, COLUMNS, CHANNELS, BIASED: tl.constexpr, BY_COLUMN: tl.constexpr):
    """x + bias, float32."""
    value = tl.load(x + at, mask=(row < COUNT) & (column < COLUMNS), other=0.0).to(tl.float32)
    if BIASED:
        if BY_COLUMN:
            value += tl.load(bias + column + row * 0, mask=(row < COUNT) & (column < COLUMNS), other=0.0).to(tl.float32)
        else:
            value += tl.load(bias + row % CHANNELS, mask=row < COUNT, other=0.0).to(tl.float32)
    return value


@triton.jit
def activate(x, SLOPE, KIND: tl.constexpr):
    """The activation and its derivative; a NaN stays one."""
    if KIND == "relu":
        return tl.where(x < 0, 0.0, x), tl.where(x > 0, 1.0, 0.0)
    elif KIND == "leaky_relu":
        return tl.where(x > 0, x, SLOPE * x), tl.where(x > 0, 1.0, SLOPE)
    elif KIND == "tanh":
        t = tanh(x, False)
        return t, 1 - t * t
    elif KIND == "sigmoid":
        s = sigmoid(x, False)
        return s, s * (1 - s)
    elif KIND == "swish":
        s = sigmoid(x, False)
        return x * s, s + x * s * (1 - s)
    else:
        return x, tl.full(x.shape, 1.0, tl.float32)


@triton.jit
def bias_act_forward_kernel(
    x,
    bias,
    y,
    SLOPE,
    GAIN,
    LIMIT,
    COUNT,
    COLUMNS,
    CHANNELS,
    KIND: tl.constexpr,
    BIASED: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    at, inside = row.to(tl.int64) * COLUMNS + column, (row < COUNT) & (column < COLUMNS)
    value = load_biased(x, bias, row, column, at, COUNT, COLUMNS, CHANNELS, BIASED, BY_COLUMN)
    value, _ = activate(value, SLOPE, KIND)
    value *= GAIN
    value = tl.where(value > LIMIT, LIMIT, tl.where(value < -LIMIT, -LIMIT, value))
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def bias_act_backward_kernel(
    grad_y,
    x,
    bias,
    grad_x,
    parts,
    SLOPE,
    GAIN,
    LIMIT,
    PARTS,
    COUNT,
    COLUMNS,
    CHANNELS,
    OF_BIAS: tl.constexpr,
    STEPS: tl.constexpr,
    KIND: tl.constexpr,
    BIASED: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for step in range(STEPS):
        row = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)[:, None]
        at, inside = row.to(tl.int64) * COLUMNS + column, (row < COUNT) & (column < COLUMNS)
        value = load_biased(x, bias, row, column, at, COUNT, COLUMNS, CHANNELS, BIASED, BY_COLUMN)
        value, slope = activate(value, SLOPE, KIND)
        value *= GAIN
        grad = tl.load(grad_y + at, mask=inside, other=0.0).to(tl.float32) * GAIN
        grad = tl.where((value >= -LIMIT) & (value <= LIMIT), grad * slope, 0.0)
        tl.store(grad_x + at, grad.to(grad_x.dtype.element_ty), mask=inside)
        total += tl.where(inside, grad, 0.0)
    if OF_BIAS:
        if BY_COLUMN:
            channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
            to = channel.to(tl.int64) * PARTS + tl.program_id(0)
            tl.store(parts + to, tl.sum(total, 0), mask=channel < COLUMNS)
        else:
            row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
            to = (row % CHANNELS).to(tl.int64) * PARTS + row // CHANNELS * tl.num_programs(1) + tl.program_id(1)
            tl.store(parts + to, tl.sum(total, 1), mask=row < COUNT)
