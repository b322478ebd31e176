"""The Gaussian latent variable in Triton: the draws and their KL divergence in one launch, the noise drawn again in the
backward pass.

A program draws a block of latents of one sample of one image; one program of each image sums its KL divergence, alone,
so that the order of the sum is the same for every batch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of
from genfast.kernels._gaussian import clamped, exponential, exponential_rest, normal

MOST_LATENTS = 1024


def gaussian_latent_forward(
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor,
    prior_log_variance: Tensor,
    seed: int,
    first_index: int,
    samples: int,
    first_sample: int,
    per_latent: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """Returns `z` [B samples, Z] and `kl`, float32 [B], or [B, Z] per latent."""
    batch, size = mean.shape
    z = mean.new_empty(batch * samples, size)
    kl = mean.new_empty((batch, size) if per_latent else (batch,), dtype=torch.float32)
    if not size:
        kl.fill_(0)
    elif batch:
        launch, tensors = _launch(size), (mean, log_variance, prior_mean, prior_log_variance)
        kinds = {"PRIOR": len(prior_mean) > 0, "PER_LATENT": per_latent}
        with device_of(mean):
            gaussian_latent_forward_kernel[(batch * samples * triton.cdiv(size, launch["BLOCK"]),)](
                *tensors, z, kl, seed, first_index, first_sample, samples, size, **kinds, **launch
            )
    return z, kl


def gaussian_latent_backward(
    grad_z: Tensor,
    grad_kl: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor,
    prior_log_variance: Tensor,
    seed: int,
    first_index: int,
    samples: int,
    first_sample: int,
    per_latent: bool,
) -> tuple[Tensor, ...]:
    """Returns the gradients of the four tensors; an empty incoming gradient counts as zero."""
    tensors = mean, log_variance, prior_mean, prior_log_variance
    gradients = tuple(tensor.new_empty(tensor.shape) for tensor in tensors)
    batch, size = mean.shape
    if mean.numel():
        launch = _launch(size)
        kinds = {"PRIOR": len(prior_mean) > 0, "PER_LATENT": per_latent}
        kinds |= {"OF_Z": grad_z.numel() > 0, "OF_KL": grad_kl.numel() > 0}
        with device_of(mean):
            gaussian_latent_backward_kernel[(batch * triton.cdiv(size, launch["BLOCK"]),)](
                grad_z, grad_kl, *tensors, *gradients, seed, first_index, first_sample, samples, size, **kinds, **launch
            )
    return gradients


def _launch(size):
    block = min(MOST_LATENTS, max(32, triton.next_power_of_2(size)))
    return {"BLOCK": block, "num_warps": max(1, min(4, block // 128))}


@triton.jit
def load(tensor, at, inside):
    return tl.load(tensor + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def noise_of(seed, number, start, draw, BLOCK: tl.constexpr):
    """The noise of the latents start .. start + BLOCK of an image: four for each place."""
    place = start // 4 + tl.arange(0, BLOCK // 4)
    first, second, third, fourth = normal(seed, place.to(tl.int64) * 0 + number, place, draw)
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (BLOCK,))


@triton.jit
def divergence(mean, log_variance, prior_mean, prior_log_variance, at, inside, PRIOR: tl.constexpr):
    """The KL divergence of each latent, 0 past the last."""
    distance = load(mean, at, inside)
    ratio, _ = clamped(load(log_variance, at, inside))
    if PRIOR:
        prior, _ = clamped(load(prior_log_variance, at, inside))
        ratio -= prior
        distance -= load(prior_mean, at, inside)
        nats = exponential_rest(ratio) + distance * distance * exponential(-prior)
    else:
        nats = exponential_rest(ratio) + distance * distance
    return tl.where(inside, 0.5 * nats, 0.0)


@triton.jit(do_not_specialize=["seed", "first_index", "first_sample"])
def gaussian_latent_forward_kernel(
    mean,
    log_variance,
    prior_mean,
    prior_log_variance,
    z,
    kl,
    seed,
    first_index,
    first_sample,
    SAMPLES,
    SIZE,
    PRIOR: tl.constexpr,
    PER_LATENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(SIZE, BLOCK)
    row, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    image, sample = row // SAMPLES, row % SAMPLES
    l = tl.arange(0, BLOCK)
    i = block * BLOCK + l
    noise = noise_of(seed, first_index + image, block * BLOCK, (first_sample + sample).to(tl.uint32), BLOCK)
    log_var, _ = clamped(load(log_variance, image * SIZE + i, i < SIZE))
    drawn = load(mean, image * SIZE + i, i < SIZE) + exponential(0.5 * log_var) * noise
    tl.store(z + row * SIZE + i, drawn.to(z.dtype.element_ty), mask=i < SIZE)
    if PER_LATENT:
        if sample == 0:
            at = image * SIZE + i
            nats = divergence(mean, log_variance, prior_mean, prior_log_variance, at, i < SIZE, PRIOR)
            tl.store(kl + at, nats, mask=i < SIZE)
    else:
        if (sample == 0) & (block == 0):
            sums = tl.zeros((BLOCK,), tl.float32)
            for start in range(0, SIZE, BLOCK):
                at, inside = image * SIZE + start + l, start + l < SIZE
                sums += divergence(mean, log_variance, prior_mean, prior_log_variance, at, inside, PRIOR)
            tl.store(kl + image, tl.sum(sums))


@triton.jit(do_not_specialize=["seed", "first_index", "first_sample"])
def gaussian_latent_backward_kernel(
    grad_z,
    grad_kl,
    mean,
    log_variance,
    prior_mean,
    prior_log_variance,
    grad_mean,
    grad_log_variance,
    grad_prior_mean,
    grad_prior_log_variance,
    seed,
    first_index,
    first_sample,
    SAMPLES,
    SIZE,
    PRIOR: tl.constexpr,
    PER_LATENT: tl.constexpr,
    OF_Z: tl.constexpr,
    OF_KL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(SIZE, BLOCK)
    image, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    at, inside = image * SIZE + i, i < SIZE
    log_var, free = clamped(load(log_variance, at, inside))
    by_mean, by_log_variance = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    if OF_Z:
        for sample in range(0, SAMPLES):
            draw = (first_sample + sample).to(tl.uint32)
            grad = load(grad_z, (image * SAMPLES + sample) * SIZE + i, inside)
            by_mean += grad
            by_log_variance += grad * noise_of(seed, first_index + image, block * BLOCK, draw, BLOCK)
        by_log_variance *= 0.5 * exponential(0.5 * log_var)
    if OF_KL:
        if PER_LATENT:
            grad = load(grad_kl, at, inside)
        else:
            grad = tl.load(grad_kl + image).to(tl.float32)
        distance, ratio = load(mean, at, inside), log_var
        if PRIOR:
            prior, prior_free = clamped(load(prior_log_variance, at, inside))
            precision = exponential(-prior)
            distance -= load(prior_mean, at, inside)
            ratio -= prior
            # e^ratio - 1
            growth = exponential_rest(ratio) + ratio
            by_prior = -0.5 * grad * (growth + distance * distance * precision)
            distance *= precision
            kind = grad_prior_mean.dtype.element_ty
            tl.store(grad_prior_mean + at, (-grad * distance).to(kind), mask=inside)
            tl.store(grad_prior_log_variance + at, tl.where(prior_free, by_prior, 0.0).to(kind), mask=inside)
        else:
            growth = exponential_rest(ratio) + ratio
        by_mean += grad * distance
        by_log_variance += 0.5 * grad * growth
    elif PRIOR:
        nothing = tl.zeros((BLOCK,), grad_prior_mean.dtype.element_ty)
        tl.store(grad_prior_mean + at, nothing, mask=inside)
        tl.store(grad_prior_log_variance + at, nothing, mask=inside)
    kind = grad_mean.dtype.element_ty
    tl.store(grad_mean + at, by_mean.to(kind), mask=inside)
    tl.store(grad_log_variance + at, tl.where(free, by_log_variance, 0.0).to(kind), mask=inside)
