"""The residual block of PixelCNN++."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast.nn.shifted_conv import Shift, ShiftedConv2d


def concat_elu(x: Tensor) -> Tensor:
    """ELU of the features and of their negatives: float [B, F, H, W] -> [B, 2F, H, W]."""
    return F.elu(torch.cat((x, -x), 1))


class GatedResidualBlock(nn.Module):
    """`x + a * sigmoid(b)`, where two shifted convolutions of concat-ELU features give a and b.

    ::

        c = conv(concat_elu(x)) + linear(concat_elu(s))
        a, b = conv(dropout(concat_elu(c))) + label_bias[y]

    s are features of the other stream or of a skip connection, y is the label of the image.
    The second convolution is initialised at a tenth of the usual scale, so that a stack of blocks starts close to the
    identity, as with the paper's data-dependent initialisation.

    Args:
        features: F.
        kernel_size, shift: arguments of both convolutions, as in `ShiftedConv2d` (mask B).
        shortcut: features S of the second input s; 0: no second input.
        dropout: probability that a feature map is dropped in training, as in `torch.nn.Dropout2d`. Dropping single
            values would cost more than the gate.
        classes: number of labels, each with a bias on a and b; 0: unconditional.
    Shape: x [B, F, H, W], s [B, S, H, W], labels int64 [B] -> [B, F, H, W], channels last in memory.
    Paper: PixelCNN++, section 2 (architecture) and figure 3, arXiv 1701.05517.
    Example: `GatedResidualBlock(40, (2, 3), "down")(torch.randn(1, 40, 8, 8))`
    """

    def __init__(
        self,
        features: int,
        kernel_size: tuple[int, int],
        shift: Shift,
        shortcut: int = 0,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.features, self.shortcut, self.dropout, self.classes = features, shortcut, dropout, classes
        self.input = ShiftedConv2d(2 * features, features, kernel_size, shift)
        self.output = ShiftedConv2d(2 * features, 2 * features, kernel_size, shift)
        self.side = nn.Linear(2 * shortcut, features, bias=False) if shortcut else None
        self.label_bias = nn.Parameter(torch.empty(classes, 2 * features)) if classes else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.input.reset_parameters()
        self.output.reset_parameters()
        with torch.no_grad():
            self.output.weight.mul_(0.1)
            self.output.bias.zero_()
        if self.side is not None:
            nn.init.uniform_(self.side.weight, -0.5 / math.sqrt(self.shortcut), 0.5 / math.sqrt(self.shortcut))
        if self.label_bias is not None:
            nn.init.zeros_(self.label_bias)

    def forward(self, x: Tensor, s: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        c = self.input(concat_elu(x))
        if self.side is not None:
            c = c + self.side(concat_elu(s).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[arg-type]
        c = self.output(F.dropout2d(concat_elu(c), self.dropout, self.training))
        if self.label_bias is not None:
            c = c + F.embedding(labels, self.label_bias)[:, :, None, None]  # type: ignore[arg-type]
        a, b = c.chunk(2, 1)
        return x + a * torch.sigmoid(b)

    def extra_repr(self) -> str:
        return f"{self.features}, shortcut={self.shortcut}, dropout={self.dropout}, classes={self.classes}"
