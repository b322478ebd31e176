"""Ahead-of-time compilation of the Triton kernels of the variational family, without a GPU, within a budget.
Run by test_triton.py as triton_compiled.py is; alone it prints the table."""

import sys
from unittest import mock

import pytest
import torch
from support import triton_aot
from triton_compiled import CAPABILITIES, REGISTERS_OF_A_PROCESSOR, SHARED

from genfast.kernels import (
    _products,
    aggregate_posterior,
    bernoulli,
    gaussian,
    gaussian_latent,
    importance_bound,
    kernel_sum,
    nearest_neighbors,
    vector_quantize,
)

BF16, FP32 = torch.bfloat16, torch.float32
# Bytes that one thread may spill to its stack: an address.
STACK = 16
SEED = (2**63 - 1, 5)


def empty(*shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def gaussian_latent_launches(dtype):
    for sizes, samples, of_prior, per_latent in [((4096, 256), 1, False, False), ((128, 20), 50, True, True)]:
        batch, size = sizes
        mean, prior = empty(*sizes, dtype=dtype), empty(batch * of_prior, size, dtype=dtype)
        settings = (*SEED, samples, 0, per_latent)
        gaussian_latent.gaussian_latent_forward(mean, mean, prior, prior, *settings, False)
        grads = empty(batch * samples, size, dtype=dtype), empty(*(sizes if per_latent else sizes[:1]), dtype=FP32)
        gaussian_latent.gaussian_latent_backward(*grads, mean, mean, prior, prior, *settings)


def likelihood_launches(dtype):
    x, grad = empty(256, 3, 64, 64, dtype=dtype), empty(256, dtype=FP32)
    for weight in (empty(0, dtype=torch.uint8), empty(*x.shape, dtype=torch.uint8), x):
        gaussian.gaussian_nll_forward(x, x, x, weight, False)
        gaussian.gaussian_nll_backward(grad, x, x, x, weight, 7)
        bernoulli.bernoulli_nll_forward(x, x, weight, False)
        bernoulli.bernoulli_nll_backward(grad, x, x, weight)


def importance_bound_launches(dtype):
    for size in (50, 5000):
        log_weights = empty(64, size, dtype=dtype)
        importance_bound.importance_bound_forward(log_weights, False)
        importance_bound.importance_bound_backward(empty(64, dtype=FP32), log_weights)


def vector_quantize_launches(dtype):
    for size, count in ((64, 1024), (64, 8192), (512, 1024)):
        x, codebook = empty(65536, size, dtype=dtype), empty(count, size, dtype=dtype)
        codes, _, loss = vector_quantize.vector_quantize_forward(x, codebook, 0.25, 1.0, False)
        vector_quantize.vector_quantize_backward(x, loss, x, codebook, codes, 0.25, 1.0, 3)
        vector_quantize.codebook_statistics(x, codes, count)


def nearest_neighbors_launches(dtype):
    for size, k in ((64, 5), (64, 64), (2048, 65)):
        x = empty(50000, size, dtype=dtype)
        nearest_neighbors.nearest_neighbors(x, x, k)


def kernel_sum_launches(dtype):
    for size in (64, 2048):
        x = empty(10000, size, dtype=dtype)
        kernel_sum.kernel_sum(x, x, 0, 1 / size, 1.0, 3)
        kernel_sum.kernel_sum(x, x, 1, 0.5, 1.0, 3)


def aggregate_posterior_launches(dtype):
    for batch, size in ((256, 64), (128, 10), (100, 130)):
        z = empty(batch, size, dtype=dtype)
        joint, marginals = aggregate_posterior.aggregate_posterior_forward(z, z, z, False)
        aggregate_posterior.aggregate_posterior_backward(joint, marginals, z, z, z, joint, marginals)


# How many launches there are, all together.
LAUNCHES = {
    gaussian_latent_launches: 4,
    likelihood_launches: 18,
    importance_bound_launches: 4,
    vector_quantize_launches: 18,
    nearest_neighbors_launches: 10,
    kernel_sum_launches: 8,
    aggregate_posterior_launches: 9,
}


def measure(launches, dtype, capability):
    with mock.patch.object(_products, "shared_memory", lambda _: SHARED[capability]):
        yield from triton_aot.measure(lambda: launches(dtype), LAUNCHES[launches], capability)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
@pytest.mark.parametrize("launches", LAUNCHES, ids=lambda launches: launches.__name__)
def test_compiles_within_budget(launches, dtype, capability):
    for name, warps, registers, stack, shared, ptx in measure(launches, dtype, capability):
        used = (name, warps, registers, stack, shared)
        assert registers * warps * 32 <= REGISTERS_OF_A_PROCESSOR, used
        assert shared <= SHARED[capability] and stack <= STACK, used
        if name.startswith("gaussian_latent"):
            # The noise is within 4 ulp: no instruction of the GPU's that is coarser.
            assert ".approx" not in ptx.replace("rcp.approx", ""), name
        if name in ("sum_rows_kernel", "of_gaussians_kernel"):
            assert "atom" not in ptx and "red.global" not in ptx, name


def main():
    for launches in LAUNCHES:
        for dtype in (BF16, FP32):
            for capability in CAPABILITIES:
                for *row, _ in measure(launches, dtype, capability):
                    print(str(dtype).removeprefix("torch."), f"sm_{capability}", *row, sep=" | ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
