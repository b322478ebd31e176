"""Masked convolutions: they read earlier pixels in raster order, and earlier colours inside a pixel."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from genfast import ops
from genfast._state import Stateful
from genfast.reference import masked_conv2d


def color_mask(inputs: int, outputs: int, colors: int = 1, mask: Literal["A", "B"] = "B") -> Tensor:
    """Which input features an output feature may read inside one pixel: bool [outputs, inputs].

    Feature k of n belongs to colour `k * colors // n`: groups in the order R, G, B, as equal as n allows (6, 5 and 5 of
    n = 16 features). With mask A a feature reads earlier colours, with mask B also its own colour.

    Args:
        inputs, outputs: number of features, each at least `colors`.
        colors: 1 for grey, 3 for R -> G -> B.
        mask: "A" or "B".
    Raises: ValueError for another mask, or fewer features than colours.
    Example: `color_mask(3, 3, 3, "A")` is strictly lower triangular.
    """
    _check_colors(inputs, outputs, colors, mask)
    return masked_conv2d.color_mask(inputs, outputs, colors, mask)


def _check_colors(inputs: int, outputs: int, colors: int, mask: str) -> None:
    if mask not in ("A", "B"):
        raise ValueError(f"color_mask: mask must be 'A' or 'B'; got {mask!r}")
    if colors < 1 or min(inputs, outputs) < colors:
        raise ValueError(
            "color_mask: expected at least one feature for each colour and one colour; "
            f"got {inputs} inputs, {outputs} outputs, colors={colors}"
        )


class MaskedConv2d(Stateful):
    """Convolution of stride 1 and equal size that reads the pixels before the current pixel in raster order.

    Of the current pixel, at the centre of the kernel, mask A (first layer) reads the earlier colours only, mask B
    (later layers) also the current colour.

    Args:
        in_channels, out_channels: features F and F'; `color_mask` defines how the colours share them.
        kernel_size: an odd int, or a pair (height, width) of odd ints.
        mask: "A" or "B".
        colors: 1 for grey, 3 for R -> G -> B.
        bias: whether to add a learned bias.
    Shape: [B, F, H, W] -> [B, F', H, W], channels last in memory.
    Paper: Pixel Recurrent Neural Networks, section 3.4 and figure 4, arXiv 1601.06759.
    Example: `MaskedConv2d(1, 32, 7, mask="A")(torch.randn(2, 1, 28, 28))`
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        mask: Literal["A", "B"],
        colors: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if height < 1 or width < 1 or height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"MaskedConv2d: kernel_size must be odd; got {kernel_size}")
        _check_colors(in_channels, out_channels, colors, mask)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, (height, width)
        self.mask_type, self.colors = mask, colors
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, height, width))
        self.register_constants(self.weight)
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def constants(self) -> dict[str, Tensor | None]:
        """The mask: 1 for the weights that are used."""
        sizes = self.out_channels, self.in_channels, *self.kernel_size
        return {"mask": masked_conv2d.tap_mask(sizes, self.mask_type, self.colors).float()}

    def reset_parameters(self, gain: float = 3**-0.5) -> None:
        """Weights uniform with standard deviation gain / sqrt(fan in); the fan in counts only the unmasked weights.

        The default gain is that of `torch.nn.Conv2d`; sqrt(2) preserves the variance through a ReLU (He et al. 2015).
        """
        mask: Tensor = self._computed()["mask"]  # type: ignore[assignment]  # never None
        bound = 1 / math.sqrt(max(1, int(mask.sum(dim=(1, 2, 3)).max())))
        nn.init.uniform_(self.weight, -gain * math.sqrt(3) * bound, gain * math.sqrt(3) * bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def masked_weight(self) -> Tensor:
        """The weight, 0 where it is not used."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        y = ops.masked_conv2d(x, self.weight, self.bias, self.mask_type, self.colors)
        return y.contiguous(memory_format=torch.channels_last)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"mask={self.mask_type!r}, colors={self.colors}, bias={self.bias is not None}"
        )
