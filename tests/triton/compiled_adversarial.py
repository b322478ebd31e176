"""Ahead-of-time compilation of the Triton kernels of the adversarial family, without a GPU, within a budget.
Run by test_triton.py as triton_compiled.py is; alone it prints the table."""

import sys

import pytest
import torch
from support import triton_aot
from triton_compiled import CAPABILITIES, REGISTERS_OF_A_PROCESSOR, SHARED

from genfast.kernels import bias_act, minibatch_discrimination, minibatch_stddev, spectral_norm, upfirdn2d
from genfast.reference.bias_act import ACTIVATIONS

BF16, FP32 = torch.bfloat16, torch.float32
# Bytes of its own shared memory that a program may exchange sums in: no tile passes through it.
EXCHANGED = 16 * 1024


def empty(*shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def minibatch_discrimination_launches(dtype):
    """Values of a projection that stay on chip, and more."""
    for size in (5, 16):
        projected, grad = empty(256, 100, size, dtype=dtype), empty(256, 100, dtype=dtype)
        minibatch_discrimination.minibatch_discrimination_forward(projected, 256, False)
        minibatch_discrimination.minibatch_discrimination_backward(grad, projected, 256)


def minibatch_stddev_launches(dtype):
    """Groups of one tile, and of more."""
    for group in (4, 64):
        x, grad = empty(64, 512, 4, 4, dtype=dtype), empty(64, 513, 4, 4, dtype=dtype)
        minibatch_stddev.minibatch_stddev_forward(x, group, 1, False)
        minibatch_stddev.minibatch_stddev_backward(grad, x, group, 1)


def bias_act_launches(dtype):
    """Pixels in rows, and channels innermost."""
    bias = empty(128, dtype=dtype)
    for activation in ACTIVATIONS:
        for x in (empty(16, 128, 64, 64, dtype=dtype), empty(65536, 128, dtype=dtype)):
            settings = activation, 0.2, 1.4, 256.0
            bias_act.bias_act_forward(x, bias, *settings, False)
            bias_act.bias_act_backward(x, x, bias, *settings, 3)


def upfirdn2d_launches(dtype):
    """Up, down and neither; taps of both kinds; large maps, and small ones."""
    cases = [((4,), (2, 2, 1, 1), 64), ((4,), (1, 1, 2, 2), 128), ((4, 4), (2, 2, 1, 1), 4), ((12,), (1, 1, 1, 1), 64)]
    for taps, factors, size in cases:
        x, filter = empty(16, 64, size, size, dtype=dtype), empty(*taps, dtype=dtype)
        settings = *factors, 2, 1, 2, 1
        y = upfirdn2d.upfirdn2d_forward(x, filter, *settings, False)
        upfirdn2d.upfirdn2d_backward(y, x, filter, *settings)


def spectral_norm_launches(dtype):
    weight, u, v = empty(20, 128, 1152, dtype=dtype), empty(20, 128, dtype=dtype), empty(20, 1152, dtype=dtype)
    spectral_norm.power_iteration(weight, u, v, 2)
    y, sigma = spectral_norm.spectral_norm_forward(weight, u, v, True)
    spectral_norm.spectral_norm_backward(y, weight, u, v, sigma, 7)


# How many launches there are, all together.
LAUNCHES = {
    minibatch_discrimination_launches: 4,
    minibatch_stddev_launches: 6,
    bias_act_launches: 36,
    upfirdn2d_launches: 8,
    spectral_norm_launches: 11,
}


def measure(launches, dtype, capability):
    return triton_aot.measure(lambda: launches(dtype), LAUNCHES[launches], capability)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
@pytest.mark.parametrize("launches", LAUNCHES, ids=lambda launches: launches.__name__)
def test_compiles_within_budget(launches, dtype, capability):
    """Nothing spills, and no sum is in the order of chance."""
    for name, warps, registers, stack, shared, ptx in measure(launches, dtype, capability):
        used = (name, warps, registers, stack, shared)
        assert registers * warps * 32 <= REGISTERS_OF_A_PROCESSOR, used
        assert shared <= min(EXCHANGED, SHARED[capability]) and stack == 0, used
        assert "atom" not in ptx and "red.global" not in ptx, name


def main():
    for launches in LAUNCHES:
        for dtype in (BF16, FP32):
            for capability in CAPABILITIES:
                for *row, _ in measure(launches, dtype, capability):
                    print(str(dtype).removeprefix("torch."), f"sm_{capability}", *row, sep=" | ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
