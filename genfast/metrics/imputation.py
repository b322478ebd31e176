"""Errors of imputed values."""

from __future__ import annotations

from torch import Tensor

from genfast.metrics.distortion import psnr


def imputation_error(images: Tensor, truth: Tensor, mask: Tensor, levels: int) -> dict[str, float]:
    """Errors of imputed values, over the unknown values only.

    Args:
        images: [n, C, H, W], levels (uint8), or means of levels (float), which are rounded to count wrong ones.
        truth: uint8 [n, C, H, W].
        mask: bool [n or 1, C or 1, H, W], True where a value was known.
        levels: L.
    Returns: a dict: "wrong", the share of unknown values with a wrong level (for 2 levels the bit error rate); "psnr"
        in dB, with peak L - 1.
    Raises: ValueError if nothing is unknown.
    """
    unknown = ~mask.expand_as(truth).cpu()
    if not unknown.any():
        raise ValueError("imputation_error: mask must leave a value unknown; got none")
    filled, true = images.cpu()[unknown], truth.cpu()[unknown]
    wrong = (filled.float().round() != true.float()).double().mean()
    return {"wrong": float(wrong), "psnr": psnr(filled, true, levels)}
