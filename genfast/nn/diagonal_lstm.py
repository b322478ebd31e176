"""The Diagonal BiLSTM and its residual block."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast import ops
from genfast._state import Stateful
from genfast.nn.masked_conv import color_mask


class DiagonalBiLSTM(Stateful):
    """Two LSTMs that scan the image along its diagonals: a pixel depends on all pixels before it in raster order.

    `left + shift_down(right)`: `left` scans from the top left corner, `right` from the top right corner. The shift by
    one row prevents a pixel from depending on the pixels at its right.
    A pixel also depends on itself (mask B), so a convolution with mask A must precede the layer.

    Args:
        in_channels: input features F.
        hidden: hidden units h of each direction.
        colors: 1 for grey, 3 for R -> G -> B; `color_mask` defines how the colours share F and h. Only input-to-state
            is masked: state-to-state reads earlier pixels only, and the cell never mixes units.
    Shape: [B, F, H, W] -> [B, h, H, W], channels last in memory.
    Parameters: input_weight [F, 2, 4h], input_bias [2, 4h], weight [2, 2, h, 4h] (direction; row above, side pixel),
        h0 and c0 [2, h] (the state outside the image). Gate order i, f, g, o.
    Paper: Pixel Recurrent Neural Networks, section 3.2, arXiv 1601.06759.
    Example: `DiagonalBiLSTM(32, 16)(torch.randn(2, 32, 28, 28))`
    """

    mask: Tensor | None

    def __init__(self, in_channels: int, hidden: int, colors: int = 1) -> None:
        super().__init__()
        self.in_channels, self.hidden, self.colors = in_channels, hidden, colors
        self.input_weight = nn.Parameter(torch.empty(in_channels, 2, 4 * hidden))
        self.input_bias = nn.Parameter(torch.empty(2, 4 * hidden))
        self.weight = nn.Parameter(torch.empty(2, 2, hidden, 4 * hidden))
        self.h0 = nn.Parameter(torch.empty(2, hidden))
        self.c0 = nn.Parameter(torch.empty(2, hidden))
        self.register_constants(self.weight)
        DiagonalBiLSTM.reset_parameters(self)

    def constants(self) -> dict[str, Tensor | None]:
        """The mask of `input_weight`; None for grey images."""
        mask = color_mask(self.in_channels, self.hidden, self.colors).T.float().repeat(1, 4)[:, None]
        return {"mask": mask if self.colors > 1 else None}

    def reset_parameters(self) -> None:
        """Weights uniform in +-1/sqrt(fan in), forget gate biases 1, all else zero."""
        for weight, inputs in ((self.input_weight, self.in_channels), (self.weight, self.hidden)):
            nn.init.uniform_(weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
        nn.init.zeros_(self.input_bias)
        nn.init.ones_(self.input_bias[:, self.hidden : 2 * self.hidden])
        nn.init.zeros_(self.h0)
        nn.init.zeros_(self.c0)

    def masked_input_weight(self) -> Tensor:
        """`input_weight`, zero where a colour must not be read."""
        return self.input_weight if self.mask is None else self.input_weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        input_weight = self.masked_input_weight().flatten(1).T
        gates = F.linear(x.permute(0, 2, 3, 1), input_weight, self.input_bias.flatten())
        state = (p.to(gates.dtype) for p in (self.weight, self.h0, self.c0))
        left, right = ops.diagonal_lstm(gates.unflatten(3, (2, -1)), *state).unbind(3)
        y = left + F.pad(right[:, :-1], (0, 0, 0, 0, 1, 0))
        return y.contiguous().permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, hidden={self.hidden}, colors={self.colors}"


class ResidualDiagonalBlock(DiagonalBiLSTM):
    """`x + conv1x1(DiagonalBiLSTM(x))`, computed as one op.

    The LSTM maps 2h features to h units, the 1x1 convolution (mask B) maps them back to 2h. The convolution is
    initialised to zero, so a stack of blocks starts as the identity.

    Args:
        hidden: hidden units h of each direction; the features are 2h.
        colors: 1 for grey, 3 for R -> G -> B.
        dropout: probability that a feature map of the residual branch is dropped in training, as in
            `torch.nn.Dropout2d`. Dropping single values would make a training step a fifth slower.
    Shape: [B, 2h, H, W] -> [B, 2h, H, W], channels last in memory.
    Parameters: those of `DiagonalBiLSTM`, output_weight [h, 2h], output_bias [2h].
    Paper: Pixel Recurrent Neural Networks, section 3.3 and figure 5, arXiv 1601.06759.
    Example: `ResidualDiagonalBlock(16)(torch.randn(2, 32, 28, 28))`
    """

    output_mask: Tensor | None

    def __init__(self, hidden: int, colors: int = 1, dropout: float = 0.0) -> None:
        super().__init__(2 * hidden, hidden, colors)
        self.dropout = dropout
        self.output_weight = nn.Parameter(torch.zeros(hidden, 2 * hidden))
        self.output_bias = nn.Parameter(torch.zeros(2 * hidden))

    def constants(self) -> dict[str, Tensor | None]:
        """The masks of `input_weight` and `output_weight`; None for grey images."""
        masks = super().constants()
        output = color_mask(self.hidden, 2 * self.hidden, self.colors).T.float()
        return {**masks, "output_mask": output if self.colors > 1 else None}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.output_weight)
        nn.init.zeros_(self.output_bias)

    def masked_output_weight(self) -> Tensor:
        """`output_weight`, zero where a colour must not be read."""
        return self.output_weight if self.output_mask is None else self.output_weight * self.output_mask

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        scan = (self.masked_input_weight(), self.input_bias, self.weight, self.h0, self.c0)
        output = (self.masked_output_weight(), self.output_bias)
        y = ops.diagonal_block(x, *(p.to(x.dtype) for p in scan + output))
        if self.training and self.dropout > 0:
            # The op has added the branch to x already; lerp scales the difference in one pass.
            y = torch.lerp(x, y, F.dropout(x.new_ones(x.shape[0], 1, 1, x.shape[3]), self.dropout))
        return y.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"{self.hidden}, colors={self.colors}, dropout={self.dropout}"
