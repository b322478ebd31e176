"""Layers that change the size of images behind a low-pass filter, so that nothing aliases."""

import torch
from torch import nn

from genfast import ops


class _Filtered(nn.Module):
    """What the layers share: a filter of sum `gain` along each axis."""

    def __init__(self, filter, gain=1):
        super().__init__()
        taps = torch.as_tensor(filter, dtype=torch.float32)
        if taps.dim() not in (1, 2) or not taps.numel() or not taps.isfinite().all() or taps.sum() == 0:
            expected = "[K] or [KH, KW], finite, with a sum other than 0"
            raise ValueError(f"{type(self).__name__}: filter must be {expected}; got {taps.tolist()}")
        # One of a single dimension is used along both axes.
        taps = taps * (gain if taps.dim() == 1 else gain**2) / taps.sum()
        self.register_buffer("filter", taps, persistent=False)

    def _resampled(self, x, up=1, down=1, padding=None):
        """`padding` is a function of the number of taps along an axis that gives (before, after)."""
        vertical, horizontal = padding(self.filter.shape[0]), padding(self.filter.shape[-1])
        return ops.upfirdn2d(x, self.filter.to(x.dtype), up, down, (*horizontal, *vertical))

    def _taps(self):
        return " x ".join(map(str, self.filter.shape))


class Upsample2d(_Filtered):
    """Images `factor` times as large: zeros between the pixels, then a filter that keeps the mean.

    Args:
        filter: taps, [K] for both axes or [KH, KW]; made to sum to 1. An even sum of K and factor keeps the image where
            it is; else it moves by half a pixel of the result.
        factor: at least 1.
    Shape: x [B, C, H, W] -> [B, C, factor H, factor W]. Beyond the border the image is 0.
    Paper: Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486; in GANs: arXiv 1812.04948.
    Example: `Upsample2d()(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, filter=(1, 3, 3, 1), factor=2):
        super().__init__(filter, _factor("Upsample2d", factor))
        self.factor = factor

    def forward(self, x):
        def padding(taps):
            return (taps + self.factor - 1) // 2, (taps - self.factor) // 2

        return self._resampled(x, up=self.factor, padding=padding)

    def extra_repr(self):
        return f"taps={self._taps()}, factor={self.factor}"


class Downsample2d(_Filtered):
    """Every `factor`-th pixel of filtered images.

    Args:
        filter: as of `Upsample2d`.
        factor: at least 1.
    Shape: x [B, C, H, W] -> [B, C, H / factor, W / factor]. Beyond the border the image is 0. ValueError for a height
        or width that is no multiple of factor.
    Paper: Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486; in GANs: arXiv 1812.04948.
    Example: `Downsample2d()(torch.randn(8, 16, 8, 8))`
    """

    def __init__(self, filter=(1, 3, 3, 1), factor=2):
        super().__init__(filter)
        self.factor = _factor("Downsample2d", factor)

    def forward(self, x):
        if x.dim() != 4 or x.shape[2] % self.factor or x.shape[3] % self.factor:
            expected = f"[B, C, H, W] with H and W multiples of {self.factor}"
            raise ValueError(f"Downsample2d: x must have shape {expected}; got {tuple(x.shape)}")

        def padding(taps):
            return (taps - self.factor + 1) // 2, (taps - self.factor) // 2

        return self._resampled(x, down=self.factor, padding=padding)

    def extra_repr(self):
        return f"taps={self._taps()}, factor={self.factor}"


class Blur2d(_Filtered):
    """Filtered images of the same size.

    Args:
        filter: taps, [K] for both axes or [KH, KW]; made to sum to 1. An even number of taps moves the image by half a
            pixel to the right and down, as before a convolution of even size.
    Shape: x [B, C, H, W] -> the same. Beyond the border the image is 0.
    Paper: Making Convolutional Networks Shift-Invariant Again, arXiv 1904.11486.
    Example: `Blur2d((1, 2, 1))(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, filter=(1, 3, 3, 1)):
        super().__init__(filter)

    def forward(self, x):
        return self._resampled(x, padding=lambda taps: (taps // 2, (taps - 1) // 2))

    def extra_repr(self):
        return f"taps={self._taps()}"


def _factor(layer, factor):
    if not isinstance(factor, int) or isinstance(factor, bool):
        raise TypeError(f"{layer}: factor must be an int; got {factor!r}")
    if factor < 1:
        raise ValueError(f"{layer}: factor must be at least 1; got {factor}")
    return factor
