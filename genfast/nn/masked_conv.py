"""Convolutions that read only what comes earlier in raster order, and earlier colours inside a pixel."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def color_mask(inputs, outputs, colors=1, mask="B"):
    """Which input feature an output feature may read inside one pixel: bool [outputs, inputs].

    Feature k of n belongs to colour `k * colors // n`: groups in the order R, G, B, as even as n allows
    (n = 16 and 3 colours make 6, 5, 5). Mask A lets a group read earlier colours, mask B also its own.

    Raises: ValueError for another mask, or fewer features than colours.
    Example: `color_mask(3, 3, 3, "A")` is strictly lower triangular.
    """
    if mask not in ("A", "B"):
        raise ValueError(f"color_mask: mask must be 'A' or 'B'; got {mask!r}")
    if colors < 1 or min(inputs, outputs) < colors:
        raise ValueError(
            "color_mask: expected at least one feature for each colour and one colour; "
            f"got {inputs} inputs, {outputs} outputs, colors={colors}"
        )
    source = torch.arange(inputs) * colors // inputs
    target = (torch.arange(outputs) * colors // outputs)[:, None]
    return source < target if mask == "A" else source <= target


class MaskedConv2d(nn.Module):
    """Convolution, stride 1, same size, over the pixels before the present one in raster order.

    The kernel's centre is the present pixel: there mask A admits the earlier colours only (first layer),
    mask B also the own colour (later layers).

    Args:
        in_channels, out_channels: features F and F'; `color_mask` says how colours share them.
        kernel_size: odd, an int or a pair (height, width).
        mask: "A" or "B".
        colors: 1 for grey, 3 for R -> G -> B.
        bias: learn a bias.
    Shape: [B, F, H, W] -> [B, F', H, W], channels last in memory.
    Paper: Pixel Recurrent Neural Networks, section 3.4 and figure 4, arXiv 1601.06759.
    Example: `MaskedConv2d(1, 32, 7, mask="A")(torch.randn(2, 1, 28, 28))`
    """

    def __init__(self, in_channels, out_channels, kernel_size, mask, colors=1, bias=True):
        super().__init__()
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if height < 1 or width < 1 or height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"MaskedConv2d: kernel_size must be odd; got {kernel_size}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, (height, width)
        self.mask_type, self.colors = mask, colors
        allowed = torch.zeros(out_channels, in_channels, height, width)
        allowed[:, :, : height // 2] = 1
        allowed[:, :, height // 2, : width // 2] = 1
        allowed[:, :, height // 2, width // 2] = color_mask(in_channels, out_channels, colors, mask)
        self.register_buffer("mask", allowed, persistent=False)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, height, width))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, gain=3**-0.5):
        """Weights uniform with standard deviation gain/sqrt(fan in), counting only the taps that the mask admits.

        The default is that of `torch.nn.Conv2d`; sqrt(2) keeps the scale of what passes a ReLU (He et al. 2015).
        """
        bound = 1 / math.sqrt(max(1, int(self.mask.sum(dim=(1, 2, 3)).max())))
        nn.init.uniform_(self.weight, -gain * math.sqrt(3) * bound, gain * math.sqrt(3) * bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x):
        weight = self.weight * self.mask
        if self.kernel_size == (1, 1):
            return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        # The rows below the centre are all masked: leaving them out nearly halves the work.
        above, side = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        weight = weight[:, :, : above + 1].contiguous(memory_format=torch.channels_last)
        y = F.conv2d(F.pad(x, (side, side, above, 0)), weight, self.bias)
        return y.contiguous(memory_format=torch.channels_last)

    def extra_repr(self):
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"mask={self.mask_type!r}, colors={self.colors}, bias={self.bias is not None}"
        )
