"""Errors of translations, beside baselines."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genfast.data import PairData
from genfast.engine.wrappers import unwraps
from genfast.metrics.distortion import psnr
from genfast.tasks.translate import translate


@unwraps
def translation_errors(
    model: Any, training: PairData, held_out: PairData, *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Mean absolute error and PSNR of translations of held-out sources, and of two baselines.

    The baselines are the mean target of training, and the source itself.

    Args: model (`genfast.models.Pix2Pix`); training, held_out (`genfast.data.PairData` of one size); seed (of the noise
        of "model"; "model, no noise" has none).
    Returns: {name: (mean absolute error in per cent of the range of levels, PSNR in dB)}.
    """
    device, levels, truth = next(model.parameters()).device, held_out.levels, held_out.target
    source = held_out.source.to(device)
    mean = training.target.double().mean(0)
    # A grey source broadcasts to three equal channels; a colour source is averaged for grey targets.
    plain = held_out.source if truth.shape[1] > 1 else held_out.source.double().mean(1, keepdim=True)
    guesses = {
        "model": translate(model, source, seed=seed).cpu(),
        "model, no noise": translate(model, source, noise=False).cpu(),
        "mean target": mean.expand(truth.shape),
        "source as it is": plain.expand(truth.shape),
    }
    return {name: (_percent(images, truth, levels), psnr(images, truth, levels)) for name, images in guesses.items()}


def _percent(images: Tensor, truth: Tensor, levels: int) -> float:
    return float((images.double() - truth.double()).abs().mean()) * 100 / (levels - 1)
