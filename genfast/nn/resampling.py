"""Resampling layers with a low-pass filter against aliasing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from genfast import ops
from genfast._state import Stateful

# Taps [K] for both axes, or [KH, KW].
Filter = Sequence[float] | Sequence[Sequence[float]] | Tensor


class _Filtered(Stateful):
    """Base class of the layers: a filter whose taps sum to `gain` along each axis."""

    filter: Tensor

    def __init__(self, filter: Filter, gain: int = 1) -> None:
        super().__init__()
        taps = torch.as_tensor(filter, dtype=torch.float32, device="cpu")
        if taps.dim() not in (1, 2) or not taps.numel() or not taps.isfinite().all() or taps.sum() == 0:
            expected = "[K] or [KH, KW], finite, with a sum other than 0"
            raise ValueError(f"{type(self).__name__}: filter must be {expected}; got {taps.tolist()}")
        # A filter of one dimension is applied along both axes.
        taps = taps * (gain if taps.dim() == 1 else gain**2) / taps.sum()
        self._numbers = taps.tolist()
        self.register_constants(torch.empty(0, dtype=torch.float32, device=torch.get_default_device()))

    def constants(self) -> dict[str, Tensor | None]:
        """The filter."""
        return {"filter": torch.tensor(self._numbers, dtype=torch.float32, device="cpu")}

    def _resampled(self, x: Tensor, padding: Callable[[int], tuple[int, int]], up: int = 1, down: int = 1) -> Tensor:
        """`padding` maps the number of taps along an axis to its padding (before, after)."""
        vertical, horizontal = padding(self.filter.shape[0]), padding(self.filter.shape[-1])
        return ops.upfirdn2d(x, self.filter.to(x), up, down, (*horizontal, *vertical))

    def _taps(self) -> str:
        return " x ".join(map(str, self.filter.shape))


class Upsample2d(_Filtered):
    """Upsamples images by `factor`: inserts zeros between the pixels, then applies a filter that preserves the mean.

    Args:
        filter: taps, [K] for both axes or [KH, KW]; normalised to sum to 1. If K + factor is odd, the image is shifted
            by half a pixel of the result.
        factor: an int of at least 1.
    Shape: x [B, C, H, W] -> [B, C, factor H, factor W]. Beyond the border the image is 0.
    Paper: Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486; in GANs: arXiv 1812.04948.
    Example: `Upsample2d()(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, filter: Filter = (1, 3, 3, 1), factor: int = 2) -> None:
        super().__init__(filter, _factor("Upsample2d", factor))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        def padding(taps: int) -> tuple[int, int]:
            return (taps + self.factor - 1) // 2, (taps - self.factor) // 2

        return self._resampled(x, padding, up=self.factor)

    def extra_repr(self) -> str:
        return f"taps={self._taps()}, factor={self.factor}"


class Downsample2d(_Filtered):
    """Downsamples images by `factor`: applies a filter, then keeps every `factor`-th pixel.

    Args:
        filter: as in `Upsample2d`.
        factor: an int of at least 1.
    Shape: x [B, C, H, W] -> [B, C, H / factor, W / factor]. Beyond the border the image is 0.
    Raises: ValueError for a height or width that is not a multiple of factor.
    Paper: Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486; in GANs: arXiv 1812.04948.
    Example: `Downsample2d()(torch.randn(8, 16, 8, 8))`
    """

    def __init__(self, filter: Filter = (1, 3, 3, 1), factor: int = 2) -> None:
        super().__init__(filter)
        self.factor = _factor("Downsample2d", factor)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[2] % self.factor or x.shape[3] % self.factor:
            expected = f"[B, C, H, W] with H and W multiples of {self.factor}"
            raise ValueError(f"Downsample2d: x must have shape {expected}; got {tuple(x.shape)}")

        def padding(taps: int) -> tuple[int, int]:
            return (taps - self.factor + 1) // 2, (taps - self.factor) // 2

        return self._resampled(x, padding, down=self.factor)

    def extra_repr(self) -> str:
        return f"taps={self._taps()}, factor={self.factor}"


class Blur2d(_Filtered):
    """Applies a low-pass filter to images; their size stays the same.

    Args:
        filter: taps, [K] for both axes or [KH, KW]; normalised to sum to 1. An even number of taps shifts the image by
            half a pixel to the right and down, as before a convolution with a kernel of even size.
    Shape: x [B, C, H, W] -> the same. Beyond the border the image is 0.
    Paper: Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486.
    Example: `Blur2d((1, 2, 1))(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, filter: Filter = (1, 3, 3, 1)) -> None:
        super().__init__(filter)

    def forward(self, x: Tensor) -> Tensor:
        return self._resampled(x, lambda taps: (taps // 2, (taps - 1) // 2))

    def extra_repr(self) -> str:
        return f"taps={self._taps()}"


def _factor(layer: str, factor: Any) -> int:
    if not isinstance(factor, int) or isinstance(factor, bool):
        raise TypeError(f"{layer}: factor must be an int; got {factor!r}")
    if factor < 1:
        raise ValueError(f"{layer}: factor must be at least 1; got {factor}")
    return factor
