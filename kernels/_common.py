"""What the Triton kernels share: dtypes, launch tables and the device guard."""

import contextlib
from typing import NamedTuple

import torch
import triton
import triton.language as tl

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Float32 products as three TF32 ones: about 1e-6 relative, on the tensor cores. Half types ignore it.
PRECISION = tl.constexpr("tf32x3")


class Resident(NamedTuple):
    """One program holds the weights and the states of `rows` image rows on chip for the whole scan."""

    rows: int
    units: int
    num_warps: int


class Streamed(NamedTuple):
    """One program reads the weights from L2 at every step, in blocks; the states live in global memory."""

    rows: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


class WeightGradient(NamedTuple):
    """Each program multiplies `steps` chunks of `block_k` cells into one block of both taps' gradients."""

    block_m: int
    block_n: int
    block_k: int
    steps: int
    num_warps: int
    num_stages: int


PROGRAMS = 256

# The largest padded C whose recurrent weights stay in registers and shared memory, by rows and bytes per value.
# benchmarks/triton_launch_table.py prints the candidates and the row that justifies each choice.
RESIDENT_UNITS = {(16, 2): 64, (32, 2): 64, (64, 2): 32, (16, 4): 32, (32, 4): 32, (64, 4): 16}


def scan_launch(dtype, height, size):
    """The fixed launch of a scan over images of `height` rows with `size` hidden units."""
    rows = max(16, triton.next_power_of_2(height))
    units = max(16, triton.next_power_of_2(size))
    if units <= RESIDENT_UNITS.get((rows, dtype.itemsize), 0):
        return Resident(rows, units, num_warps=min(8 if rows == 64 else 16, rows * units // 128))
    if dtype.itemsize == 4:
        return Streamed(rows=32, block_n=32, block_k=32, num_warps=4, num_stages=2)
    return Streamed(rows=64, block_n=64, block_k=64, num_warps=8, num_stages=3)


def weight_launch(dtype, size, directions, cells):
    """The fixed launch of the weight gradient; `steps` splits the cells over about two programs per processor."""
    block_m = min(64, max(16, triton.next_power_of_2(size)))
    block_n = min(128, 4 * block_m) if dtype.itemsize == 2 else 64
    block_k = 64 if dtype.itemsize == 2 else 32
    blocks = directions * triton.cdiv(size, block_m) * triton.cdiv(4 * size, block_n)
    steps = triton.next_power_of_2(triton.cdiv(cells * blocks, block_k * PROGRAMS))
    return WeightGradient(block_m, block_n, block_k, steps, num_warps=4, num_stages=3)


def device_of(tensor):
    """Make the tensor's GPU the current one, which is where Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.constexpr_function
def images_of_program(height, rows):
    """How many whole images share the lanes of one program; an image taller than `rows` has its own."""
    return max(1, rows // height)
