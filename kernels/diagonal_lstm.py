"""The diagonal LSTM in Triton. One program owns whole images and walks their anti-diagonals, so no program waits
for another; both directions share one grid.

Lane `r` of a program is row `i` of image `b`. At step `t` it is at scan position `j = t - i`, so the side pixel is
what the same lane computed one step before, and the pixel above is what the lane before it computed then.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import (
    PRECISION,
    Resident,
    device_of,
    images_of_program,
    scan_launch,
    shared_memory,
    tanh,
    weight_launch,
)
from genfast.kernels._lstm_cell import activate, cell_gradient, load_gates, neighbour, store_gates


def diagonal_lstm_forward(
    gates: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan; returns `(hidden, saved_gates, saved_cells)`, the saved ones empty unless `save`."""
    batch, height, width, directions, _ = gates.shape
    size = weight.shape[2]
    gates, weight, h0, c0 = (x.contiguous() for x in (gates, weight, h0, c0))
    hidden = gates.new_empty(batch, height, width, directions, size)
    saved_gates = torch.empty_like(gates) if save else gates.new_empty(0)
    saved_cells = gates.new_empty(hidden.shape if save else 0, dtype=torch.float32)
    if hidden.numel() == 0:
        return hidden, saved_gates, saved_cells
    launch = scan_launch(gates.dtype, height, size, False, shared_memory(gates))
    grid = (triton.cdiv(batch, images_of_program(height, launch.rows)), directions)
    sizes = {"H": height, "W": width, "D": directions, "C": size, "SAVE": save}
    with device_of(gates):
        if isinstance(launch, Resident):
            resident_forward_kernel[grid](
                gates, weight, h0, c0, hidden, saved_gates, saved_cells, batch, **sizes, **launch.options
            )
        else:
            cells = saved_cells if save else gates.new_empty(batch, height, directions, size, dtype=torch.float32)
            sizes["KEEP_SIDE"] = launch.keep_side
            streamed_forward_kernel[grid](
                gates, weight, h0, c0, hidden, saved_gates, cells, batch, **sizes, **launch.options
            )
    return hidden, saved_gates, saved_cells


def diagonal_lstm_backward(
    grad_hidden: Tensor,
    hidden: Tensor,
    saved_gates: Tensor,
    saved_cells: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns `(grad_gates, grad_weight, grad_h0, grad_c0)`; no atomics, so the same bits every time."""
    batch, height, width, directions, size = hidden.shape
    tensors = (grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0)
    grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0 = (x.contiguous() for x in tensors)
    grad_gates = torch.empty_like(saved_gates)
    if hidden.numel() == 0:
        return grad_gates, torch.zeros_like(weight), torch.zeros_like(h0), torch.zeros_like(c0)
    launch = scan_launch(hidden.dtype, height, size, True)
    grid = (triton.cdiv(batch, images_of_program(height, launch.rows)), directions)
    sizes = {"H": height, "W": width, "D": directions, "C": size}
    float_state = {"dtype": torch.float32, "device": hidden.device}
    given = grad_hidden, saved_gates, saved_cells, weight, c0, grad_gates
    with device_of(hidden):
        if isinstance(launch, Resident):
            outside = torch.empty(2, batch, height, directions, size, **float_state)
            resident_backward_kernel[grid](*given, outside[0], outside[1], batch, **sizes, **launch.options)
        else:
            state = torch.zeros(4, batch, height, directions, size, **float_state)
            streamed_backward_kernel[grid](*given, *state, batch, **sizes, **launch.options)
            outside = state[2:]
        grad_weight = _weight_gradient(grad_gates, hidden, h0)
        grad_h0, grad_c0 = outside.sum((1, 2)).to(h0.dtype).unbind()
    return grad_gates, grad_weight, grad_h0, grad_c0


def _weight_gradient(grad_gates, hidden, h0):
    batch, height, width, directions, size = hidden.shape
    cells = batch * height * width
    launch = weight_launch(hidden.dtype, size, directions, cells)
    parts = triton.cdiv(cells, launch.steps * launch.block_k)
    blocks = triton.cdiv(size, launch.block_m) * triton.cdiv(4 * size, launch.block_n)
    partial = hidden.new_empty(parts, directions, 2, size, 4 * size, dtype=torch.float32)
    sizes = {"H": height, "W": width, "D": directions, "C": size}
    weight_gradient_kernel[(parts, directions, blocks)](
        grad_gates, hidden, h0, partial, cells, **sizes, **launch.options
    )
    return partial.sum(0).to(hidden.dtype)


@triton.jit
def rows_of_program(lane, B, H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr):
    """Row `i` of each lane, whether there is one, its first cell in scan order and the step to the next column."""
    images: tl.constexpr = images_of_program(H, ROWS)
    image = tl.program_id(0) * images + lane // H
    i = lane % H
    d = tl.program_id(1)
    inside = (lane < images * H) & (image < B)
    row = image.to(tl.int64) * H + i
    start = tl.where(d == 0, 0, W - 1)
    step = tl.where(d == 0, D, -D)
    return i, inside, (row * W + start) * D + d, step


@triton.jit
def gate_columns(C: tl.constexpr, UNITS: tl.constexpr):
    """Offsets of the four gates of all units in a row of 4C, and which of them exist: in memory's order (i.., f..,
    g.., o..), and paired (i f, i f, .., g o, g o, ..), where one thread of a product's tile holds all gates of a unit,
    so that splitting them moves nothing: 451 instructions and 14 barriers a step at C=16, not 776 and 22."""
    n = tl.arange(0, 4 * UNITS)
    paired = (n // (2 * UNITS) * 2 + n % 2) * C + n // 2 % UNITS
    return n // UNITS * C + n % UNITS, n % UNITS < C, paired, n // 2 % UNITS < C


@triton.jit
def pair_gates(x, ROWS: tl.constexpr, UNITS: tl.constexpr):
    x = tl.permute(tl.reshape(x, (ROWS, 2, 2, UNITS)), (0, 1, 3, 2))
    return tl.reshape(x, (ROWS, 4 * UNITS))


@triton.jit
def split_gates(x, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Paired [ROWS, 4 UNITS] -> i, f, g, o."""
    ig, fo = tl.split(tl.permute(tl.reshape(x, (ROWS, 2, UNITS, 2)), (0, 2, 1, 3)))
    i, g = tl.split(ig)
    f, o = tl.split(fo)
    return i, f, g, o


@triton.jit
def join_gates(i, f, g, o):
    """i, f, g, o -> [ROWS, UNITS, 2, 2], its last two the gate's number in binary."""
    return tl.join(tl.join(i, g), tl.join(f, o))


@triton.jit
def resident_forward_kernel(
    gates,
    weight,
    h0,
    c0,
    hidden,
    saved_gates,
    saved_cells,
    B,
    H: tl.constexpr,
    W: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    SAVE: tl.constexpr,
):
    d = tl.program_id(1)
    dtype = hidden.dtype.element_ty
    lane = tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    known = unit < C
    column, real, paired, paired_real = gate_columns(C, UNITS)
    i, inside, first, step = rows_of_program(lane, B, H, W, D, ROWS)

    tap = weight + d * 2 * C * 4 * C + unit[:, None] * 4 * C + paired[None, :]
    above_weight = tl.load(tap, mask=known[:, None] & paired_real[None, :], other=0.0)
    side_weight = tl.load(tap + C * 4 * C, mask=known[:, None] & paired_real[None, :], other=0.0)

    outside_h = tl.load(h0 + d * C + unit, mask=known, other=0.0)[None, :]
    outside_c = tl.load(c0 + d * C + unit, mask=known, other=0.0)[None, :].to(tl.float32)
    c = outside_c + tl.zeros((ROWS, UNITS), tl.float32)
    h = (outside_h + tl.zeros((ROWS, UNITS), tl.float32)).to(dtype)
    before = tl.maximum(lane - 1, 0)[:, None] + tl.zeros((ROWS, UNITS), tl.int32)
    top = (i == 0)[:, None]

    ready = (inside & (i == 0))[:, None] & real[None, :]
    ahead = tl.load(gates + first[:, None] * 4 * C + column[None, :], mask=ready, other=0.0)
    for t in range(H + W - 1):
        j = t - i
        valid = (inside & (j >= 0) & (j < W))[:, None]
        cell = first + j * step
        a = pair_gates(ahead, ROWS, UNITS).to(tl.float32)
        ready = (inside & (j >= -1) & (j < W - 1))[:, None] & real[None, :]
        ahead = tl.load(gates + (cell + step)[:, None] * 4 * C + column[None, :], mask=ready, other=0.0)

        above = tl.where(top, outside_h, tl.gather(h, before, 0))
        a = tl.dot(h, side_weight, a, input_precision=PRECISION)
        a = tl.dot(above, above_weight, a, input_precision=PRECISION)
        a_i, a_f, a_g, a_o = split_gates(a, ROWS, UNITS)
        a_i, a_f, a_g, a_o = activate(a_i, a_f, a_g, a_o, dtype)
        c = tl.where(valid, a_f * c + a_i * a_g, c)
        h = tl.where(valid, (a_o * tanh(c, dtype == tl.bfloat16)).to(dtype), h)

        place = cell[:, None] * C + unit[None, :]
        tl.store(hidden + place, h, mask=valid & known[None, :])
        if SAVE:
            tl.store(saved_cells + place, c, mask=valid & known[None, :])
            saved = join_gates(a_i.to(dtype), a_f.to(dtype), a_g.to(dtype), a_o.to(dtype))
            saved = tl.reshape(tl.permute(saved, (0, 2, 3, 1)), (ROWS, 4 * UNITS))
            tl.store(saved_gates + cell[:, None] * 4 * C + column[None, :], saved, mask=valid & real[None, :])


@triton.jit
def streamed_forward_kernel(
    gates, weight, h0, c0, hidden, saved_gates, cells, B,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, KEEP_SIDE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """`cells` is [B, H, W, D, C] if SAVE, else [B, H, D, C] overwritten step by step. With KEEP_SIDE, for C up to
    BLOCK_N, the side tap stays in shared memory, which halves what each step reads from L2."""
    d = tl.program_id(1)
    dtype = hidden.dtype.element_ty
    K_BLOCKS: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    BLOCKS: tl.constexpr = K_BLOCKS if KEEP_SIDE else 2 * K_BLOCKS
    if KEEP_SIDE:
        all_units = tl.arange(0, BLOCK_N)
        kept = weight + (d * 2 + 1) * C * 4 * C + all_units[:, None] * 4 * C + all_units[None, :]
        side_i, side_f, side_g, side_o = load_gates(kept, (all_units < C)[:, None] & (all_units < C)[None, :], C)
    for t in range(H + W - 1):
        for m in range(0, images_of_program(H, ROWS) * H, ROWS):
            lane = m + tl.arange(0, ROWS)
            i, inside, first, step = rows_of_program(lane, B, H, W, D, ROWS)
            j = t - i
            valid = (inside & (j >= 0) & (j < W))[:, None]
            cell = first + j * step
            if SAVE:
                memory, older = cell, step
            else:
                memory, older = (first // (W * D)) * D + d, 0
            for n in range(0, C, BLOCK_N):
                unit = n + tl.arange(0, BLOCK_N)
                known = unit < C
                mask = valid & known[None, :]
                x_i, x_f, x_g, x_o = load_gates(gates + cell[:, None] * 4 * C + unit[None, :], mask, C)
                c = tl.load(
                    cells + (memory - older)[:, None] * C + unit[None, :], mask=mask & (j > 0)[:, None], other=0.0
                )
                outside_c = tl.load(c0 + d * C + unit, mask=known, other=0.0).to(tl.float32)
                a_i = tl.zeros((ROWS, BLOCK_N), tl.float32)
                a_f = tl.zeros((ROWS, BLOCK_N), tl.float32)
                a_g = tl.zeros((ROWS, BLOCK_N), tl.float32)
                a_o = tl.zeros((ROWS, BLOCK_N), tl.float32)
                if KEEP_SIDE:
                    beside = neighbour(hidden, h0 + d * C, cell - step, all_units, valid, (j == 0)[:, None], C)
                    a_i = tl.dot(beside, side_i, input_precision=PRECISION)
                    a_f = tl.dot(beside, side_f, input_precision=PRECISION)
                    a_g = tl.dot(beside, side_g, input_precision=PRECISION)
                    a_o = tl.dot(beside, side_o, input_precision=PRECISION)
                for block in range(BLOCKS):
                    tap = block // K_BLOCKS
                    k = (block % K_BLOCKS) * BLOCK_K + tl.arange(0, BLOCK_K)
                    edge = tl.where(tap == 0, i, j)[:, None] == 0
                    source = cell - tl.where(tap == 0, W * D, step)
                    from_h = neighbour(hidden, h0 + d * C, source, k, valid, edge, C)
                    w = weight + ((d * 2 + tap) * C + k)[:, None] * 4 * C + unit[None, :]
                    w_i, w_f, w_g, w_o = load_gates(w, (k < C)[:, None] & known[None, :], C)
                    a_i = tl.dot(from_h, w_i, a_i, input_precision=PRECISION)
                    a_f = tl.dot(from_h, w_f, a_f, input_precision=PRECISION)
                    a_g = tl.dot(from_h, w_g, a_g, input_precision=PRECISION)
                    a_o = tl.dot(from_h, w_o, a_o, input_precision=PRECISION)
                a_i, a_f, a_g, a_o = activate(a_i + x_i, a_f + x_f, a_g + x_g, a_o + x_o, dtype)
                c = a_f * tl.where((j > 0)[:, None], c, outside_c[None, :]) + a_i * a_g
                tl.store(cells + memory[:, None] * C + unit[None, :], c, mask=mask)
                h = (a_o * tanh(c, dtype == tl.bfloat16)).to(dtype)
                tl.store(hidden + cell[:, None] * C + unit[None, :], h, mask=mask)
                if SAVE:
                    store_gates(saved_gates + cell[:, None] * 4 * C + unit[None, :], a_i, a_f, a_g, a_o, mask, C)
        # Other threads of this program read the new states in the next step.
        tl.debug_barrier()


@triton.jit
def resident_backward_kernel(
    grad_hidden, saved_gates, saved_cells, weight, c0, grad_gates, outside_h, outside_c, B,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """`outside_h` and `outside_c` [B, H, D, C] receive each row's share of the gradients of h0 and c0."""
    d = tl.program_id(1)
    dtype = grad_gates.dtype.element_ty
    lane = tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    known = unit < C
    column, real, paired, paired_real = gate_columns(C, UNITS)
    i, inside, first, step = rows_of_program(lane, B, H, W, D, ROWS)

    taps = tl.arange(0, 2 * UNITS)
    square = paired_real[:, None] & (taps // 2 < C)[None, :]
    both = ((d * 2 + taps % 2) * C + taps // 2)[None, :] * 4 * C + paired[:, None]
    both_weights = tl.load(weight + both, mask=square, other=0.0)

    first_c = tl.load(c0 + d * C + unit, mask=known, other=0.0)[None, :].to(tl.float32)
    dh = tl.zeros((ROWS, UNITS), tl.float32)
    dc = tl.zeros((ROWS, UNITS), tl.float32)
    dh0 = tl.zeros((ROWS, UNITS), tl.float32)
    below = tl.minimum(lane + 1, ROWS - 1)[:, None] + tl.zeros((ROWS, UNITS), tl.int32)

    j = H + W - 2 - i
    cell = (first + j * step)[:, None]
    ready = (inside & (j < W))[:, None]
    c = tl.load(saved_cells + cell * C + unit[None, :], mask=ready & known[None, :], other=0.0)
    ahead = tl.load(grad_hidden + cell * C + unit[None, :], mask=ready & known[None, :], other=0.0)
    ahead_gates = tl.load(saved_gates + cell * 4 * C + column[None, :], mask=ready & real[None, :], other=0.0)
    older = (inside & (j >= 1) & (j <= W))[:, None] & known[None, :]
    ahead_c = tl.load(saved_cells + (cell - step) * C + unit[None, :], mask=older, other=0.0)
    for back in range(H + W - 1):
        j = H + W - 2 - back - i
        valid = (inside & (j >= 0) & (j < W))[:, None]
        cell = (first + j * step)[:, None]
        dh += ahead.to(tl.float32)
        start = (j == 0)[:, None]
        side_c = tl.where(start, first_c, ahead_c)
        s_i, s_f, s_g, s_o = split_gates(pair_gates(ahead_gates, ROWS, UNITS).to(tl.float32), ROWS, UNITS)
        ready = (inside & (j >= 1) & (j <= W))[:, None]
        place = (cell - step) * C + unit[None, :]
        ahead = tl.load(grad_hidden + place, mask=ready & known[None, :], other=0.0)
        wide = (cell - step) * 4 * C + column[None, :]
        ahead_gates = tl.load(saved_gates + wide, mask=ready & real[None, :], other=0.0)
        older = (inside & (j >= 2) & (j <= W + 1))[:, None] & known[None, :]
        ahead_c = tl.load(saved_cells + place - step * C, mask=older, other=0.0)

        d_i, d_f, d_g, d_o, flow = cell_gradient(dh, dc, s_i, s_f, s_g, s_o, c, side_c, dtype)
        dc = tl.where(valid, flow, dc)
        d_i, d_f = tl.where(valid, d_i, 0.0).to(dtype), tl.where(valid, d_f, 0.0).to(dtype)
        d_g, d_o = tl.where(valid, d_g, 0.0).to(dtype), tl.where(valid, d_o, 0.0).to(dtype)
        da = join_gates(d_i, d_f, d_g, d_o)
        stored = tl.reshape(tl.permute(da, (0, 2, 3, 1)), (ROWS, 4 * UNITS))
        tl.store(grad_gates + cell * 4 * C + column[None, :], stored, mask=valid & real[None, :])

        da = tl.reshape(tl.permute(da, (0, 2, 1, 3)), (ROWS, 4 * UNITS))
        sent = tl.dot(da, both_weights, input_precision=PRECISION)
        up, aside = tl.split(tl.reshape(sent, (ROWS, UNITS, 2)))
        dh0 += tl.where((i == 0)[:, None], up, 0.0) + tl.where(start, aside, 0.0)
        dh = tl.where((i == H - 1)[:, None], 0.0, tl.gather(up, below, 0)) + aside
        c = side_c
    share = ((first // (W * D)) * D + d)[:, None] * C + unit[None, :]
    tl.store(outside_h + share, dh0, mask=inside[:, None] & known[None, :])
    tl.store(outside_c + share, dc, mask=inside[:, None] & known[None, :])


@triton.jit
def streamed_backward_kernel(
    grad_hidden, saved_gates, saved_cells, weight, c0, grad_gates, up, aside, outside_h, outside_c, B,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The states [B, H, D, C] start as zeros. `up` and `aside` carry what a cell of the last diagonal sends to the
    cell above and to the side cell; `outside_c` carries the memory's gradient and ends as the share of c0's."""
    d = tl.program_id(1)
    dtype = grad_gates.dtype.element_ty
    for back in range(H + W - 1):
        for m in range(0, images_of_program(H, ROWS) * H, ROWS):
            i, inside, first, step = rows_of_program(m + tl.arange(0, ROWS), B, H, W, D, ROWS)
            j = H + W - 2 - back - i
            valid = (inside & (j >= 0) & (j < W))[:, None]
            cell = (first + j * step)[:, None]
            row = ((first // (W * D)) * D + d)[:, None]
            for n in range(0, C, BLOCK_N):
                unit = n + tl.arange(0, BLOCK_N)
                mask = valid & (unit < C)[None, :]
                dh = tl.load(grad_hidden + cell * C + unit[None, :], mask=mask, other=0.0).to(tl.float32)
                below = mask & (i < H - 1)[:, None]
                dh += tl.load(up + (row + D) * C + unit[None, :], mask=below, other=0.0)
                dh += tl.load(aside + row * C + unit[None, :], mask=mask, other=0.0)
                dc = tl.load(outside_c + row * C + unit[None, :], mask=mask, other=0.0)
                c = tl.load(saved_cells + cell * C + unit[None, :], mask=mask, other=0.0)
                side = (cell - step) * C + unit[None, :]
                previous_c = tl.load(saved_cells + side, mask=mask & (j > 0)[:, None], other=0.0)
                first_c = tl.load(c0 + d * C + unit, mask=unit < C, other=0.0).to(tl.float32)
                previous_c = tl.where((j == 0)[:, None], first_c[None, :], previous_c)
                s_i, s_f, s_g, s_o = load_gates(saved_gates + cell * 4 * C + unit[None, :], mask, C)
                s_i, s_f, s_g, s_o = s_i.to(tl.float32), s_f.to(tl.float32), s_g.to(tl.float32), s_o.to(tl.float32)
                d_i, d_f, d_g, d_o, flow = cell_gradient(dh, dc, s_i, s_f, s_g, s_o, c, previous_c, dtype)
                # The thread that stores an element need not be the one that loaded it.
                tl.debug_barrier()
                tl.store(outside_c + row * C + unit[None, :], flow, mask=mask)
                store_gates(grad_gates + cell * 4 * C + unit[None, :], d_i, d_f, d_g, d_o, mask, C)
        # Every thread has read the last diagonal's states and written this one's gate gradients.
        tl.debug_barrier()
        for m in range(0, images_of_program(H, ROWS) * H, ROWS):
            i, inside, first, step = rows_of_program(m + tl.arange(0, ROWS), B, H, W, D, ROWS)
            j = H + W - 2 - back - i
            valid = (inside & (j >= 0) & (j < W))[:, None]
            cell = (first + j * step)[:, None]
            row = ((first // (W * D)) * D + d)[:, None]
            for n in range(0, C, BLOCK_N):
                unit = n + tl.arange(0, BLOCK_N)
                known = (unit < C)[:, None]
                sent_up = tl.zeros((ROWS, BLOCK_N), tl.float32)
                sent_aside = tl.zeros((ROWS, BLOCK_N), tl.float32)
                for k in range(0, 4 * C, BLOCK_K):
                    column = (k + tl.arange(0, BLOCK_K))[None, :]
                    da = tl.load(grad_gates + cell * 4 * C + column, mask=valid & (column < 4 * C), other=0.0)
                    w = weight + (d * 2 * C + unit)[:, None] * 4 * C + column
                    w_above = tl.load(w, mask=known & (column < 4 * C), other=0.0)
                    w_side = tl.load(w + C * 4 * C, mask=known & (column < 4 * C), other=0.0)
                    sent_up = tl.dot(da, tl.trans(w_above), sent_up, input_precision=PRECISION)
                    sent_aside = tl.dot(da, tl.trans(w_side), sent_aside, input_precision=PRECISION)
                mask = inside[:, None] & (unit < C)[None, :]
                tl.store(up + row * C + unit[None, :], sent_up, mask=mask)
                tl.store(aside + row * C + unit[None, :], sent_aside, mask=mask)
                top, start = (i == 0)[:, None], (j == 0)[:, None]
                leaves = mask & (top | start)
                dh0 = tl.load(outside_h + row * C + unit[None, :], mask=leaves, other=0.0)
                dh0 += tl.where(top, sent_up, 0.0) + tl.where(start, sent_aside, 0.0)
                tl.debug_barrier()
                tl.store(outside_h + row * C + unit[None, :], dh0, mask=leaves)
        tl.debug_barrier()


@triton.jit
def weight_gradient_kernel(
    grad_gates,
    hidden,
    h0,
    partial,
    CELLS,
    H: tl.constexpr,
    W: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Both taps' products over one part of the cells, into `partial` [parts, D, 2, C, 4C]."""
    part = tl.program_id(0)
    d = tl.program_id(1)
    N_BLOCKS: tl.constexpr = (4 * C + BLOCK_N - 1) // BLOCK_N
    unit = (tl.program_id(2) // N_BLOCKS) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    column = (tl.program_id(2) % N_BLOCKS) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    outside = tl.load(h0 + d * C + unit, mask=unit < C, other=0.0)
    back = tl.where(d == 0, -1, 1)
    border = tl.where(d == 0, 0, W - 1)
    above = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    side = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for s in range(STEPS):
        pixel = (part * STEPS + s) * BLOCK_K + tl.arange(0, BLOCK_K)
        cell = pixel.to(tl.int64)[None, :]
        mask = (pixel < CELLS)[None, :] & (unit < C)
        top = ((pixel // W) % H == 0)[None, :]
        start = (pixel % W == border)[None, :]
        h_above = tl.load(hidden + ((cell - W) * D + d) * C + unit, mask=mask & ~top, other=0.0)
        h_above = tl.where(top, outside, h_above)
        h_side = tl.load(hidden + ((cell + back) * D + d) * C + unit, mask=mask & ~start, other=0.0)
        h_side = tl.where(start, outside, h_side)
        target = (pixel.to(tl.int64)[:, None] * D + d) * 4 * C + column
        da = tl.load(grad_gates + target, mask=(pixel < CELLS)[:, None] & (column < 4 * C), other=0.0)
        above = tl.dot(h_above, da, above, input_precision=PRECISION)
        side = tl.dot(h_side, da, side, input_precision=PRECISION)
    block = partial + ((part * D + d).to(tl.int64) * 2 * C + unit) * 4 * C + column
    mask = (unit < C) & (column < 4 * C)
    tl.store(block, above, mask=mask)
    tl.store(block + C * 4 * C, side, mask=mask)
