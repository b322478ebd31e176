"""Layers: drop-in torch modules on [B, F, H, W] images."""

from genfast.nn.diagonal_lstm import DiagonalBiLSTM, ResidualDiagonalBlock
from genfast.nn.masked_conv import MaskedConv2d, color_mask

__all__ = ["DiagonalBiLSTM", "MaskedConv2d", "ResidualDiagonalBlock", "color_mask"]
