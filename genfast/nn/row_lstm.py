"""The Row LSTM and its residual block."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast import ops
from genfast._state import Stateful
from genfast.nn.masked_conv import MaskedConv2d, color_mask


class RowLSTM(Stateful):
    """An LSTM that scans the image from top to bottom: a pixel depends on a triangle of the rows above it.

    Input-to-state is a 1x3 convolution with mask B: it reads the pixel at the left and the current pixel. Its third
    weight is always masked and is not stored. State-to-state reads three pixels of the row above. So pixel (i, j)
    depends on the pixels (i - k, j - k - 1) to (i - k, j + k) for every k >= 0. Pixels outside this triangle are
    hidden, but a layer takes half the work of a Diagonal BiLSTM.
    A pixel also depends on itself, so a convolution with mask A must precede the layer.

    Args:
        in_channels: input features F.
        hidden: hidden units h.
        colors: 1 for grey, 3 for R -> G -> B; `color_mask` defines how the colours share F and h. Only input-to-state
            of the current pixel is masked: state-to-state reads earlier pixels only, and the cell never mixes units.
    Shape: [B, F, H, W] -> [B, h, H, W], channels last in memory.
    Parameters: input_weight [2, F, 4h] (left pixel, current pixel), input_bias [4h], weight [3, h, 4h], h0 and c0 [h]
        (the state outside the image). Gate order i, f, g, o.
    Paper: Pixel Recurrent Neural Networks, section 3.1, arXiv 1601.06759.
    Example: `RowLSTM(32, 16)(torch.randn(2, 32, 28, 28))`
    """

    mask: Tensor | None

    def __init__(self, in_channels: int, hidden: int, colors: int = 1) -> None:
        super().__init__()
        self.in_channels, self.hidden, self.colors = in_channels, hidden, colors
        self.input_weight = nn.Parameter(torch.empty(2, in_channels, 4 * hidden))
        self.input_bias = nn.Parameter(torch.empty(4 * hidden))
        self.weight = nn.Parameter(torch.empty(3, hidden, 4 * hidden))
        self.h0 = nn.Parameter(torch.empty(hidden))
        self.c0 = nn.Parameter(torch.empty(hidden))
        self.register_constants(self.weight)
        self.reset_parameters()

    def constants(self) -> dict[str, Tensor | None]:
        """The mask of `input_weight`; None for grey images."""
        current = color_mask(self.in_channels, self.hidden, self.colors).T.float().repeat(1, 4)
        return {"mask": torch.stack((torch.ones_like(current), current)) if self.colors > 1 else None}

    def reset_parameters(self) -> None:
        """Weights uniform in +-1/sqrt(fan in), forget gate biases 1, all else zero."""
        for weight in (self.input_weight, self.weight):
            bound = 1 / math.sqrt(weight.shape[0] * weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
        nn.init.zeros_(self.input_bias)
        nn.init.ones_(self.input_bias[self.hidden : 2 * self.hidden])
        nn.init.zeros_(self.h0)
        nn.init.zeros_(self.c0)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        left = F.pad(x[:, :, :-1], (0, 0, 1, 0))
        input_weight = self.input_weight if self.mask is None else self.input_weight * self.mask
        gates = F.linear(torch.cat((left, x), 3), input_weight.flatten(0, 1).T, self.input_bias)
        state = (p.to(gates.dtype) for p in (self.weight, self.h0, self.c0))
        return ops.row_lstm(gates, *state).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, hidden={self.hidden}, colors={self.colors}"


class ResidualRowBlock(nn.Module):
    """`x + conv1x1(RowLSTM(x))`.

    The LSTM maps 2h features to h units, the 1x1 convolution (mask B) maps them back to 2h. The convolution is
    initialised to zero, so a stack of blocks starts as the identity.

    Args:
        hidden: hidden units h; the features are 2h.
        colors: 1 for grey, 3 for R -> G -> B.
        dropout: probability that a feature map of the residual branch is dropped in training, as in
            `torch.nn.Dropout2d`.
    Shape: [B, 2h, H, W] -> [B, 2h, H, W], channels last in memory.
    Paper: Pixel Recurrent Neural Networks, section 3.3 and figure 5, arXiv 1601.06759.
    Example: `ResidualRowBlock(16)(torch.randn(2, 32, 28, 28))`
    """

    def __init__(self, hidden: int, colors: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.colors, self.dropout = hidden, colors, dropout
        self.scan = RowLSTM(2 * hidden, hidden, colors)
        self.output = MaskedConv2d(hidden, 2 * hidden, 1, "B", colors)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        branch = self.output(self.scan(x))
        return x + (F.dropout2d(branch, self.dropout, self.training) if self.dropout else branch)

    def extra_repr(self) -> str:
        return f"{self.hidden}, colors={self.colors}, dropout={self.dropout}"
