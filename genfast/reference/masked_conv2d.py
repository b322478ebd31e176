"""The masked convolution in plain PyTorch: the specification of `genfast.ops.masked_conv2d`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.reference._spec import Inputs, Sizes, Spec, normal


def masked_conv2d_ref(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, mask: str = "B", colors: int = 1, dilation: int = 1
) -> Tensor:
    """`x` [B, C, H, W] -> [B, O, H, W]: a convolution of stride 1 with zeros around, whose later taps are masked."""
    above, side = (size // 2 for size in weight.shape[2:])
    # All rows below the centre are masked; without them the convolution takes nearly half the work.
    used = tap_mask(weight.shape, mask, colors)[:, :, : above + 1].to(weight.device)
    weight = torch.where(used, weight[:, :, : above + 1], 0)
    # torch takes no images without rows or columns.
    rows, columns = x.shape[2:]
    x = F.pad(x, (side * dilation, side * dilation + (columns == 0), above * dilation, int(rows == 0)))
    return F.conv2d(x, weight, bias, dilation=dilation)[:, :, :rows, :columns]


def color_mask(inputs: int, outputs: int, colors: int = 1, mask: str = "B") -> Tensor:
    """Which input features an output feature may read inside one pixel: bool [outputs, inputs].

    Feature k of n belongs to colour `k * colors // n`: groups in the order R, G, B, as equal as n allows (6, 5 and 5 of
    n = 16 features). With mask A a feature reads earlier colours, with mask B also its own colour.
    """
    source, target = (torch.arange(n, dtype=torch.int64, device="cpu") * colors // n for n in (inputs, outputs))
    return source < target[:, None] if mask == "A" else source <= target[:, None]


def tap_mask(shape: Sequence[int], mask: str, colors: int) -> Tensor:
    """Which weights of a `shape` [outputs, inputs, height, width] are used: bool, of that shape."""
    outputs, inputs, height, width = shape
    used = torch.zeros(*shape, dtype=torch.bool, device="cpu")
    used[:, :, : height // 2] = True
    used[:, :, height // 2, : width // 2] = True
    used[:, :, height // 2, width // 2] = color_mask(inputs, outputs, colors, mask)
    return used


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, height, width, inputs, outputs, taps = (sizes[k] for k in "BHWCOK")
    colors = sizes.get("colors", 1)
    fan_in = max(1, inputs * taps * taps // 2)
    return {
        "x": normal(generator, batch, inputs, height, width),
        "weight": normal(generator, outputs, inputs, taps, taps + 2 * (taps > 1), scale=fan_in**-0.5),
        "bias": normal(generator, outputs, scale=0.5),
        "mask": "A" if taps == 7 else "B",
        "colors": colors,
        "dilation": sizes.get("dilation", 1),
    }


def _sizes(*values: int, **more: int) -> dict[str, int]:
    return dict(zip("BHWCOK", values)) | more


SPEC = Spec(
    name="masked_conv2d",
    reference=masked_conv2d_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 1, 1),
        _sizes(3, 1, 7, 5, 3, 3),
        _sizes(2, 7, 1, 3, 5, 3),
        _sizes(5, 3, 11, 7, 15, 3),
        _sizes(2, 11, 5, 16, 16, 3),
        _sizes(3, 4, 4, 33, 17, 1),
        _sizes(17, 5, 3, 2, 33, 3),
        _sizes(33, 2, 3, 4, 8, 3),
        _sizes(2, 5, 6, 64, 48, 3),
        _sizes(2, 9, 8, 1, 6, 7),
        _sizes(2, 5, 7, 6, 9, 7, colors=3),
        _sizes(2, 6, 9, 5, 7, 3, dilation=2),
        _sizes(1, 7, 8, 3, 6, 7, colors=3, dilation=3),
        _sizes(2, 1, 2, 3, 4, 5),
        _sizes(0, 3, 4, 6, 5, 3),
        _sizes(2, 0, 4, 6, 3, 3),
        _sizes(2, 3, 0, 6, 3, 3),
    ),
    gradcheck=(_sizes(2, 3, 3, 3, 2, 3), _sizes(1, 3, 2, 3, 3, 3, colors=3), _sizes(1, 4, 3, 1, 2, 7)),
    bench={
        "B=64 28x28 C=16": _sizes(64, 28, 28, 16, 16, 3),
        "B=64 28x28 C=32": _sizes(64, 28, 28, 32, 32, 3),
        "B=16 32x32 C=64": _sizes(16, 32, 32, 64, 64, 3),
        "B=64 28x28 7x7 C=1 to 32": _sizes(64, 28, 28, 1, 32, 7),
    },
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 3.4 and figure 4, arXiv 1601.06759",
    ranges={"K": (1, 3, 5), "O": range(1, 41)},
)
