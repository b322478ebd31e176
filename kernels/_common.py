"""What the Triton kernels share: dtypes, launch tables and the device guard."""

import contextlib
import struct
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Float32 products as three TF32 ones: about 1e-6 relative, on the tensor cores. Half types ignore it.
PRECISION = tl.constexpr("tf32x3")

# Uniform numbers are 24-bit multiples of it.
UNIT = tl.constexpr(2.0**-24)


class Resident(NamedTuple):
    """One program holds the weights and the states of `rows` image rows on chip for the whole scan."""

    rows: int
    units: int
    num_warps: int

    @property
    def options(self) -> dict[str, int]:
        """What a kernel is launched with."""
        return {"ROWS": self.rows, "UNITS": self.units, "num_warps": self.num_warps}


class Streamed(NamedTuple):
    """One program reads the weights from L2 at every step, in blocks; the states live in global memory."""

    rows: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    keep_side: bool = False

    @property
    def options(self) -> dict[str, int]:
        """What every kernel is launched with; `keep_side` is for the forward scan alone."""
        blocks = {"ROWS": self.rows, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k}
        return blocks | {"num_warps": self.num_warps, "num_stages": self.num_stages}


class WeightGradient(NamedTuple):
    """Each program multiplies `steps` chunks of `block_k` cells into one block of both taps' gradients."""

    block_m: int
    block_n: int
    block_k: int
    steps: int
    num_warps: int
    num_stages: int

    @property
    def options(self) -> dict[str, int]:
        """What a kernel is launched with."""
        blocks = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k, "STEPS": self.steps}
        return blocks | {"num_warps": self.num_warps, "num_stages": self.num_stages}


# About two programs of a weight gradient for each of 132 processors.
PROGRAMS = 256

# The largest padded C whose recurrent weights stay in registers and shared memory, by rows and bytes per value.
RESIDENT_UNITS = {(16, 2): 64, (32, 2): 64, (64, 2): 32, (16, 4): 32, (32, 4): 32, (64, 4): 16}

# By rows and bytes per value. benchmarks/triton_launch_table.py prints what each needs and, on a GPU, its time.
STREAMED_FORWARD = {
    (32, 2): Streamed(32, 128, 32, num_warps=8, num_stages=3),
    (64, 2): Streamed(64, 32, 64, num_warps=8, num_stages=3),
    (32, 4): Streamed(32, 32, 16, num_warps=8, num_stages=2),
}
STREAMED_BACKWARD = {
    (32, 2): Streamed(32, 128, 64, num_warps=8, num_stages=3),
    (64, 2): Streamed(64, 64, 64, num_warps=8, num_stages=3),
    (32, 4): Streamed(32, 32, 32, num_warps=8, num_stages=2),
}

HOPPER_SHARED = 227 * 1024


def scan_launch(
    dtype: torch.dtype, height: int, size: int, backward: bool, shared: int = HOPPER_SHARED
) -> Resident | Streamed:
    """The fixed launch of a scan over images of `height` rows with `size` hidden units, on a device that lends one
    program `shared` bytes of shared memory."""
    rows = max(16, triton.next_power_of_2(height))
    units = max(16, triton.next_power_of_2(size))
    if units <= RESIDENT_UNITS.get((rows, dtype.itemsize), 0):
        return Resident(rows, units, num_warps=min(8 if rows == 64 else 16, rows * units // 128))
    rows = 32 if dtype.itemsize == 4 or height <= 32 else 64
    if backward:
        return STREAMED_BACKWARD[rows, dtype.itemsize]
    launch = STREAMED_FORWARD[rows, dtype.itemsize]
    keep = size <= launch.block_n == 128 and shared >= HOPPER_SHARED
    return launch._replace(keep_side=keep)


def shared_memory(tensor: Tensor) -> int:
    """Bytes of shared memory that one program may use on the tensor's device."""
    if not tensor.is_cuda:
        return HOPPER_SHARED
    return torch.cuda.get_device_properties(tensor.device).shared_memory_per_block_optin


def weight_launch(dtype: torch.dtype, size: int, directions: int, cells: int) -> WeightGradient:
    """The fixed launch of the weight gradient; `steps` is a power of two, so that few kernels are compiled."""
    block_m = min(64, max(16, triton.next_power_of_2(size)))
    block_n = min(128, 4 * block_m) if dtype.itemsize == 2 else 64
    block_k = 64 if dtype.itemsize == 2 else 16
    blocks = directions * triton.cdiv(size, block_m) * triton.cdiv(4 * size, block_n)
    steps = triton.next_power_of_2(triton.cdiv(cells * blocks, block_k * PROGRAMS))
    warps = 8 if block_m * block_n >= 4096 else 4
    return WeightGradient(block_m, block_n, block_k, steps, num_warps=warps, num_stages=3)


def device_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Make the tensor's GPU the current one, which is where Triton launches."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@triton.jit
def tanh(x, APPROXIMATE: tl.constexpr):
    """One instruction, relative error 5e-4, where rounding the result to bfloat16 adds 2e-3 anyway."""
    if APPROXIMATE:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    else:
        return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def sigmoid(x, APPROXIMATE: tl.constexpr):
    if APPROXIMATE:
        return 0.5 * tanh(0.5 * x, True) + 0.5
    else:
        return tl.sigmoid(x)


@triton.constexpr_function
def images_of_program(height: int, rows: int) -> int:
    """How many whole images share the lanes of one program; an image taller than `rows` has its own."""
    return max(1, rows // height)


@triton.jit
def uniform(seed, image, element, draw):
    """The random number of one place, float64 in [0, 1): the integers of `genfast.random.uniform`.

    `seed` holds the 64 bits of the seed, of either sign; `image` is a tensor of 64-bit and `element` one of 32-bit
    integers, of one shape.
    """
    image = image.to(tl.uint64)
    low, high = image.to(tl.uint32), (image >> 32).to(tl.uint32)
    word, _, _, _ = tl.philox(seed, element.to(tl.uint32) * 0 + draw, element.to(tl.uint32), low, high)
    return (word >> 8).to(tl.float64) * UNIT


def bits_of(number: float) -> int:
    """A Python float as the integer of its 64 bits: Triton would round a float argument to float32."""
    return struct.unpack("<q", struct.pack("<d", number))[0]


def sum_parts(parts: Tensor, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    """`scale` times the sums of `parts` [B, n], float32, in one fixed order whatever B: [B] of the dtype asked for."""
    batch, count = parts.shape
    total = parts.new_empty(batch, dtype=dtype)
    if batch:
        with device_of(parts):
            sum_parts_kernel[(batch,)](parts, total, scale, count, BLOCK=1024)
    return total


@triton.jit
def sum_parts_kernel(parts, total, SCALE, COUNT, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COUNT, BLOCK):
        sums += tl.load(parts + image * COUNT + start + n, mask=start + n < COUNT, other=0.0)
    tl.store(total + image, (tl.sum(sums) * SCALE).to(total.dtype.element_ty))
