"""The aggregate posterior in Triton: tiles of points, Gaussians and latents, [I, J, L], on chip and nowhere else.

Forward is one launch: each program takes a few points past all Gaussians, for a block of latents or for all of them
together. Backward is two: points past all Gaussians, and Gaussians past all points. No atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of
from genfast.kernels._gaussian import LOG_TWO_PI, clamped

# What a program owns; and the values of a tile for each of them, forward and backward, where more would spill.
OWN, FORWARD, BACKWARD = 2, 2048, 1024


def aggregate_posterior_forward(z: Tensor, mean: Tensor, log_variance: Tensor, save: bool) -> tuple[Tensor, Tensor]:
    """Returns `joint` [N] and `marginals` [N, Z], both float32."""
    (count, size), others = z.shape, len(mean)
    joint, marginals = z.new_empty(count, dtype=torch.float32), z.new_empty(z.shape, dtype=torch.float32)
    if count:
        block = _block(size)
        grid = triton.cdiv(count, OWN), triton.cdiv(size, block) + 1
        blocks = {"BLOCK_I": OWN, "BLOCK_J": FORWARD // block, "BLOCK_Z": block}
        with device_of(z):
            aggregate_posterior_forward_kernel[grid](
                z, mean, log_variance, joint, marginals, count, others, size, **blocks
            )
    return joint, marginals


def aggregate_posterior_backward(
    grad_joint: Tensor,
    grad_marginals: Tensor,
    z: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    joint: Tensor,
    marginals: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of z, mean and log_variance; an empty incoming gradient counts as zero."""
    (count, size), others = z.shape, len(mean)
    grad_z, grad_mean, grad_log_variance = (tensor.new_empty(tensor.shape) for tensor in (z, mean, log_variance))
    if size:
        block = _block(size)
        blocks = triton.cdiv(size, block)
        given, sizes = (grad_joint, grad_marginals, z, mean, log_variance, joint, marginals), (count, others, size)
        kinds = {"OF_JOINT": grad_joint.numel() > 0, "OF_MARGINALS": grad_marginals.numel() > 0}
        kinds |= {"WHOLE": size <= block, "BLOCK_Z": block}
        with device_of(z):
            if count:
                of_points_kernel[(triton.cdiv(count, OWN), blocks)](
                    *given, grad_z, *sizes, BLOCK_I=OWN, BLOCK_J=BACKWARD // block, **kinds
                )
            of_gaussians_kernel[(triton.cdiv(others, OWN), blocks)](
                *given, grad_mean, grad_log_variance, *sizes, BLOCK_I=BACKWARD // block, BLOCK_J=OWN, **kinds
            )
    return grad_z, grad_mean, grad_log_variance


def _block(size):
    return min(64, max(16, triton.next_power_of_2(size)))


@triton.jit
def load_tile(tensor, rows, start, ROWS, SIZE, BLOCK_Z: tl.constexpr):
    """[rows, BLOCK_Z], 0 outside."""
    l = start + tl.arange(0, BLOCK_Z)
    at = rows.to(tl.int64)[:, None] * SIZE + l[None, :]
    return tl.load(tensor + at, mask=(rows[:, None] < ROWS) & (l[None, :] < SIZE), other=0.0).to(tl.float32)


@triton.jit
def densities(z, mean, log_variance, i, j, start, N, M, SIZE, BLOCK_Z: tl.constexpr):
    """The log-density of each latent, [I, J, BLOCK_Z], 0 past the last; the error in variances, and its square."""
    log_var, _ = clamped(load_tile(log_variance, j, start, M, SIZE, BLOCK_Z))
    points, means = load_tile(z, i, start, N, SIZE, BLOCK_Z), load_tile(mean, j, start, M, SIZE, BLOCK_Z)
    error = tl.expand_dims(points, 1) - tl.expand_dims(means, 0)
    scaled = error * tl.expand_dims(tl.exp(-log_var), 0)
    square = error * scaled
    nats = -0.5 * (tl.expand_dims(log_var + LOG_TWO_PI, 0) + square)
    l = start + tl.arange(0, BLOCK_Z)
    return tl.where((l < SIZE)[None, None, :], nats, 0.0), scaled, square


@triton.jit
def density(
    z, mean, log_variance, i, j, N, M, SIZE, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_Z: tl.constexpr
):
    """The log-density of all latents together, [I, J]."""
    total = tl.zeros((BLOCK_I, BLOCK_J), tl.float32)
    for start in range(0, SIZE, BLOCK_Z):
        nats, _, _ = densities(z, mean, log_variance, i, j, start, N, M, SIZE, BLOCK_Z)
        total += tl.sum(nats, 2)
    return total


@triton.jit
def grow(largest, total, values):
    """A running sum of exponentials: the largest so far, and the sum of e^(values - largest) over dimension 1."""
    top = tl.max(values, 1)
    top = tl.where(top > largest, top, largest)
    shift = tl.where(top == float("-inf"), 0.0, top)
    return top, total * tl.exp(largest - shift) + tl.sum(tl.exp(values - tl.expand_dims(shift, 1)), 1)


@triton.jit
def logarithm(largest, total):
    return tl.where(largest == float("-inf"), 0.0, largest) + tl.log(total)


@triton.jit
def store_marginals(
    z,
    mean,
    log_variance,
    marginals,
    i,
    first,
    N,
    M,
    SIZE,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    largest = tl.full((BLOCK_I, BLOCK_Z), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_I, BLOCK_Z), tl.float32)
    for start in range(0, M, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        nats, _, _ = densities(z, mean, log_variance, i, j, first, N, M, SIZE, BLOCK_Z)
        largest, total = grow(largest, total, tl.where((j < M)[None, :, None], nats, float("-inf")))
    l = first + tl.arange(0, BLOCK_Z)
    inside = (i[:, None] < N) & (l[None, :] < SIZE)
    tl.store(marginals + i.to(tl.int64)[:, None] * SIZE + l[None, :], logarithm(largest, total), mask=inside)


@triton.jit
def store_joint(
    z, mean, log_variance, joint, i, N, M, SIZE, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_Z: tl.constexpr
):
    largest, total = tl.full((BLOCK_I,), float("-inf"), tl.float32), tl.zeros((BLOCK_I,), tl.float32)
    for start in range(0, M, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        nats = density(z, mean, log_variance, i, j, N, M, SIZE, BLOCK_I, BLOCK_J, BLOCK_Z)
        largest, total = grow(largest, total, tl.where((j < M)[None, :], nats, float("-inf")))
    tl.store(joint + i, logarithm(largest, total), mask=i < N)


@triton.jit
def aggregate_posterior_forward_kernel(
    z,
    mean,
    log_variance,
    joint,
    marginals,
    N,
    M,
    SIZE,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    first = tl.program_id(1) * BLOCK_Z
    if first < SIZE:
        store_marginals(z, mean, log_variance, marginals, i, first, N, M, SIZE, BLOCK_I, BLOCK_J, BLOCK_Z)
    else:
        store_joint(z, mean, log_variance, joint, i, N, M, SIZE, BLOCK_I, BLOCK_J, BLOCK_Z)


@triton.jit
def shares(
    grad_joint,
    grad_marginals,
    z,
    mean,
    log_variance,
    joint,
    marginals,
    i,
    j,
    first,
    N,
    M,
    SIZE,
    OF_JOINT: tl.constexpr,
    OF_MARGINALS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    """The gradient of each log-density, [I, J, BLOCK_Z]; the error in variances, and its square."""
    nats, scaled, square = densities(z, mean, log_variance, i, j, first, N, M, SIZE, BLOCK_Z)
    share = tl.zeros((BLOCK_I, BLOCK_J, BLOCK_Z), tl.float32)
    # No density passes the sum that it is part of, however it is rounded here.
    if OF_MARGINALS:
        above = nats - tl.expand_dims(load_tile(marginals, i, first, N, SIZE, BLOCK_Z), 1)
        grad = load_tile(grad_marginals, i, first, N, SIZE, BLOCK_Z)
        share += tl.expand_dims(grad, 1) * tl.exp(tl.where(above > 0, 0.0, above))
    if OF_JOINT:
        if WHOLE:
            together = tl.sum(nats, 2)
        else:
            together = density(z, mean, log_variance, i, j, N, M, SIZE, BLOCK_I, BLOCK_J, BLOCK_Z)
        above = together - tl.load(joint + i, mask=i < N, other=0.0)[:, None]
        grad = tl.load(grad_joint + i, mask=i < N, other=0.0).to(tl.float32)
        share += tl.expand_dims(grad[:, None] * tl.exp(tl.where(above > 0, 0.0, above)), 2)
    inside = (i[:, None] < N) & (j[None, :] < M)
    return tl.where(tl.expand_dims(inside, 2), share, 0.0), scaled, square


@triton.jit
def of_points_kernel(
    grad_joint,
    grad_marginals,
    z,
    mean,
    log_variance,
    joint,
    marginals,
    grad_z,
    N,
    M,
    SIZE,
    OF_JOINT: tl.constexpr,
    OF_MARGINALS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    first = tl.program_id(1) * BLOCK_Z
    by_z = tl.zeros((BLOCK_I, BLOCK_Z), tl.float32)
    for start in range(0, M, BLOCK_J):
        share, scaled, _ = shares(
            grad_joint,
            grad_marginals,
            z,
            mean,
            log_variance,
            joint,
            marginals,
            i,
            start + tl.arange(0, BLOCK_J),
            first,
            N,
            M,
            SIZE,
            OF_JOINT,
            OF_MARGINALS,
            WHOLE,
            BLOCK_I,
            BLOCK_J,
            BLOCK_Z,
        )
        by_z -= tl.sum(share * scaled, 1)
    l = first + tl.arange(0, BLOCK_Z)
    inside = (i[:, None] < N) & (l[None, :] < SIZE)
    tl.store(grad_z + i.to(tl.int64)[:, None] * SIZE + l[None, :], by_z.to(grad_z.dtype.element_ty), mask=inside)


@triton.jit
def of_gaussians_kernel(
    grad_joint,
    grad_marginals,
    z,
    mean,
    log_variance,
    joint,
    marginals,
    grad_mean,
    grad_log_variance,
    N,
    M,
    SIZE,
    OF_JOINT: tl.constexpr,
    OF_MARGINALS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_Z: tl.constexpr,
):
    j = tl.program_id(0) * BLOCK_J + tl.arange(0, BLOCK_J)
    first = tl.program_id(1) * BLOCK_Z
    by_mean, by_log_variance = (tl.zeros((BLOCK_J, BLOCK_Z), tl.float32),) * 2
    for start in range(0, N, BLOCK_I):
        share, scaled, square = shares(
            grad_joint,
            grad_marginals,
            z,
            mean,
            log_variance,
            joint,
            marginals,
            start + tl.arange(0, BLOCK_I),
            j,
            first,
            N,
            M,
            SIZE,
            OF_JOINT,
            OF_MARGINALS,
            WHOLE,
            BLOCK_I,
            BLOCK_J,
            BLOCK_Z,
        )
        by_mean += tl.sum(share * scaled, 0)
        by_log_variance += tl.sum(share * (square - 1), 0)
    _, free = clamped(load_tile(log_variance, j, first, M, SIZE, BLOCK_Z))
    l = first + tl.arange(0, BLOCK_Z)
    inside = (j[:, None] < M) & (l[None, :] < SIZE)
    at = j.to(tl.int64)[:, None] * SIZE + l[None, :]
    kind = grad_mean.dtype.element_ty
    tl.store(grad_mean + at, by_mean.to(kind), mask=inside)
    tl.store(grad_log_variance + at, tl.where(free, 0.5 * by_log_variance, 0.0).to(kind), mask=inside)
