"""The residual Diagonal BiLSTM layer in plain PyTorch: the specification of `genfast.ops.diagonal_block`."""

import torch

from genfast.reference.diagonal_lstm import diagonal_lstm_ref


def diagonal_block_ref(x, input_weight, input_bias, weight, h0, c0, output_weight, output_bias):
    """`x` [B, H, W, F] -> [B, H, W, F]: input-to-state, both scans, shift, add, 1x1 up, residual."""
    gates = torch.einsum("bhwf,fdg->bhwdg", x, input_weight) + input_bias
    hidden = diagonal_lstm_ref(gates, weight, h0, c0)
    return x + (hidden[..., 0, :] + shift_down(hidden[..., 1, :])) @ output_weight + output_bias


def shift_down(x):
    """Move [B, H, W, C] down by one row; the first row becomes zero, so no pixel reads its own right side."""
    return torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 0))[:, : x.shape[1]]
