"""Ahead-of-time compilation of every Triton kernel, without a GPU, within a budget of what it may need of one.
Run by test_triton.py in a process of its own, where TRITON_INTERPRET is not set; alone it prints the table."""

import sys
from unittest import mock

import pytest
import torch
from support import triton_aot

from genfast.kernels import diagonal_block, diagonal_lstm, row_lstm

CAPABILITIES = (80, 90, 100)
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
REGISTERS_OF_A_PROCESSOR = 64 * 1024
BF16, FP32 = torch.bfloat16, torch.float32

# dtype, B, H, W, D, C: the shapes of the speed targets, then one for every other row of the launch tables.
TARGETS = [(BF16, 64, 28, 28, 2, 16), (BF16, 64, 32, 32, 2, 64), (BF16, 16, 32, 32, 2, 128)]
CASES = [
    *TARGETS,
    (BF16, 64, 64, 64, 2, 32),
    (BF16, 16, 64, 64, 2, 128),
    (FP32, 64, 28, 28, 2, 16),
    (FP32, 16, 32, 32, 2, 64),
]

# Bytes that one thread may spill to its stack; nothing where a speed target is set.
STACK = 128


def launches(dtype, B, H, W, D, C):
    """Every launch of one layer's forward and backward, with the arguments that the launchers give."""

    def empty(*shape, dtype=dtype):
        return torch.empty(shape, dtype=dtype, device="meta")

    weight, outside = empty(D, 2, C, 4 * C), empty(D, C)
    hidden, gates, cells = empty(B, H, W, D, C), empty(B, H, W, D, 4 * C), empty(B, H, W, D, C, dtype=FP32)
    with triton_aot.record_launches() as recorded:
        diagonal_lstm.diagonal_lstm_forward(gates, weight, outside, outside, True)
        diagonal_lstm.diagonal_lstm_backward(hidden, hidden, gates, cells, weight, outside, outside)
        diagonal_block._shift_add(hidden)
        diagonal_block._shift_add_backward(empty(B * H * W, C), hidden.shape)
        one = [empty(B, H, W, n, dtype=x.dtype) for n, x in ((C, hidden), (4 * C, gates), (C, cells))]
        taps, edge = empty(3, C, 4 * C), empty(C)
        row_lstm.row_lstm_forward(one[1], taps, edge, edge, True)
        row_lstm.row_lstm_backward(one[0], *one, taps, edge, edge)
    return recorded


def measure(case, capability):
    """Yields (kernel's name, warps, registers, stack bytes, shared bytes)."""
    with mock.patch.object(diagonal_lstm, "shared_memory", lambda _: SHARED[capability]):
        recorded = launches(*case)
    for kernel, arguments, options in recorded:
        compiled = triton_aot.compile_launch(kernel, arguments, options, capability)
        yield kernel.__name__, compiled.metadata.num_warps, *triton_aot.resources(compiled)


@pytest.mark.parametrize("capability", CAPABILITIES, ids="sm_{}".format)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)).removeprefix("torch."))
def test_compiles_within_budget(case, capability):
    found = list(measure(case, capability))
    assert len(found) == 8
    for name, warps, registers, stack, shared in found:
        assert registers * warps * 32 <= REGISTERS_OF_A_PROCESSOR, (name, registers, warps)
        assert shared <= SHARED[capability], (name, shared)
        assert stack <= (0 if case in TARGETS and capability == 90 else STACK), (name, stack)


def main():
    for case in CASES:
        for capability in CAPABILITIES:
            for name, warps, registers, stack, shared in measure(case, capability):
                label = f"{str(case[0]).removeprefix('torch.')} {case[2]}x{case[3]} C={case[5]}"
                print(f"{label} | {name} | sm_{capability} | {warps} | {registers} | {stack} | {shared}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
