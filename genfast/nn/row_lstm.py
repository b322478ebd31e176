"""The Row LSTM and its residual block."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from genfast import ops
from genfast.nn.masked_conv import MaskedConv2d, color_mask


class RowLSTM(nn.Module):
    """An LSTM that scans the image from top to bottom: every pixel reads a triangle of the rows above it.

    Input-to-state is a 1x3 convolution, mask B: it reads the pixel at the left and the present one (the third tap,
    always masked, is not stored). State-to-state reads three pixels of the row above. So pixel (i, j) reads
    (i - k, j - k - 1) to (i - k, j + k) for every k >= 0: no pixel further at the side is seen, but a layer is half
    the work of a Diagonal BiLSTM.
    The present pixel is read too, so the layer comes after a mask A convolution.

    Args:
        in_channels: input features F.
        hidden: hidden units h.
        colors: 1 for grey, 3 for R -> G -> B; `color_mask` says how colours share F and h. The present pixel's
            part of input-to-state alone is masked: state-to-state reads earlier pixels only, and the cell never
            mixes units.
    Shape: [B, F, H, W] -> [B, h, H, W], channels last in memory.
    Parameters: input_weight [2, F, 4h] (left pixel, present pixel), input_bias [4h], weight [3, h, 4h], h0 and c0
        [h] (what lies outside the image). Gate order i, f, g, o.
    Paper: Pixel Recurrent Neural Networks, section 3.1, arXiv 1601.06759.
    Example: `RowLSTM(32, 16)(torch.randn(2, 32, 28, 28))`
    """

    def __init__(self, in_channels, hidden, colors=1):
        super().__init__()
        self.in_channels, self.hidden, self.colors = in_channels, hidden, colors
        self.input_weight = nn.Parameter(torch.empty(2, in_channels, 4 * hidden))
        self.input_bias = nn.Parameter(torch.empty(4 * hidden))
        self.weight = nn.Parameter(torch.empty(3, hidden, 4 * hidden))
        self.h0 = nn.Parameter(torch.empty(hidden))
        self.c0 = nn.Parameter(torch.empty(hidden))
        present = color_mask(in_channels, hidden, colors).T.float().repeat(1, 4)
        mask = torch.stack((torch.ones_like(present), present)) if colors > 1 else None
        self.register_buffer("mask", mask, persistent=False)
        self.reset_parameters()

    def reset_parameters(self):
        """Uniform in +-1/sqrt(fan in); forget gates start open (bias 1); h0 and c0 start at zero."""
        for weight in (self.input_weight, self.weight):
            bound = 1 / math.sqrt(weight.shape[0] * weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
        nn.init.zeros_(self.input_bias)
        nn.init.ones_(self.input_bias[self.hidden : 2 * self.hidden])
        nn.init.zeros_(self.h0)
        nn.init.zeros_(self.c0)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        left = F.pad(x[:, :, :-1], (0, 0, 1, 0))
        input_weight = self.input_weight if self.mask is None else self.input_weight * self.mask
        gates = F.linear(torch.cat((left, x), 3), input_weight.flatten(0, 1).T, self.input_bias)
        state = (p.to(gates.dtype) for p in (self.weight, self.h0, self.c0))
        return ops.row_lstm(gates, *state).permute(0, 3, 1, 2)

    def extra_repr(self):
        return f"{self.in_channels}, hidden={self.hidden}, colors={self.colors}"


class ResidualRowBlock(nn.Module):
    """Row LSTM from 2h features to h units, a 1x1 convolution back to 2h, added to the input.

    `x + conv1x1(RowLSTM(x))`. The 1x1 convolution (mask B) starts at zero, so a stack of blocks starts as the
    identity.

    Args:
        hidden: hidden units h; the features are 2h.
        colors: 1 for grey, 3 for R -> G -> B.
        dropout: probability that a feature map of an image leaves the residual branch in training (as in
            `torch.nn.Dropout2d`).
    Shape: [B, 2h, H, W] -> [B, 2h, H, W], channels last in memory.
    Paper: Pixel Recurrent Neural Networks, section 3.3 and figure 5, arXiv 1601.06759.
    Example: `ResidualRowBlock(16)(torch.randn(2, 32, 28, 28))`
    """

    def __init__(self, hidden, colors=1, dropout=0.0):
        super().__init__()
        self.hidden, self.colors, self.dropout = hidden, colors, dropout
        self.scan = RowLSTM(2 * hidden, hidden, colors)
        self.output = MaskedConv2d(hidden, 2 * hidden, 1, "B", colors)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x):
        x = x.contiguous(memory_format=torch.channels_last)
        branch = self.output(self.scan(x))
        return x + (F.dropout2d(branch, self.dropout, self.training) if self.dropout else branch)

    def extra_repr(self):
        return f"{self.hidden}, colors={self.colors}, dropout={self.dropout}"
