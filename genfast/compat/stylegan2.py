"""The operations of PyTorch ports of StyleGAN2: `from genfast.compat.stylegan2` in the place of `from op`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genfast import ops

__all__ = ["FusedLeakyReLU", "fused_leaky_relu", "upfirdn2d"]


def upfirdn2d(
    input: Tensor,
    kernel: Tensor,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: Sequence[int] = (0, 0),
) -> Tensor:
    """Upsample by zeros, pad, convolve with a kernel, keep every down-th pixel: `genfast.upfirdn2d`.

    Args:
        input: float [N, C, H, W].
        kernel: float [KH, KW]; it is converted to the dtype of the input, and has no gradient.
        up: factor, or (horizontal, vertical), each at least 1.
        down: factor, or (horizontal, vertical), each at least 1.
        pad: (before, after) of both axes, or (left, right, top, bottom); negative to crop.
    Returns: [N, C, (H up + top + bottom - KH) // down + 1, (W up + left + right - KW) // down + 1].
    Raises: as `genfast.upfirdn2d`; ValueError for a kernel of another number of dimensions.
    Paper: Analyzing and Improving the Image Quality of StyleGAN, arXiv 1912.04958.
    Example: `upfirdn2d(torch.randn(1, 3, 8, 8), torch.ones(4, 4) / 16, up=2, pad=(2, 1))`
    """
    if kernel.ndim != 2:
        raise ValueError(f"upfirdn2d: kernel must have shape [KH, KW]; got {tuple(kernel.shape)}")
    if len(pad) not in (2, 4):
        raise ValueError(f"upfirdn2d: pad must be 2 or 4 numbers; got {tuple(pad)}")
    left, right, top, bottom = (*pad, *pad) if len(pad) == 2 else pad
    factors = _vertical_first(up), _vertical_first(down)
    return ops.upfirdn2d(input, kernel.to(input.dtype), *factors, (left, right, top, bottom))


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = 2**0.5
) -> Tensor:
    """leaky_relu(input + bias) * scale, the bias along dimension 1: `genfast.bias_act`.

    Args:
        input: float [N, C] or [N, C, ...].
        bias: [C], or None; it is converted to the dtype of the input.
        negative_slope: at least 0. It holds on the CPU too, where some ports always take 0.2.
        scale: a finite number.
    Returns: as the input.
    Raises: as `genfast.bias_act`.
    Paper: A Style-Based Generator Architecture for Generative Adversarial Networks, appendix C, arXiv 1812.04948.
    Example: `fused_leaky_relu(torch.randn(2, 8, 4, 4), torch.zeros(8))`
    """
    bias = None if bias is None else bias.to(input.dtype)
    return ops.bias_act(input, bias, "leaky_relu", negative_slope, scale)


class FusedLeakyReLU(nn.Module):
    """`fused_leaky_relu` with a learned bias, which is `bias` in the state dict.

    Args:
        channel: C.
        bias: whether there is one. Ports before 2021 have no such argument: name `negative_slope` in their calls.
        negative_slope, scale: as in `fused_leaky_relu`.
    Shape: [N, C] or [N, C, ...] -> the same.
    Raises: TypeError for a bias that is no bool.
    """

    def __init__(self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        if not isinstance(bias, bool):
            raise TypeError(f"FusedLeakyReLU: bias must be True or False; got {bias!r}")
        self.bias = nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope, self.scale = negative_slope, scale

    def forward(self, input: Tensor) -> Tensor:
        """The activation of the input."""
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)


def _vertical_first(factor: int | Sequence[int]) -> int | tuple[int, int]:
    if isinstance(factor, int):
        return factor
    horizontal, vertical = factor
    return vertical, horizontal
