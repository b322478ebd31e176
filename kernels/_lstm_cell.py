"""The LSTM cell that the grid scans share: four gates of C units side by side, gate order i, f, g, o."""

import triton
import triton.language as tl

from genfast.kernels._common import sigmoid, tanh


@triton.jit
def load_gates(pointers, mask, C: tl.constexpr):
    i = tl.load(pointers, mask=mask, other=0.0)
    f = tl.load(pointers + C, mask=mask, other=0.0)
    g = tl.load(pointers + 2 * C, mask=mask, other=0.0)
    o = tl.load(pointers + 3 * C, mask=mask, other=0.0)
    return i, f, g, o


@triton.jit
def store_gates(pointers, i, f, g, o, mask, C: tl.constexpr):
    dtype = pointers.dtype.element_ty
    tl.store(pointers, i.to(dtype), mask=mask)
    tl.store(pointers + C, f.to(dtype), mask=mask)
    tl.store(pointers + 2 * C, g.to(dtype), mask=mask)
    tl.store(pointers + 3 * C, o.to(dtype), mask=mask)


@triton.jit
def activate(i, f, g, o, dtype: tl.constexpr):
    approximate: tl.constexpr = dtype == tl.bfloat16
    return sigmoid(i, approximate), sigmoid(f, approximate), tanh(g, approximate), sigmoid(o, approximate)


@triton.jit
def cell_gradient(dh, dc, i, f, g, o, c, previous_c, dtype: tl.constexpr):
    """Back through one cell: the four pre-activation gradients and what flows on to the memory of the cell before."""
    y = tanh(c, dtype == tl.bfloat16)
    dc += dh * o * (1 - y * y)
    return dc * g * i * (1 - i), dc * previous_c * f * (1 - f), dc * i * (1 - g * g), dh * y * o * (1 - o), dc * f


@triton.jit
def neighbour(hidden, outside, cell, unit, valid, edge, C: tl.constexpr):
    """Units of the hidden states of `cell`; beyond the image's edge, of `outside`."""
    mask = valid & ~edge & (unit < C)[None, :]
    h = tl.load(hidden + cell[:, None] * C + unit[None, :], mask=mask, other=0.0)
    return tl.where(edge, tl.load(outside + unit, mask=unit < C, other=0.0)[None, :], h)
