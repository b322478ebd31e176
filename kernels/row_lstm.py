"""The row LSTM in Triton. One program owns whole images and walks their rows, so no program waits for another.

Lane `r` of a program is column `j` of image `b`. A row's states go through global memory, where every lane finds its
three neighbours; a barrier of the program separates the rows. Cell states that are not saved alternate between two
planes, so that no row overwrites what it reads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import (
    PRECISION,
    STREAMED_BACKWARD,
    STREAMED_FORWARD,
    Streamed,
    device_of,
    images_of_program,
    tanh,
    weight_launch,
)
from genfast.kernels._lstm_cell import activate, cell_gradient, load_gates, neighbour, store_gates


def row_launch(dtype: torch.dtype, width: int, size: int, backward: bool) -> Streamed:
    """The fixed launch of a scan over images of `width` columns: the diagonal scan's, few units in smaller blocks."""
    rows = 32 if dtype.itemsize == 4 or width <= 32 else 64
    launch = (STREAMED_BACKWARD if backward else STREAMED_FORWARD)[rows, dtype.itemsize]
    units = max(16, triton.next_power_of_2(size))
    block_n = min(launch.block_n, units)
    block_k = min(launch.block_k, 4 * units if backward else units)
    return launch._replace(block_n=block_n, block_k=block_k, num_warps=8 if rows * block_n > 1024 else 4)


def row_lstm_forward(
    gates: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan; returns `(hidden, saved_gates, saved_cells)`, the saved ones empty unless `save`."""
    batch, height, width, _ = gates.shape
    size = weight.shape[1]
    gates, weight, h0, c0 = (x.contiguous() for x in (gates, weight, h0, c0))
    hidden = gates.new_empty(batch, height, width, size)
    saved_gates = torch.empty_like(gates) if save else gates.new_empty(0)
    saved_cells = gates.new_empty(hidden.shape if save else 0, dtype=torch.float32)
    if hidden.numel() == 0:
        return hidden, saved_gates, saved_cells
    launch = row_launch(gates.dtype, width, size, False)
    grid = (triton.cdiv(batch, images_of_program(width, launch.rows)),)
    with device_of(gates):
        cells = saved_cells if save else gates.new_empty(2, batch, width, size, dtype=torch.float32)
        sizes = {"H": height, "W": width, "C": size, "SAVE": save}
        row_forward_kernel[grid](gates, weight, h0, c0, hidden, saved_gates, cells, batch, **sizes, **launch.options)
    return hidden, saved_gates, saved_cells


def row_lstm_backward(
    grad_hidden: Tensor,
    hidden: Tensor,
    saved_gates: Tensor,
    saved_cells: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns `(grad_gates, grad_weight, grad_h0, grad_c0)`; no atomics, so the same bits every time."""
    batch, height, width, size = hidden.shape
    tensors = (grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0)
    grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0 = (x.contiguous() for x in tensors)
    grad_gates = torch.empty_like(saved_gates)
    if hidden.numel() == 0:
        return grad_gates, torch.zeros_like(weight), torch.zeros_like(h0), torch.zeros_like(c0)
    launch = row_launch(hidden.dtype, width, size, True)
    grid = (triton.cdiv(batch, images_of_program(width, launch.rows)),)
    with device_of(hidden):
        carry = torch.empty(2, batch, width, size, dtype=torch.float32, device=hidden.device)
        given, sizes = (grad_hidden, saved_gates, saved_cells, weight, c0), {"H": height, "W": width, "C": size}
        row_backward_kernel[grid](*given, grad_gates, carry, batch, **sizes, **launch.options)
        grad_weight = _weight_gradient(grad_gates, hidden, h0)
        grad_h0 = _outside_gradient(grad_gates, weight)
        grad_c0 = carry[(height - 1) % 2].sum((0, 1)).to(c0.dtype)
    return grad_gates, grad_weight, grad_h0, grad_c0


def _weight_gradient(grad_gates, hidden, h0):
    batch, height, width, size = hidden.shape
    cells = batch * height * width
    launch = weight_launch(hidden.dtype, size, 3, cells)
    parts = triton.cdiv(cells, launch.steps * launch.block_k)
    blocks = triton.cdiv(size, launch.block_m) * triton.cdiv(4 * size, launch.block_n)
    partial = hidden.new_empty(parts, 3, size, 4 * size, dtype=torch.float32)
    row_weight_gradient_kernel[(parts, 3, blocks)](
        grad_gates, hidden, h0, partial, cells, H=height, W=width, C=size, **launch.options
    )
    return partial.sum(0).to(hidden.dtype)


def _outside_gradient(grad_gates, weight):
    """What h0 receives: the gate gradients of the pixels that read it, through the taps they read it by."""
    top = grad_gates[:, 0].sum((0, 1), dtype=torch.float32)
    left, right = (grad_gates[:, 1:, j].sum((0, 1), dtype=torch.float32) for j in (0, -1))
    outside = torch.stack((top + left, top, top + right))
    return (weight.float() * outside[:, None]).sum((0, 2)).to(weight.dtype)


@triton.jit
def columns_of_program(lane, B, W: tl.constexpr, ROWS: tl.constexpr):
    """Column `j` of each lane, whether there is one, and its image."""
    images: tl.constexpr = images_of_program(W, ROWS)
    image = tl.program_id(0) * images + lane // W
    return lane % W, (lane < images * W) & (image < B), image.to(tl.int64)


@triton.jit
def row_forward_kernel(
    gates,
    weight,
    h0,
    c0,
    hidden,
    saved_gates,
    cells,
    B,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SAVE: tl.constexpr,
):
    """`cells` is [B, H, W, C] if SAVE, else [2, B, W, C]."""
    dtype = hidden.dtype.element_ty
    K_BLOCKS: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    for i in range(H):
        for m in range(0, images_of_program(W, ROWS) * W, ROWS):
            j, inside, image = columns_of_program(m + tl.arange(0, ROWS), B, W, ROWS)
            cell = (image * H + i) * W + j
            top = tl.full((ROWS,), i, tl.int32) == 0
            if SAVE:
                memory, older = cell, cell - W
            else:
                memory, older = (i % 2 * B + image) * W + j, ((i + 1) % 2 * B + image) * W + j
            for n in range(0, C, BLOCK_N):
                unit = n + tl.arange(0, BLOCK_N)
                known = unit < C
                mask = inside[:, None] & known[None, :]
                x_i, x_f, x_g, x_o = load_gates(gates + cell[:, None] * 4 * C + unit[None, :], mask, C)
                c = tl.load(cells + older[:, None] * C + unit[None, :], mask=mask & ~top[:, None], other=0.0)
                outside_c = tl.load(c0 + unit, mask=known, other=0.0).to(tl.float32)
                a_i = tl.zeros((ROWS, BLOCK_N), tl.float32)
                a_f = tl.zeros((ROWS, BLOCK_N), tl.float32)
                a_g = tl.zeros((ROWS, BLOCK_N), tl.float32)
                a_o = tl.zeros((ROWS, BLOCK_N), tl.float32)
                for block in range(3 * K_BLOCKS):
                    tap = block // K_BLOCKS
                    k = (block % K_BLOCKS) * BLOCK_K + tl.arange(0, BLOCK_K)
                    column = j + tap - 1
                    edge = (top | (column < 0) | (column >= W))[:, None]
                    h = neighbour(hidden, h0, cell - W + tap - 1, k, inside[:, None], edge, C)
                    w = weight + (tap * C + k)[:, None] * 4 * C + unit[None, :]
                    w_i, w_f, w_g, w_o = load_gates(w, (k < C)[:, None] & known[None, :], C)
                    a_i = tl.dot(h, w_i, a_i, input_precision=PRECISION)
                    a_f = tl.dot(h, w_f, a_f, input_precision=PRECISION)
                    a_g = tl.dot(h, w_g, a_g, input_precision=PRECISION)
                    a_o = tl.dot(h, w_o, a_o, input_precision=PRECISION)
                a_i, a_f, a_g, a_o = activate(a_i + x_i, a_f + x_f, a_g + x_g, a_o + x_o, dtype)
                c = a_f * tl.where(top[:, None], outside_c[None, :], c) + a_i * a_g
                tl.store(cells + memory[:, None] * C + unit[None, :], c, mask=mask)
                h = (a_o * tanh(c, dtype == tl.bfloat16)).to(dtype)
                tl.store(hidden + cell[:, None] * C + unit[None, :], h, mask=mask)
                if SAVE:
                    store_gates(saved_gates + cell[:, None] * 4 * C + unit[None, :], a_i, a_f, a_g, a_o, mask, C)
        # Other threads of this program read the new states in the next row.
        tl.debug_barrier()


@triton.jit
def row_backward_kernel(
    grad_hidden,
    saved_gates,
    saved_cells,
    weight,
    c0,
    grad_gates,
    carry,
    B,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`carry` [2, B, W, C] holds the gradient that reaches the memory of the row above; the plane written last ends as
    every column's share of c0's."""
    dtype = grad_gates.dtype.element_ty
    K_BLOCKS: tl.constexpr = (4 * C + BLOCK_K - 1) // BLOCK_K
    for back in range(H):
        i = H - 1 - back
        for m in range(0, images_of_program(W, ROWS) * W, ROWS):
            j, inside, image = columns_of_program(m + tl.arange(0, ROWS), B, W, ROWS)
            cell = (image * H + i) * W + j
            row = tl.full((ROWS,), i, tl.int32)
            top, inner = (row == 0)[:, None], row < H - 1
            memory, newer = (back % 2 * B + image) * W + j, ((back + 1) % 2 * B + image) * W + j
            for n in range(0, C, BLOCK_N):
                unit = n + tl.arange(0, BLOCK_N)
                known = unit < C
                mask = inside[:, None] & known[None, :]
                place = cell[:, None] * C + unit[None, :]
                dh = tl.load(grad_hidden + place, mask=mask, other=0.0).to(tl.float32)
                for block in range(3 * K_BLOCKS):
                    tap = block // K_BLOCKS
                    column = (block % K_BLOCKS) * BLOCK_K + tl.arange(0, BLOCK_K)
                    # The cell that reads this one by the tap.
                    reader = j + 1 - tap
                    there = inside & inner & (reader >= 0) & (reader < W)
                    at = (cell + W + 1 - tap)[:, None] * 4 * C + column[None, :]
                    da = tl.load(grad_gates + at, mask=there[:, None] & (column < 4 * C)[None, :], other=0.0)
                    w = weight + (tap * C + unit)[:, None] * 4 * C + column[None, :]
                    w = tl.load(w, mask=known[:, None] & (column < 4 * C)[None, :], other=0.0)
                    dh = tl.dot(da, tl.trans(w), dh, input_precision=PRECISION)
                dc = tl.load(carry + newer[:, None] * C + unit[None, :], mask=mask & inner[:, None], other=0.0)
                c = tl.load(saved_cells + place, mask=mask, other=0.0)
                previous_c = tl.load(saved_cells + place - W * C, mask=mask & ~top, other=0.0)
                outside_c = tl.load(c0 + unit, mask=known, other=0.0).to(tl.float32)
                previous_c = tl.where(top, outside_c[None, :], previous_c)
                s_i, s_f, s_g, s_o = load_gates(saved_gates + cell[:, None] * 4 * C + unit[None, :], mask, C)
                s_i, s_f, s_g, s_o = s_i.to(tl.float32), s_f.to(tl.float32), s_g.to(tl.float32), s_o.to(tl.float32)
                d_i, d_f, d_g, d_o, flow = cell_gradient(dh, dc, s_i, s_f, s_g, s_o, c, previous_c, dtype)
                tl.store(carry + memory[:, None] * C + unit[None, :], flow, mask=mask)
                store_gates(grad_gates + cell[:, None] * 4 * C + unit[None, :], d_i, d_f, d_g, d_o, mask, C)
        # Other threads of this program read this row's gate gradients in the next one.
        tl.debug_barrier()


@triton.jit
def row_weight_gradient_kernel(
    grad_gates,
    hidden,
    h0,
    partial,
    CELLS,
    H: tl.constexpr,
    W: tl.constexpr,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STEPS: tl.constexpr,
):
    """One tap's product over one part of the cells, into `partial` [parts, 3, C, 4C]."""
    part = tl.program_id(0)
    tap = tl.program_id(1)
    N_BLOCKS: tl.constexpr = (4 * C + BLOCK_N - 1) // BLOCK_N
    unit = (tl.program_id(2) // N_BLOCKS) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    column = (tl.program_id(2) % N_BLOCKS) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    outside = tl.load(h0 + unit, mask=unit < C, other=0.0)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for s in range(STEPS):
        pixel = (part * STEPS + s) * BLOCK_K + tl.arange(0, BLOCK_K)
        source = pixel % W + tap - 1
        edge = (((pixel // W) % H == 0) | (source < 0) | (source >= W))[None, :]
        cell = pixel.to(tl.int64)
        mask = (pixel < CELLS)[None, :] & (unit < C)
        h = tl.load(hidden + (cell - W + tap - 1)[None, :] * C + unit, mask=mask & ~edge, other=0.0)
        h = tl.where(edge, outside, h)
        da = grad_gates + cell[:, None] * 4 * C + column
        da = tl.load(da, mask=(pixel < CELLS)[:, None] & (column < 4 * C), other=0.0)
        total = tl.dot(h, da, total, input_precision=PRECISION)
    block = partial + ((part * 3 + tap).to(tl.int64) * C + unit) * 4 * C + column
    tl.store(block, total, mask=(unit < C) & (column < 4 * C))
