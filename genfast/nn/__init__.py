"""Layers: drop-in torch modules on [B, F, H, W] images."""

from genfast.nn.coder import ConvDecoder, ConvEncoder, DenseCoder, PlainResidualBlock
from genfast.nn.diagonal_lstm import DiagonalBiLSTM, ResidualDiagonalBlock
from genfast.nn.gated import GatedStackLayer
from genfast.nn.gated_residual import GatedResidualBlock
from genfast.nn.gaussian_latent import GaussianLatent
from genfast.nn.masked_conv import MaskedConv2d, color_mask
from genfast.nn.residual import ResidualConvBlock
from genfast.nn.row_lstm import ResidualRowBlock, RowLSTM
from genfast.nn.shifted_conv import ShiftedConv2d, ShiftedConvTranspose2d
from genfast.nn.vector_quantizer import ResidualVectorQuantizer, VectorQuantizer

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "DenseCoder",
    "DiagonalBiLSTM",
    "GatedResidualBlock",
    "GatedStackLayer",
    "GaussianLatent",
    "MaskedConv2d",
    "PlainResidualBlock",
    "ResidualConvBlock",
    "ResidualDiagonalBlock",
    "ResidualRowBlock",
    "ResidualVectorQuantizer",
    "RowLSTM",
    "ShiftedConv2d",
    "ShiftedConvTranspose2d",
    "VectorQuantizer",
    "color_mask",
]
