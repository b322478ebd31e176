"""tanh of one half times sigmoid of the other in Triton: one element of the result for each lane."""

import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of, sigmoid, tanh

BLOCK = 1024


def gated_activation_forward(x: Tensor, save: bool) -> Tensor:
    """Returns `y`: `x` [R, 2C, ...] -> [R, C, ...]."""
    rows, channels, *inner = x.shape
    y = x.new_empty(rows, channels // 2, *inner)
    if y.numel():
        with device_of(x):
            gated_activation_forward_kernel[(triton.cdiv(y.numel(), BLOCK),)](
                x, y, y.numel(), y.shape[1:].numel(), BLOCK=BLOCK
            )
    return y


def gated_activation_backward(grad_y: Tensor, x: Tensor) -> Tensor:
    """Returns `grad_x`."""
    grad_x = x.new_empty(x.shape)
    if x.numel():
        with device_of(x):
            gated_activation_backward_kernel[(triton.cdiv(grad_y.numel(), BLOCK),)](
                grad_y, x, grad_x, grad_y.numel(), grad_y.shape[1:].numel(), BLOCK=BLOCK
            )
    return grad_x


@triton.jit
def gated_activation_forward_kernel(x, y, N, SIZE, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = n + n // SIZE * SIZE
    a = tl.load(x + at, mask=n < N, other=0.0).to(tl.float32)
    b = tl.load(x + at + SIZE, mask=n < N, other=0.0).to(tl.float32)
    tl.store(y + n, (tanh(a, False) * sigmoid(b, False)).to(y.dtype.element_ty), mask=n < N)


@triton.jit
def gated_activation_backward_kernel(grad_y, x, grad_x, N, SIZE, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = n + n // SIZE * SIZE
    t = tanh(tl.load(x + at, mask=n < N, other=0.0).to(tl.float32), False)
    s = sigmoid(tl.load(x + at + SIZE, mask=n < N, other=0.0).to(tl.float32), False)
    weighted = tl.load(grad_y + n, mask=n < N, other=0.0).to(tl.float32) * s
    tl.store(grad_x + at, (weighted * (1 - t * t)).to(grad_x.dtype.element_ty), mask=n < N)
    tl.store(grad_x + at + SIZE, (weighted * t * (1 - s)).to(grad_x.dtype.element_ty), mask=n < N)
