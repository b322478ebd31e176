"""The accelerated ops: plain functions of tensors, each with a native and a pure PyTorch implementation."""

from genfast.ops.diagonal_block import diagonal_block
from genfast.ops.diagonal_lstm import diagonal_lstm
from genfast.ops.row_lstm import row_lstm

__all__ = ["diagonal_block", "diagonal_lstm", "row_lstm"]
