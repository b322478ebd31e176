"""The diagonal LSTM in Triton. One program owns whole images and walks their anti-diagonals, so no program waits
for another; both directions share one grid.

Lane `r` of a program is row `i` of image `b`. At step `t` it is at scan position `j = t - i`, so the side pixel is
what the same lane computed one step before, and the pixel above is what the lane before it computed then.
"""

import torch
import triton
import triton.language as tl

from genfast.kernels._common import PRECISION, Resident, device_of, images_of_program, scan_launch, tanh, weight_launch


def diagonal_lstm_forward(gates, weight, h0, c0, save):
    """Scan; returns `(hidden, saved_gates, saved_cells)`, the saved ones empty unless `save`."""
    batch, height, width, directions, _ = gates.shape
    size = weight.shape[2]
    gates, weight, h0, c0 = (x.contiguous() for x in (gates, weight, h0, c0))
    hidden = gates.new_empty(batch, height, width, directions, size)
    saved_gates = torch.empty_like(gates) if save else gates.new_empty(0)
    saved_cells = gates.new_empty(hidden.shape if save else 0, dtype=torch.float32)
    if hidden.numel() == 0:
        return hidden, saved_gates, saved_cells
    launch = scan_launch(gates.dtype, height, size)
    grid = (triton.cdiv(batch, images_of_program(height, launch.rows)), directions)
    sizes = {"H": height, "W": width, "D": directions, "C": size, "SAVE": save}
    with device_of(gates):
        if isinstance(launch, Resident):
            resident_forward_kernel[grid](
                gates, weight, h0, c0, hidden, saved_gates, saved_cells, batch,
                ROWS=launch.rows, UNITS=launch.units, num_warps=launch.num_warps, **sizes,
            )  # fmt: skip
        else:
            cells = saved_cells if save else gates.new_empty(batch, height, directions, size, dtype=torch.float32)
            streamed_forward_kernel[grid](
                gates, weight, h0, c0, hidden, saved_gates, cells, batch,
                ROWS=launch.rows, BLOCK_N=launch.block_n, BLOCK_K=launch.block_k,
                num_warps=launch.num_warps, num_stages=launch.num_stages, **sizes,
            )  # fmt: skip
    return hidden, saved_gates, saved_cells


def diagonal_lstm_backward(grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0):
    """Returns `(grad_gates, grad_weight, grad_h0, grad_c0)`; no atomics, so the same bits every time."""
    batch, height, width, directions, size = hidden.shape
    tensors = (grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0)
    grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0 = (x.contiguous() for x in tensors)
    grad_gates = torch.empty_like(saved_gates)
    if hidden.numel() == 0:
        return grad_gates, torch.zeros_like(weight), torch.zeros_like(h0), torch.zeros_like(c0)
    launch = scan_launch(hidden.dtype, height, size)
    grid = (triton.cdiv(batch, images_of_program(height, launch.rows)), directions)
    sizes = {"H": height, "W": width, "D": directions, "C": size}
    float_state = {"dtype": torch.float32, "device": hidden.device}
    with device_of(hidden):
        if isinstance(launch, Resident):
            outside = torch.empty(2, batch, height, directions, size, **float_state)
            resident_backward_kernel[grid](
                grad_hidden, saved_gates, saved_cells, weight, c0, grad_gates, outside[0], outside[1], batch,
                ROWS=launch.rows, UNITS=launch.units, num_warps=launch.num_warps, **sizes,
            )  # fmt: skip
        else:
            state = torch.zeros(4, batch, height, directions, size, **float_state)
            streamed_backward_kernel[grid](
                grad_hidden, saved_gates, saved_cells, weight, c0, grad_gates, *state, batch,
                ROWS=launch.rows, BLOCK_N=launch.block_n, BLOCK_K=launch.block_k,
                num_warps=launch.num_warps, num_stages=launch.num_stages, **sizes,
            )  # fmt: skip
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
    weight_gradient_kernel[(parts, directions, blocks)](
        grad_gates, hidden, h0, partial, cells, H=height, W=width, D=directions, C=size,
        BLOCK_M=launch.block_m, BLOCK_N=launch.block_n, BLOCK_K=launch.block_k, STEPS=launch.steps,
        num_warps=launch.num_warps, num_stages=launch.num_stages,
    )  # fmt: skip
    return partial.sum(0).to(hidden.dtype)


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
def resident_forward_kernel(
    gates, weight, h0, c0, hidden, saved_gates, saved_cells, B,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    d = tl.program_id(1)
    lane = tl.arange(0, ROWS)
    unit = tl.arange(0, UNITS)
    known = unit < C
    i, inside, first, step = rows_of_program(lane, B, H, W, D, ROWS)

    tap = weight + d * 2 * C * 4 * C + unit[:, None] * 4 * C + unit[None, :]
    square = known[:, None] & known[None, :]
    above_i, above_f, above_g, above_o = load_gates(tap, square, C)
    side_i, side_f, side_g, side_o = load_gates(tap + C * 4 * C, square, C)

    outside_h = tl.load(h0 + d * C + unit, mask=known, other=0.0)[None, :]
    outside_c = tl.load(c0 + d * C + unit, mask=known, other=0.0)[None, :].to(tl.float32)
    full = tl.zeros((ROWS, UNITS), tl.float32)
    h = (outside_h + full).to(hidden.dtype.element_ty)
    c = outside_c + full
    before = tl.maximum(lane - 1, 0)[:, None] + tl.zeros((ROWS, UNITS), tl.int32)
    top = (i == 0)[:, None]

    mask = (inside & (i == 0))[:, None] & known[None, :]
    next_i, next_f, next_g, next_o = load_gates(gates + first[:, None] * 4 * C + unit[None, :], mask, C)
    for t in range(H + W - 1):
        j = t - i
        valid = (inside & (j >= 0) & (j < W))[:, None]
        cell = first + j * step
        a_i, a_f, a_g, a_o = next_i, next_f, next_g, next_o
        mask = (inside & (j >= -1) & (j < W - 1))[:, None] & known[None, :]
        next_i, next_f, next_g, next_o = load_gates(
            gates + (cell + step)[:, None] * 4 * C + unit[None, :], mask, C
        )
        above = tl.where(top, outside_h, tl.gather(h, before, 0))
        a_i = tl.dot(above, above_i, a_i.to(tl.float32), input_precision=PRECISION)
        a_f = tl.dot(above, above_f, a_f.to(tl.float32), input_precision=PRECISION)
        a_g = tl.dot(above, above_g, a_g.to(tl.float32), input_precision=PRECISION)
        a_o = tl.dot(above, above_o, a_o.to(tl.float32), input_precision=PRECISION)
        a_i = tl.sigmoid(tl.dot(h, side_i, a_i, input_precision=PRECISION))
        a_f = tl.sigmoid(tl.dot(h, side_f, a_f, input_precision=PRECISION))
        a_g = tanh(tl.dot(h, side_g, a_g, input_precision=PRECISION))
        a_o = tl.sigmoid(tl.dot(h, side_o, a_o, input_precision=PRECISION))
        c = tl.where(valid, a_f * c + a_i * a_g, c)
        h = tl.where(valid, (a_o * tanh(c)).to(h.dtype), h)

        mask = valid & known[None, :]
        tl.store(hidden + cell[:, None] * C + unit[None, :], h, mask=mask)
        if SAVE:
            tl.store(saved_cells + cell[:, None] * C + unit[None, :], c, mask=mask)
            store_gates(saved_gates + cell[:, None] * 4 * C + unit[None, :], a_i, a_f, a_g, a_o, mask, C)


@triton.jit
def streamed_forward_kernel(
    gates, weight, h0, c0, hidden, saved_gates, cells, B,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """`cells` is [B, H, W, D, C] if SAVE, else [B, H, D, C] overwritten step by step."""
    d = tl.program_id(1)
    dtype = hidden.dtype.element_ty
    K_BLOCKS: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
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
                a_i, a_f, a_g, a_o = load_gates(gates + cell[:, None] * 4 * C + unit[None, :], mask, C)
                a_i, a_f, a_g, a_o = a_i.to(tl.float32), a_f.to(tl.float32), a_g.to(tl.float32), a_o.to(tl.float32)
                for block in range(2 * K_BLOCKS):
                    tap = block // K_BLOCKS
                    k = (block % K_BLOCKS) * BLOCK_K + tl.arange(0, BLOCK_K)
                    edge = tl.where(tap == 0, i, j)[:, None] == 0
                    source = cell - tl.where(tap == 0, W * D, step)
                    h = tl.load(
                        hidden + source[:, None] * C + k[None, :], mask=valid & ~edge & (k < C)[None, :], other=0.0
                    )
                    outside = tl.load(h0 + d * C + k, mask=k < C, other=0.0)
                    h = tl.where(edge, outside[None, :], h)
                    w = weight + ((d * 2 + tap) * C + k)[:, None] * 4 * C + unit[None, :]
                    w_i, w_f, w_g, w_o = load_gates(w, (k < C)[:, None] & known[None, :], C)
                    a_i = tl.dot(h, w_i, a_i, input_precision=PRECISION)
                    a_f = tl.dot(h, w_f, a_f, input_precision=PRECISION)
                    a_g = tl.dot(h, w_g, a_g, input_precision=PRECISION)
                    a_o = tl.dot(h, w_o, a_o, input_precision=PRECISION)
                a_i, a_f, a_g, a_o = tl.sigmoid(a_i), tl.sigmoid(a_f), tanh(a_g), tl.sigmoid(a_o)
                outside_c = tl.load(c0 + d * C + unit, mask=known, other=0.0).to(tl.float32)
                c = tl.load(
                    cells + (memory - older)[:, None] * C + unit[None, :], mask=mask & (j > 0)[:, None], other=0.0
                )
                c = a_f * tl.where((j > 0)[:, None], c, outside_c[None, :]) + a_i * a_g
                tl.store(cells + memory[:, None] * C + unit[None, :], c, mask=mask)
                tl.store(hidden + cell[:, None] * C + unit[None, :], (a_o * tanh(c)).to(dtype), mask=mask)
                if SAVE:
                    store_gates(saved_gates + cell[:, None] * 4 * C + unit[None, :], a_i, a_f, a_g, a_o, mask, C)
        # Other threads of this program read the new states in the next step.
        tl.debug_barrier()


@triton.jit
def cell_gradient(dh, dc, i, f, g, o, c, previous_c):
    """Back through one cell: the four pre-activation gradients and what flows on to the side cell's memory."""
    y = tanh(c)
    dc += dh * o * (1 - y * y)
    return dc * g * i * (1 - i), dc * previous_c * f * (1 - f), dc * i * (1 - g * g), dh * y * o * (1 - o), dc * f


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
    i, inside, first, step = rows_of_program(lane, B, H, W, D, ROWS)

    tap = weight + d * 2 * C * 4 * C + unit[None, :] * 4 * C + unit[:, None]
    square = known[:, None] & known[None, :]
    above_i, above_f, above_g, above_o = load_gates(tap, square, C)
    side_i, side_f, side_g, side_o = load_gates(tap + C * 4 * C, square, C)

    first_c = tl.load(c0 + d * C + unit, mask=known, other=0.0)[None, :].to(tl.float32)
    dh = tl.zeros((ROWS, UNITS), tl.float32)
    dc = tl.zeros((ROWS, UNITS), tl.float32)
    dh0 = tl.zeros((ROWS, UNITS), tl.float32)
    below = tl.minimum(lane + 1, ROWS - 1)[:, None] + tl.zeros((ROWS, UNITS), tl.int32)
    top = (i == 0)[:, None]
    bottom = (i == H - 1)[:, None]

    cell = first + (H + W - 2 - i) * step
    mask = (inside & (i == H - 1))[:, None] & known[None, :]
    c = tl.load(saved_cells + cell[:, None] * C + unit[None, :], mask=mask, other=0.0)
    next_gh = tl.load(grad_hidden + cell[:, None] * C + unit[None, :], mask=mask, other=0.0)
    next_i, next_f, next_g, next_o = load_gates(saved_gates + cell[:, None] * 4 * C + unit[None, :], mask, C)
    for back in range(H + W - 1):
        j = H + W - 2 - back - i
        valid = (inside & (j >= 0) & (j < W))[:, None]
        cell = first + j * step
        s_i, s_f, s_g, s_o = next_i.to(tl.float32), next_f.to(tl.float32), next_g.to(tl.float32), next_o.to(tl.float32)
        gh = next_gh.to(tl.float32)
        mask = (inside & (j >= 1) & (j <= W))[:, None] & known[None, :]
        older = (cell - step)[:, None]
        previous_c = tl.load(saved_cells + older * C + unit[None, :], mask=mask, other=0.0)
        next_gh = tl.load(grad_hidden + older * C + unit[None, :], mask=mask, other=0.0)
        next_i, next_f, next_g, next_o = load_gates(saved_gates + older * 4 * C + unit[None, :], mask, C)

        side = tl.where((j == 0)[:, None], first_c, previous_c)
        d_i, d_f, d_g, d_o, flow = cell_gradient(gh + dh, dc, s_i, s_f, s_g, s_o, c, side)
        dc = tl.where(valid, flow, dc)
        d_i, d_f = tl.where(valid, d_i, 0.0).to(dtype), tl.where(valid, d_f, 0.0).to(dtype)
        d_g, d_o = tl.where(valid, d_g, 0.0).to(dtype), tl.where(valid, d_o, 0.0).to(dtype)
        mask = valid & known[None, :]
        store_gates(grad_gates + cell[:, None] * 4 * C + unit[None, :], d_i, d_f, d_g, d_o, mask, C)

        up = tl.dot(d_i, above_i, input_precision=PRECISION)
        up = tl.dot(d_f, above_f, up, input_precision=PRECISION)
        up = tl.dot(d_g, above_g, up, input_precision=PRECISION)
        up = tl.dot(d_o, above_o, up, input_precision=PRECISION)
        aside = tl.dot(d_i, side_i, input_precision=PRECISION)
        aside = tl.dot(d_f, side_f, aside, input_precision=PRECISION)
        aside = tl.dot(d_g, side_g, aside, input_precision=PRECISION)
        aside = tl.dot(d_o, side_o, aside, input_precision=PRECISION)
        dh0 += tl.where(top, up, 0.0) + tl.where((j == 0)[:, None], aside, 0.0)
        dh = tl.where(bottom, 0.0, tl.gather(up, below, 0)) + aside
        c = previous_c
    share = (first // (W * D)) * D + d
    mask = inside[:, None] & known[None, :]
    tl.store(outside_h + share[:, None] * C + unit[None, :], dh0, mask=mask)
    tl.store(outside_c + share[:, None] * C + unit[None, :], dc, mask=mask)


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
                d_i, d_f, d_g, d_o, flow = cell_gradient(dh, dc, s_i, s_f, s_g, s_o, c, previous_c)
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
                tl.store(outside_h + row * C + unit[None, :], dh0, mask=leaves)
        tl.debug_barrier()


@triton.jit
def weight_gradient_kernel(
    grad_gates, hidden, h0, partial, CELLS,
    H: tl.constexpr, W: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
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
