"""Spectral normalisation and the power method in Triton: every launch is for all layers of the stack at once.

Products with a matrix are read in tiles of rows and columns; vectors keep their length until the next kernel, which
finds it for itself. Sums have one order: no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of

# Rows of a tile, and columns; rows and columns of one where sums are over the rows; values of a vector.
ROWS, COLUMNS, TALL, NARROW, BLOCK = 8, 256, 32, 64, 1024
EPSILON = tl.constexpr(1e-12)


def spectral_norm_forward(weight: Tensor, u: Tensor, v: Tensor, save: bool) -> tuple[Tensor, Tensor]:
    """Returns `y` [L, R, C] and `sigma`, float32 [L], empty unless `save`."""
    layers, rows, columns = weight.shape
    y, sigma = weight.new_empty(weight.shape), weight.new_empty(layers if save else 0, dtype=torch.float32)
    parts = weight.new_empty(layers, triton.cdiv(rows, ROWS), dtype=torch.float32)
    if layers:
        with device_of(weight):
            bilinear_kernel[(parts.numel(),)](
                weight, u, v, parts, rows, columns, ELEMENTWISE=False, ROWS=ROWS, BLOCK=COLUMNS
            )
            spectral_norm_forward_kernel[(triton.cdiv(rows * columns, BLOCK), layers)](
                weight, parts, y, sigma, rows * columns, parts.shape[1], SAVE=save, BLOCK=BLOCK
            )
    return y, sigma


def spectral_norm_backward(
    grad_y: Tensor, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, wanted: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of weight, u and v, each empty unless its bit of `wanted` is set."""
    layers, rows, columns = weight.shape
    gradients = [t.new_empty(t.shape if wanted >> bit & 1 else (0,)) for bit, t in enumerate((weight, u, v))]
    parts = weight.new_empty(layers, triton.cdiv(rows, ROWS), dtype=torch.float32)
    if layers:
        with device_of(weight):
            bilinear_kernel[(parts.numel(),)](
                weight, grad_y, v, parts, rows, columns, ELEMENTWISE=True, ROWS=ROWS, BLOCK=COLUMNS
            )
            if wanted & 1:
                spectral_norm_backward_kernel[(triton.cdiv(rows * columns, BLOCK), layers)](
                    grad_y, u, v, sigma, parts, gradients[0], rows, columns, parts.shape[1], BLOCK=BLOCK
                )
            if wanted & 2:
                _product(weight, v, gradients[1], parts, sigma)
            if wanted & 4:
                _product(weight, u, gradients[2], parts, sigma, transposed=True)
    return tuple(gradients)


def power_iteration(weight: Tensor, u: Tensor, v: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Returns `u` [L, R] and `v` [L, C], float32."""
    if not iterations or not len(weight):
        return tuple(t.to(torch.float32, copy=True) for t in (u, v))
    # Of any length.
    left, right = (t.new_empty(t.shape, dtype=torch.float32) for t in (u, v))
    units = tuple(t.new_empty(t.shape, dtype=torch.float32) for t in (u, v))
    with device_of(weight):
        for step in range(iterations):
            _product(weight, right if step else v, left, unit=step > 0)
            _product(weight, left, right, unit=True, transposed=True)
        unit_kernel[(len(weight), 2)](left, right, *units, *weight.shape[1:], BLOCK=BLOCK)
    return units


def _product(weight, vector, out, parts=None, sigma=None, unit=False, transposed=False):
    """Fills `out` with the products of the matrices, or of their transposes, and the vectors, of length 1 if `unit`;
    with `parts` times the derivative by sigma of what they are the parts of."""
    layers, rows, columns = weight.shape
    kernel, size = (columns_kernel, NARROW) if transposed else (rows_kernel, ROWS)
    tile = {"ROWS": TALL, "BLOCK": NARROW} if transposed else {"ROWS": ROWS, "BLOCK": COLUMNS}
    scaled, blocks = parts is not None, triton.cdiv(out.shape[1], size)
    scale = (parts, sigma) if scaled else (out, out)
    sizes = rows, columns, parts.shape[1] if scaled else 0
    kernel[(layers, blocks)](weight, vector, out, *scale, *sizes, UNIT=unit, SCALED=scaled, **tile)


@triton.jit
def sum_of(values, at, COUNT, SQUARED: tl.constexpr):
    """The sum of COUNT values, or of their squares."""
    n = tl.arange(0, 256)
    total = tl.zeros((256,), tl.float32)
    for start in range(0, COUNT, 256):
        value = tl.load(values + at + start + n, mask=start + n < COUNT, other=0.0).to(tl.float32)
        total += value * value if SQUARED else value
    return tl.sum(total)


@triton.jit
def inverse_length(vector, at, COUNT):
    length = tl.sqrt(sum_of(vector, at, COUNT, True))
    return 1 / tl.where(length < EPSILON, EPSILON, length)


@triton.jit
def of_sigma(parts, sigma, layer, PARTS):
    """The derivative by sigma, from the parts of the sum of the gradient times the weight."""
    value = tl.load(sigma + layer)
    return -sum_of(parts, layer * PARTS, PARTS, False) / (value * value)


@triton.jit
def bilinear_kernel(weight, left, v, parts, R, C, ELEMENTWISE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The part of some rows in u^T W v, u being `left`; or in the sum of the elements of W times those of `left`."""
    blocks = tl.cdiv(R, ROWS)
    layer = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, C, BLOCK):
        c = start + column
        at, inside = (layer * R + row) * C + c, (row < R) & (c < C)
        value = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
        if ELEMENTWISE:
            value *= tl.load(left + at, mask=inside, other=0.0).to(tl.float32)
        else:
            value *= tl.load(v + layer * C + c + row * 0, mask=inside, other=0.0).to(tl.float32)
        total += value
    if not ELEMENTWISE:
        total *= tl.load(left + layer * R + row + column * 0, mask=(row < R) & (column >= 0), other=0.0).to(tl.float32)
    tl.store(parts + tl.program_id(0), tl.sum(total))


@triton.jit
def spectral_norm_forward_kernel(weight, parts, y, sigma, SIZE, PARTS, SAVE: tl.constexpr, BLOCK: tl.constexpr):
    layer = tl.program_id(1).to(tl.int64)
    norm = sum_of(parts, layer * PARTS, PARTS, False)
    if SAVE:
        if tl.program_id(0) == 0:
            tl.store(sigma + layer, norm)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(weight + layer * SIZE + n, mask=n < SIZE, other=0.0).to(tl.float32)
    tl.store(y + layer * SIZE + n, (value / norm).to(y.dtype.element_ty), mask=n < SIZE)


@triton.jit
def spectral_norm_backward_kernel(grad_y, u, v, sigma, parts, grad_weight, R, C, PARTS, BLOCK: tl.constexpr):
    layer = tl.program_id(1).to(tl.int64)
    n, size = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), R * C
    inside = n < size
    outer = tl.load(u + layer * R + n // C, mask=inside, other=0.0).to(tl.float32)
    outer *= tl.load(v + layer * C + n % C, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_y + layer * size + n, mask=inside, other=0.0).to(tl.float32) / tl.load(sigma + layer)
    grad += of_sigma(parts, sigma, layer, PARTS) * outer
    tl.store(grad_weight + layer * size + n, grad.to(grad_weight.dtype.element_ty), mask=inside)


@triton.jit
def rows_kernel(
    weight,
    v,
    out,
    parts,
    sigma,
    R,
    C,
    PARTS,
    UNIT: tl.constexpr,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Some rows of W v."""
    layer = tl.program_id(0).to(tl.int64)
    row, column = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, C, BLOCK):
        c = start + column
        inside = (row < R) & (c < C)
        value = tl.load(weight + (layer * R + row) * C + c, mask=inside, other=0.0).to(tl.float32)
        total += value * tl.load(v + layer * C + c + row * 0, mask=inside, other=0.0).to(tl.float32)
    product = tl.sum(total, 1)
    if UNIT:
        product *= inverse_length(v, layer * C, C)
    if SCALED:
        product *= of_sigma(parts, sigma, layer, PARTS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    tl.store(out + layer * R + row, product.to(out.dtype.element_ty), mask=row < R)


@triton.jit
def columns_kernel(
    weight,
    u,
    out,
    parts,
    sigma,
    R,
    C,
    PARTS,
    UNIT: tl.constexpr,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Some columns of u^T W."""
    layer = tl.program_id(0).to(tl.int64)
    row, column = tl.arange(0, ROWS)[:, None], tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, R, ROWS):
        r = start + row
        inside = (r < R) & (column < C)
        value = tl.load(weight + (layer * R + r) * C + column, mask=inside, other=0.0).to(tl.float32)
        total += value * tl.load(u + layer * R + r + column * 0, mask=inside, other=0.0).to(tl.float32)
    product = tl.sum(total, 0)
    if UNIT:
        product *= inverse_length(u, layer * R, R)
    if SCALED:
        product *= of_sigma(parts, sigma, layer, PARTS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + layer * C + column, product.to(out.dtype.element_ty), mask=column < C)


@triton.jit
def unit_kernel(left, right, u, v, R, C, BLOCK: tl.constexpr):
    layer, n = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    if tl.program_id(1) == 0:
        scale = inverse_length(left, layer * R, R)
        for start in range(0, R, BLOCK):
            value = tl.load(left + layer * R + start + n, mask=start + n < R, other=0.0)
            tl.store(u + layer * R + start + n, value * scale, mask=start + n < R)
    else:
        scale = inverse_length(right, layer * C, C)
        for start in range(0, C, BLOCK):
            value = tl.load(right + layer * C + start + n, mask=start + n < C, other=0.0)
            tl.store(v + layer * C + start + n, value * scale, mask=start + n < C)
