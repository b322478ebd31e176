"""Convolutions of PixelCNN++: the kernel is shifted up, or up and left, instead of masked."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shift = Literal["down", "down-right"]
SHIFTS = ("down", "down-right")


class ShiftedConv2d(nn.Module):
    """Convolution whose kernel ends at the current row, or at the current pixel.

    With shift "down" it reads rows up to the current row, and columns on both sides of the current column. With shift
    "down-right" it reads rows and columns up to the current pixel.
    Mask B is for features, which already exclude the current row or pixel of the image, so the kernel includes its
    place. Mask A is for the image itself: the kernel is shifted one row further up, or one column further left with
    shift "down-right".

    Args:
        in_channels, out_channels: features F and F'.
        kernel_size: (height, width); the width is odd with shift "down".
        shift: "down" or "down-right".
        mask: "A" or "B".
        stride: 1 or 2; with 2 the height and width must be even.
    Shape: [B, F, H, W] -> [B, F', H / stride, W / stride], channels last in memory.
    Paper: PixelCNN++, section 2.3 and figure 2, arXiv 1701.05517.
    Example: `ShiftedConv2d(2, 40, (2, 3), "down", mask="A")(torch.randn(1, 2, 8, 8))`
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        shift: Shift,
        mask: Literal["A", "B"] = "B",
        stride: int = 1,
    ) -> None:
        super().__init__()
        _check("ShiftedConv2d", kernel_size, shift)
        if mask not in ("A", "B"):
            raise ValueError(f"ShiftedConv2d: mask must be 'A' or 'B'; got {mask!r}")
        if stride not in (1, 2):
            raise ValueError(f"ShiftedConv2d: stride must be 1 or 2; got {stride}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, tuple(kernel_size)
        self.shift, self.mask, self.stride = shift, mask, stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights and biases uniform in +-1/sqrt(fan in)."""
        _uniform(self.weight, self.bias, self.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        above, left = self.kernel_size[0] - 1, self.kernel_size[1] - 1
        before = int(self.mask == "A")
        if self.shift == "down":
            padding = (left // 2, left // 2, above + before, -before)
        else:
            padding = (left + before, -before, above, 0)
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(F.pad(x, padding), weight, self.bias, self.stride)
        return y.contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"shift={self.shift!r}, mask={self.mask!r}, stride={self.stride}"
        )


class ShiftedConvTranspose2d(nn.Module):
    """Transposed convolution that doubles height and width and passes nothing up, or nothing up and left.

    Output rows 2i and 2i + 1 read input row i. With shift "down" and kernel (2, 3), output columns 2j - 1 to 2j + 1
    read input column j; with shift "down-right" and kernel (2, 2), output columns 2j and 2j + 1 read input column j.
    After `ShiftedConv2d` with stride 2 and the same shift, a row reads no later row, and a pixel no later pixel.

    Args:
        in_channels, out_channels: features F and F'.
        shift: "down" or "down-right".
    Shape: [B, F, H, W] -> [B, F', 2H, 2W], channels last in memory.
    Paper: PixelCNN++, section 2.3, arXiv 1701.05517.
    Example: `ShiftedConvTranspose2d(40, 40, "down-right")(torch.randn(1, 40, 4, 4))`
    """

    def __init__(self, in_channels: int, out_channels: int, shift: Shift) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.shift = in_channels, out_channels, shift
        self.kernel_size = (2, 3) if shift == "down" else (2, 2)
        _check("ShiftedConvTranspose2d", self.kernel_size, shift)
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1/sqrt(F): an output reads one input pixel (with width 3, every other output reads two)."""
        _uniform(self.weight, self.bias, self.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        side = (0, self.kernel_size[1] - 2)
        y = F.conv_transpose2d(x, self.weight, self.bias, 2, padding=side, output_padding=side)
        return y.contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, shift={self.shift!r}"


def _check(name: str, kernel_size: tuple[int, int], shift: str) -> None:
    if shift not in SHIFTS:
        raise ValueError(f"{name}: shift must be one of {SHIFTS}; got {shift!r}")
    height, width = kernel_size
    if height < 1 or width < 1 or (shift == "down" and width % 2 == 0):
        expected = "at least 1, and an odd width with shift 'down'"
        raise ValueError(f"{name}: kernel_size must be {expected}; got {kernel_size}")


def _uniform(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    for parameter in (weight, bias):
        nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
