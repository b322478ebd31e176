"""The Bernoulli likelihood and sampler in Triton: one element for each lane, images in blocks."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import bits_of, device_of, sum_parts, uniform

BLOCK = 1024


def bernoulli_nll_forward(x: Tensor, logits: Tensor, weight: Tensor, channels: int, save: bool) -> Tensor:
    """Returns `nll`, float32 [B]; an empty weight stands for ones."""
    batch, size = logits.shape[0], logits.shape[1:].numel()
    parts = logits.new_empty(batch, triton.cdiv(size, BLOCK), dtype=torch.float32)
    if parts.numel():
        with device_of(logits):
            bernoulli_nll_forward_kernel[(parts.numel(),)](
                x, logits, weight, parts, size, CHANNELS=channels, WEIGHTED=weight.numel() > 0, BLOCK=BLOCK
            )
    return sum_parts(parts)


def bernoulli_nll_backward(grad_nll: Tensor, x: Tensor, logits: Tensor, weight: Tensor, channels: int) -> Tensor:
    """Returns `grad_logits`."""
    grad_logits = logits.new_empty(logits.shape)
    size = logits.shape[1:].numel()
    if logits.numel():
        with device_of(logits):
            bernoulli_nll_backward_kernel[(logits.shape[0] * triton.cdiv(size, BLOCK),)](
                grad_nll, x, logits, weight, grad_logits, size, WEIGHTED=weight.numel() > 0, BLOCK=BLOCK
            )
    return grad_logits


def bernoulli_sample(logits: Tensor, seed: int, first_index: int, temperature: float, first_element: int) -> Tensor:
    """Returns what is drawn, uint8 of the shape of `logits`."""
    draw = logits.new_empty(logits.shape, dtype=torch.uint8)
    places, size = logits.shape[1], logits.shape[1:].numel()
    if logits.numel():
        with device_of(logits):
            bernoulli_sample_kernel[(logits.shape[0] * triton.cdiv(size, BLOCK),)](
                logits,
                draw,
                seed,
                first_index,
                bits_of(temperature),
                first_element,
                places,
                size // places,
                BLOCK=BLOCK,
            )
    return draw


@triton.jit
def block(SIZE, BLOCK: tl.constexpr):
    """This program's image, and its elements in it."""
    blocks = tl.cdiv(SIZE, BLOCK)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    return image, tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def bernoulli_nll_forward_kernel(
    x, logits, weight, parts, SIZE, CHANNELS: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr
):
    image, i = block(SIZE, BLOCK)
    # The order of the sum is that of one channel after the other, wherever they lie.
    at = image * SIZE + i
    if CHANNELS > 1:
        at = image * SIZE + i % (SIZE // CHANNELS) * CHANNELS + i // (SIZE // CHANNELS)
    target = tl.load(x + at, mask=i < SIZE, other=0.0).to(tl.float32)
    logit = tl.load(logits + at, mask=i < SIZE, other=0.0).to(tl.float32)
    size = tl.abs(logit)
    wrong = tl.where(logit > 0, 1 - target, target)
    e = tl.exp(-size)
    # log(1 + e), with what rounding took from 1 + e added to its logarithm.
    rounded = 1 + e
    nats = tl.where(wrong == 0, 0.0, wrong * size) + tl.log(rounded) + (e - (rounded - 1)) / rounded
    counts = i < SIZE
    if WEIGHTED:
        share = tl.load(weight + at, mask=counts, other=0).to(tl.float32)
        nats *= share
        counts = share > 0
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(counts, nats, 0.0)))


@triton.jit
def bernoulli_nll_backward_kernel(
    grad_nll, x, logits, weight, grad_logits, SIZE, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr
):
    image, i = block(SIZE, BLOCK)
    target = tl.load(x + image * SIZE + i, mask=i < SIZE, other=0.0).to(tl.float32)
    logit = tl.load(logits + image * SIZE + i, mask=i < SIZE, other=0.0).to(tl.float32)
    e = tl.exp(-tl.abs(logit))
    probability = tl.where(logit < 0, e, 1.0) / (1 + e)
    grad = tl.load(grad_nll + image).to(tl.float32) * (probability - target)
    if WEIGHTED:
        share = tl.load(weight + image * SIZE + i, mask=i < SIZE, other=0).to(tl.float32)
        grad = tl.where(share > 0, grad * share, 0.0)
    tl.store(grad_logits + image * SIZE + i, grad.to(grad_logits.dtype.element_ty), mask=i < SIZE)


@triton.jit(do_not_specialize=["seed", "first_index", "temperature", "first_element"])
def bernoulli_sample_kernel(
    logits, draw, seed, first_index, temperature, first_element, PLACES, INNER, BLOCK: tl.constexpr
):
    SIZE = PLACES * INNER
    image, i = block(SIZE, BLOCK)
    logit = tl.load(logits + image * SIZE + i, mask=i < SIZE, other=0.0).to(tl.float64)
    scaled = -tl.abs(logit) / temperature.to(tl.float64, bitcast=True)
    smaller = tl.where(scaled < -708.0, 0.0, tl.exp(scaled))
    zero = tl.where(logit < 0, 1.0, smaller)
    element = first_element + (i % INNER).to(tl.int64) * PLACES + i // INNER
    u = uniform(seed, tl.zeros((BLOCK,), tl.int64) + first_index + image, element, 0)
    tl.store(draw + image * SIZE + i, (zero <= u * (1 + smaller)).to(tl.uint8), mask=i < SIZE)
