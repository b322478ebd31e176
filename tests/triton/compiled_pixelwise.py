"""Ahead-of-time compilation of the Triton kernels of likelihoods, samplers and the gate, without a GPU.
Run by test_triton.py as triton_compiled.py is."""

import pytest
import torch
from support import triton_aot
from triton_compiled import CAPABILITIES, REGISTERS_OF_A_PROCESSOR, SHARED

from genfast.kernels import bernoulli, categorical, gated_activation, logistic_mixture

BF16, FP32 = torch.bfloat16, torch.float32
# [B, N, L, M]: channels last and not, many levels and few.
LOGITS = [(16, 3072, 256, 1), (16, 3, 256, 1024), (64, 784, 2, 1), (64, 1, 5, 784)]
SETTINGS = (2**63 - 1, 5, 0.5, 0)
# Bytes that one thread may spill to its stack.
STACK = 0


def empty(*shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def categorical_launches(dtype, *shape):
    batch, places, levels, inner = shape
    logits = empty(*shape, dtype=dtype)
    x, grad = empty(batch, places, inner, dtype=torch.uint8), empty(batch, dtype=dtype)
    categorical.categorical_nll_forward(x, logits, False)
    categorical.categorical_nll_backward(grad, x, logits)
    categorical.categorical_sample(logits, *SETTINGS)


def elementwise_launches(dtype):
    bernoulli.bernoulli_sample(empty(16, 3, 32, 32, dtype=dtype), *SETTINGS)
    gates = empty(16, 64, 32, 32, dtype=dtype)
    gated_activation.gated_activation_forward(gates, False)
    gated_activation.gated_activation_backward(gates[:, :32], gates)


def mixture_launches(dtype, channels, size, layout):
    params = empty(16, size * (3 if channels == 1 else 10), 32, 32, dtype=dtype).to(memory_format=layout)
    x, grad = empty(16, channels, 32, 32, dtype=torch.uint8), empty(16, dtype=dtype)
    logistic_mixture.logistic_mixture_nll_forward(x, params, 256, False)
    logistic_mixture.logistic_mixture_nll_backward(grad, x, params, 256)
    logistic_mixture.logistic_mixture_sample(params, 256, *SETTINGS, channels)


def check(launches, capability):
    for kernel, arguments, options in launches:
        compiled = triton_aot.compile_launch(kernel, arguments, options, capability)
        registers, stack, shared = triton_aot.resources(compiled)
        used = (kernel.__name__, registers, stack, shared)
        assert registers * compiled.metadata.num_warps * 32 <= REGISTERS_OF_A_PROCESSOR, used
        assert shared <= SHARED[capability] and stack <= STACK, used


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
@pytest.mark.parametrize("shape", LOGITS, ids=str)
def test_categorical(shape, dtype, capability):
    with triton_aot.record_launches() as recorded:
        categorical_launches(dtype, *shape)
    assert len(recorded) == 4
    check(recorded, capability)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
def test_elementwise(dtype, capability):
    with triton_aot.record_launches() as recorded:
        elementwise_launches(dtype)
    assert len(recorded) == 3
    check(recorded, capability)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize(
    "dtype, channels, size, layout",
    [
        (FP32, 3, 10, torch.channels_last),
        (BF16, 3, 10, torch.contiguous_format),
        (FP32, 1, 5, torch.contiguous_format),
    ],
    ids=str,
)
def test_mixture(dtype, channels, size, layout, capability):
    with triton_aot.record_launches() as recorded:
        mixture_launches(dtype, channels, size, layout)
    assert len(recorded) == 4
    check(recorded, capability)
