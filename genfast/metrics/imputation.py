"""How far filled-in values are from the truth."""

from __future__ import annotations

from torch import Tensor

from genfast.metrics.distortion import psnr


def imputation_error(images: Tensor, truth: Tensor, mask: Tensor, levels: int) -> dict[str, float]:
    """How far imputed values are from the truth, over the unknown values alone.

    Args:
        images: [n, C, H, W], levels (uint8), or means between them (float), which are rounded to count wrong ones.
        truth: uint8 [n, C, H, W].
        mask: bool [n or 1, C or 1, H, W], True where a value was known.
        levels: L.
    Returns: a dict: "wrong", the share of unknown values whose level is not that of the truth (of 2 levels: the bit
        error); "psnr" in dB, with L - 1 the peak.
    Raises: ValueError where nothing is unknown.
    """
    unknown = ~mask.expand_as(truth).cpu()
    if not unknown.any():
        raise ValueError("imputation_error: mask must leave a value unknown; got none")
    filled, true = images.cpu()[unknown], truth.cpu()[unknown]
    wrong = (filled.float().round() != true.float()).double().mean()
    return {"wrong": float(wrong), "psnr": psnr(filled, true, levels)}
