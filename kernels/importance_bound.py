"""The importance-weighted bound in Triton: one program for each image, its weights in blocks."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of


def importance_bound_forward(log_weights: Tensor, save: bool) -> Tensor:
    """Returns `bound`, float32 [B]."""
    bound = log_weights.new_empty(len(log_weights), dtype=torch.float32)
    if len(log_weights):
        with device_of(log_weights):
            importance_bound_forward_kernel[(len(log_weights),)](
                log_weights, bound, log_weights.shape[1], **_launch(log_weights)
            )
    return bound


def importance_bound_backward(grad_bound: Tensor, log_weights: Tensor) -> Tensor:
    """Returns `grad_log_weights`."""
    grad_log_weights = log_weights.new_empty(log_weights.shape)
    if len(log_weights):
        with device_of(log_weights):
            importance_bound_backward_kernel[(len(log_weights),)](
                grad_bound, log_weights, grad_log_weights, log_weights.shape[1], **_launch(log_weights)
            )
    return grad_log_weights


def _launch(log_weights):
    block = min(1024, max(32, triton.next_power_of_2(log_weights.shape[1])))
    return {"BLOCK": block, "num_warps": max(1, min(4, block // 128))}


@triton.jit
def load(log_weights, start, SAMPLES, BLOCK: tl.constexpr):
    """Weights past the last are 0."""
    s = start + tl.arange(0, BLOCK)
    return tl.load(log_weights + s, mask=s < SAMPLES, other=float("-inf")).to(tl.float32)


@triton.jit
def sum_of_weights(log_weights, SAMPLES, BLOCK: tl.constexpr):
    """A shift, and the sum of e^(log_weights - shift) in one pass: the shift is the largest so far, 0 if infinite."""
    largest, shift = float("-inf"), 0.0
    total = 0.0
    for start in range(0, SAMPLES, BLOCK):
        values = load(log_weights, start, SAMPLES, BLOCK)
        top = tl.max(values, 0)
        largest = tl.where(top > largest, top, largest)
        further = tl.where(tl.abs(largest) == float("inf"), 0.0, largest)
        kept = tl.where(total == 0, 0.0, total * tl.exp(shift - further))
        total = kept + tl.sum(tl.exp(values - further), 0)
        shift = further
    return shift, total


@triton.jit
def importance_bound_forward_kernel(log_weights, bound, SAMPLES, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    shift, total = sum_of_weights(log_weights + image * SAMPLES, SAMPLES, BLOCK)
    tl.store(bound + image, shift + tl.log(total / SAMPLES))


@triton.jit
def importance_bound_backward_kernel(grad_bound, log_weights, grad_log_weights, SAMPLES, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    log_weights += image * SAMPLES
    shift, total = sum_of_weights(log_weights, SAMPLES, BLOCK)
    scale = tl.load(grad_bound + image).to(tl.float32) / total
    for start in range(0, SAMPLES, BLOCK):
        s = start + tl.arange(0, BLOCK)
        grad = scale * tl.exp(load(log_weights, start, SAMPLES, BLOCK) - shift)
        tl.store(grad_log_weights + image * SAMPLES + s, grad.to(grad_log_weights.dtype.element_ty), mask=s < SAMPLES)
