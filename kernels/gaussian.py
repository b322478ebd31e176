"""The Gaussian likelihood in Triton: one element for each lane, images in blocks."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of, sum_parts
from genfast.kernels._gaussian import LOG_TWO_PI, clamped

BLOCK = 1024


def gaussian_nll_forward(x: Tensor, mean: Tensor, log_variance: Tensor, weight: Tensor, save: bool) -> Tensor:
    """Returns `nll`, float32 [B]; an empty weight stands for ones."""
    batch, size = x.shape[0], x.shape[1:].numel()
    parts = x.new_empty(batch, triton.cdiv(size, BLOCK), dtype=torch.float32)
    if parts.numel():
        with device_of(x):
            gaussian_nll_forward_kernel[(parts.numel(),)](
                x, mean, log_variance, weight, parts, size, WEIGHTED=weight.numel() > 0, BLOCK=BLOCK
            )
    return sum_parts(parts)


def gaussian_nll_backward(
    grad_nll: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor, weight: Tensor, wanted: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of x, empty unless bit 0 of `wanted` is set, mean and log_variance."""
    batch, size = x.shape[0], x.shape[1:].numel()
    of_x = bool(wanted & 1)
    gradients = x.new_empty(x.shape if of_x else (0,)), mean.new_empty(mean.shape), mean.new_empty(mean.shape)
    if x.numel():
        kind = {"WEIGHTED": weight.numel() > 0, "OF_X": of_x, "BLOCK": BLOCK}
        with device_of(x):
            gaussian_nll_backward_kernel[(batch * triton.cdiv(size, BLOCK),)](
                grad_nll, x, mean, log_variance, weight, *gradients, size, **kind
            )
    return gradients


@triton.jit
def load_error(x, mean, log_variance, at, inside):
    """x - mean, the log-variance and whether it has a gradient, and the square of the error in variances."""
    error = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    error -= tl.load(mean + at, mask=inside, other=0.0).to(tl.float32)
    log_var, free = clamped(tl.load(log_variance + at, mask=inside, other=0.0).to(tl.float32))
    scaled = error * tl.exp(-log_var)
    return log_var, free, scaled, error * scaled


@triton.jit
def gaussian_nll_forward_kernel(
    x, mean, log_variance, weight, parts, SIZE, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr
):
    blocks = tl.cdiv(SIZE, BLOCK)
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    at = (tl.program_id(0) // blocks).to(tl.int64) * SIZE + i
    log_var, _, _, square = load_error(x, mean, log_variance, at, i < SIZE)
    nats = 0.5 * (log_var + LOG_TWO_PI + square)
    counts = i < SIZE
    if WEIGHTED:
        share = tl.load(weight + at, mask=counts, other=0).to(tl.float32)
        nats *= share
        counts = share > 0
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(counts, nats, 0.0)))


@triton.jit
def gaussian_nll_backward_kernel(
    grad_nll,
    x,
    mean,
    log_variance,
    weight,
    grad_x,
    grad_mean,
    grad_log_variance,
    SIZE,
    WEIGHTED: tl.constexpr,
    OF_X: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(SIZE, BLOCK)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    at, inside = image * SIZE + i, i < SIZE
    _, free, scaled, square = load_error(x, mean, log_variance, at, inside)
    grad = tl.load(grad_nll + image).to(tl.float32)
    by_x, by_log_variance = grad * scaled, tl.where(free, 0.5 * grad * (1 - square), 0.0)
    if WEIGHTED:
        share = tl.load(weight + at, mask=inside, other=0).to(tl.float32)
        by_x = tl.where(share > 0, by_x * share, 0.0)
        by_log_variance = tl.where(share > 0, by_log_variance * share, 0.0)
    kind = grad_mean.dtype.element_ty
    if OF_X:
        tl.store(grad_x + at, by_x.to(kind), mask=inside)
    tl.store(grad_mean + at, (-by_x).to(kind), mask=inside)
    tl.store(grad_log_variance + at, by_log_variance.to(kind), mask=inside)
