"""Layers: drop-in torch modules on [B, F, H, W] images."""

from genfast.nn.bias_act import BiasAct
from genfast.nn.coder import ConvDecoder, ConvEncoder, DenseCoder, PlainResidualBlock
from genfast.nn.diagonal_lstm import DiagonalBiLSTM, ResidualDiagonalBlock
from genfast.nn.gated import GatedStackLayer
from genfast.nn.gated_residual import GatedResidualBlock
from genfast.nn.gaussian_latent import GaussianLatent
from genfast.nn.masked_conv import MaskedConv2d, color_mask
from genfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev
from genfast.nn.resampling import Blur2d, Downsample2d, Upsample2d
from genfast.nn.residual import ResidualConvBlock
from genfast.nn.row_lstm import ResidualRowBlock, RowLSTM
from genfast.nn.shifted_conv import ShiftedConv2d, ShiftedConvTranspose2d
from genfast.nn.spectral_norm import SpectralNorm
from genfast.nn.vector_quantizer import ResidualVectorQuantizer, VectorQuantizer
from genfast.nn.virtual_batch_norm import ReferenceBatch, VirtualBatchNorm2d

__all__ = [
    "BiasAct",
    "Blur2d",
    "ConvDecoder",
    "ConvEncoder",
    "DenseCoder",
    "DiagonalBiLSTM",
    "Downsample2d",
    "GatedResidualBlock",
    "GatedStackLayer",
    "GaussianLatent",
    "MaskedConv2d",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "PlainResidualBlock",
    "ReferenceBatch",
    "ResidualConvBlock",
    "ResidualDiagonalBlock",
    "ResidualRowBlock",
    "ResidualVectorQuantizer",
    "RowLSTM",
    "ShiftedConv2d",
    "ShiftedConvTranspose2d",
    "SpectralNorm",
    "Upsample2d",
    "VectorQuantizer",
    "VirtualBatchNorm2d",
    "color_mask",
]
