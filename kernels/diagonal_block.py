"""The residual Diagonal BiLSTM layer in Triton: torch's matrix products around the scan kernels of `diagonal_lstm`,
and one kernel each way for the shift and the sum of the two maps."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genfast.kernels._common import device_of
from genfast.kernels.diagonal_lstm import diagonal_lstm_backward, diagonal_lstm_forward

BLOCK = 1024


def diagonal_block_forward(
    x: Tensor,
    input_weight: Tensor,
    input_bias: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
    output_bias: Tensor,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns `(y, hidden, saved_gates, saved_cells)`, all but `y` empty unless `save`."""
    batch, height, width, features = x.shape
    size = weight.shape[2]
    pixels = x.reshape(-1, features)
    gates = torch.addmm(input_bias.reshape(-1), pixels, input_weight.reshape(features, 8 * size))
    gates = gates.view(batch, height, width, 2, 4 * size)
    hidden, saved_gates, saved_cells = diagonal_lstm_forward(gates, weight, h0, c0, save)
    y = torch.addmm(pixels, _shift_add(hidden), output_weight).add_(output_bias).view(x.shape)
    return y, hidden if save else x.new_empty(0), saved_gates, saved_cells


def diagonal_block_backward(
    grad_y: Tensor,
    x: Tensor,
    hidden: Tensor,
    saved_gates: Tensor,
    saved_cells: Tensor,
    input_weight: Tensor,
    weight: Tensor,
    h0: Tensor,
    c0: Tensor,
    output_weight: Tensor,
) -> tuple[Tensor, ...]:
    """Returns the gradients of the eight inputs, in the order of the forward arguments."""
    features, size = x.shape[3], weight.shape[2]
    grad_y = grad_y.reshape(-1, features)
    grad_output_weight = _shift_add(hidden).t() @ grad_y
    grad_hidden = _shift_add_backward(grad_y @ output_weight.t(), hidden.shape)
    grad_gates, grad_weight, grad_h0, grad_c0 = diagonal_lstm_backward(
        grad_hidden, hidden, saved_gates, saved_cells, weight, h0, c0
    )
    grad_gates = grad_gates.view(-1, 8 * size)
    grad_x = torch.addmm(grad_y, grad_gates, input_weight.reshape(features, 8 * size).t()).view(x.shape)
    grad_input_weight = (x.reshape(-1, features).t() @ grad_gates).view(input_weight.shape)
    grad_input_bias = grad_gates.sum(0).view(2, 4 * size)
    of_input, of_output = (grad_input_weight, grad_input_bias), (grad_output_weight, grad_y.sum(0))
    return grad_x, *of_input, grad_weight, grad_h0, grad_c0, *of_output


def _shift_add(hidden):
    """[B, H, W, 2, C] -> [B H W, C]: the left map plus the right one moved down a row."""
    batch, height, width, _, size = hidden.shape
    total = hidden.new_empty(batch * height * width, size)
    if total.numel():
        with device_of(hidden):
            shift_add_forward_kernel[(triton.cdiv(total.numel(), BLOCK),)](
                hidden, total, total.numel(), H=height, W=width, C=size, BLOCK=BLOCK
            )
    return total


def _shift_add_backward(grad_total, shape):
    _, height, width, _, size = shape
    grad_hidden = grad_total.new_empty(shape)
    if grad_hidden.numel():
        with device_of(grad_total):
            shift_add_backward_kernel[(triton.cdiv(grad_hidden.numel(), BLOCK),)](
                grad_total, grad_hidden, grad_hidden.numel(), H=height, W=width, C=size, BLOCK=BLOCK
            )
    return grad_hidden


@triton.jit
def shift_add_forward_kernel(hidden, total, N, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    pixel, unit = n // C, n % C
    top = (pixel // W) % H == 0
    left = tl.load(hidden + pixel * 2 * C + unit, mask=n < N, other=0.0).to(tl.float32)
    right = tl.load(hidden + (pixel - W) * 2 * C + C + unit, mask=(n < N) & ~top, other=0.0).to(tl.float32)
    tl.store(total + n, (left + right).to(total.dtype.element_ty), mask=n < N)


@triton.jit
def shift_add_backward_kernel(
    grad_total, grad_hidden, N, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    pixel, d, unit = n // (2 * C), n // C % 2, n % C
    bottom = (pixel // W) % H == H - 1
    source = (pixel + d * W) * C + unit
    grad = tl.load(grad_total + source, mask=(n < N) & ((d == 0) | ~bottom), other=0.0)
    tl.store(grad_hidden + n, grad, mask=n < N)
