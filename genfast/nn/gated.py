"""The two stacks of Gated PixelCNN."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast import ops
from genfast._state import Stateful
from genfast.nn.masked_conv import color_mask


class GatedStackLayer(Stateful):
    """One layer of the vertical and the horizontal stack of Gated PixelCNN.

    ::

        a = conv_rows_above(v)             v' = gate(a + label_bias_v[y])
        b = conv_left(h) + linear(a)       g  = gate(b + label_bias_h[y])
        h' = h + residual(g)               skip = skip(g)        gate(p, q) = tanh(p) * sigmoid(q)

    The vertical features of a row depend only on the rows above it. The first layer (mask A) ensures that, so later
    layers (mask B) read `kernel_size // 2 + 1` whole rows of vertical features, including the current row. The
    horizontal convolution reads the current row up to the current pixel; of that pixel it reads the earlier colours
    (mask A), or also the current colour (mask B). So there is no blind spot: only distance hides an earlier pixel.

    Args:
        in_channels: features of both inputs: the channels of the image for mask A, `features` for mask B.
        features: F.
        skip: features S of the skip connection to the output.
        kernel_size: k, odd, at least 3: k columns and k // 2 rows above; k // 2 columns to the left.
        mask: "A" for the first layer, which has no residual connection; else "B".
        colors: 1 for grey, 3 for R -> G -> B; `color_mask` defines how the colours share F and S in the horizontal
            stack. The vertical stack needs no colour mask.
        classes: number of labels, each with a bias on the gates; 0: unconditional.
        dropout: probability that a feature map of g is dropped in training, as in `torch.nn.Dropout2d`.
    Shape: v, h [B, in_channels, H, W], labels int64 [B] -> v', h' [B, F, H, W], skip [B, S, H, W], channels last in
        memory.
    Paper: Conditional Image Generation with PixelCNN Decoders, sections 2.1 to 2.3, arXiv 1606.05328.
    Example: `GatedStackLayer(1, 32, 32, kernel_size=7, mask="A")(x := torch.randn(2, 1, 28, 28), x)`
    """

    left_mask: Tensor
    output_mask: Tensor | None

    def __init__(
        self,
        in_channels: int,
        features: int,
        skip: int,
        kernel_size: int = 3,
        mask: Literal["A", "B"] = "B",
        colors: int = 1,
        classes: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f"GatedStackLayer: kernel_size must be odd and at least 3; got {kernel_size}")
        if mask == "B" and in_channels != features:
            raise ValueError(
                f"GatedStackLayer: in_channels must be features={features} for mask 'B'; got {in_channels}"
            )
        self.in_channels, self.features, self.skip = in_channels, features, skip
        self.kernel_size, self.mask_type, self.colors, self.dropout = kernel_size, mask, colors, dropout
        side = kernel_size // 2
        self.above_weight = nn.Parameter(torch.empty(2 * features, in_channels, side + (mask == "B"), kernel_size))
        self.above_bias = nn.Parameter(torch.empty(2 * features))
        self.left_weight = nn.Parameter(torch.empty(2 * features, in_channels, 1, side + 1))
        self.left_bias = nn.Parameter(torch.empty(2 * features))
        self.cross_weight = nn.Parameter(torch.empty(2 * features, 2 * features))
        self.output_weight = nn.Parameter(torch.empty(features + skip, features))
        self.output_bias = nn.Parameter(torch.empty(features + skip))
        self.label_bias = nn.Parameter(torch.empty(classes, 2, 2 * features)) if classes else None
        self.register_constants(self.left_weight)
        self.reset_parameters()

    def constants(self) -> dict[str, Tensor | None]:
        """The masks of `left_weight` and `output_weight`; the latter is None for grey images."""
        features, colors, side = self.features, self.colors, self.kernel_size // 2
        left = torch.ones(2 * features, self.in_channels, 1, side + 1, dtype=torch.float32, device="cpu")
        left[..., 0, side] = color_mask(self.in_channels, features, colors, self.mask_type).repeat(2, 1)
        output = torch.cat([color_mask(features, n, colors) for n in (features, self.skip)]).float()
        return {"left_mask": left, "output_mask": output if colors > 1 else None}

    def reset_parameters(self) -> None:
        """Weights before a gate have variance 4 / fan in: a gate halves small values. The residual starts at zero."""
        for weight in (self.above_weight, self.left_weight, self.cross_weight):
            bound = 2 * math.sqrt(3 / weight[0].numel())
            nn.init.uniform_(weight, -bound, bound)
        for bias in (self.above_bias, self.left_bias, self.output_bias):
            nn.init.zeros_(bias)
        with torch.no_grad():
            # The horizontal gate adds two convolutions: each has half the variance.
            self.left_weight.mul_(math.sqrt(0.5))
            self.cross_weight.mul_(math.sqrt(0.5))
        nn.init.uniform_(self.output_weight, -1 / math.sqrt(self.features), 1 / math.sqrt(self.features))
        nn.init.zeros_(self.output_weight[: self.features])
        if self.label_bias is not None:
            nn.init.zeros_(self.label_bias)

    def forward(self, v: Tensor, h: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        side = self.kernel_size // 2
        own_row = 0 if self.mask_type == "B" else -1
        above = _conv(v, (side, side, side, own_row), self.above_weight, self.above_bias)
        left = _conv(h, (side, 0, 0, 0), self.left_weight * self.left_mask, self.left_bias)
        left = left + F.linear(above.permute(0, 2, 3, 1), self.cross_weight).permute(0, 3, 1, 2)
        if self.label_bias is not None:
            biases = F.embedding(labels, self.label_bias.flatten(1))  # type: ignore[arg-type]
            up, across = biases[:, :, None, None].chunk(2, 1)
            above, left = above + up, left + across
        g = F.dropout2d(ops.gated_activation(left), self.dropout, self.training)
        output_weight = self.output_weight if self.output_mask is None else self.output_weight * self.output_mask
        output = F.linear(g.permute(0, 2, 3, 1), output_weight, self.output_bias).permute(0, 3, 1, 2)
        residual, skip = output.split((self.features, self.skip), 1)
        return ops.gated_activation(above), residual if self.mask_type == "A" else h + residual, skip

    def extra_repr(self) -> str:
        classes = 0 if self.label_bias is None else len(self.label_bias)
        return (
            f"{self.in_channels}, {self.features}, skip={self.skip}, kernel_size={self.kernel_size}, "
            f"mask={self.mask_type!r}, colors={self.colors}, classes={classes}, dropout={self.dropout}"
        )


def _conv(x: Tensor, padding: tuple[int, int, int, int], weight: Tensor, bias: Tensor) -> Tensor:
    y = F.conv2d(F.pad(x, padding), weight.contiguous(memory_format=torch.channels_last), bias)
    return y.contiguous(memory_format=torch.channels_last)
