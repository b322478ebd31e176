"""Checks of the arguments of `denoise`, for all models."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genfast.engine.arguments import check_int
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import check_evidence
from genfast.random.streams import MOST_CHAINS, MOST_STEPS
from genfast.tasks.noise import Noise

METHODS = ("sample", "mean", "map")
# Values times levels of a batch: the evidence for all levels is in memory.
MOST_VALUES = 2**25


def check_noisy(
    spec: ImageSpec, noisy: Any, noise_model: Noise, method: str, samples: int | None, steps: int
) -> tuple[int, int]:
    """(samples, largest number of images in a batch) for checked arguments of `denoise`.

    Raises: TypeError or ValueError for arguments that do not fit the images of the model; errors of the noise model.
    """
    if method not in METHODS:
        raise ValueError(f"denoise: method must be one of {', '.join(METHODS)}; got {method!r}")
    samples = (1 if method == "sample" else 4) if samples is None else samples
    check_int("denoise", "samples", samples, 1, MOST_CHAINS + 1)
    check_int("denoise", "steps", steps, 0, MOST_STEPS)
    if not isinstance(noisy, Tensor) or noisy.dim() != 4 or noisy.shape[1:] != spec.shape:
        got = tuple(noisy.shape) if isinstance(noisy, Tensor) else type(noisy).__name__
        raise ValueError(f"denoise: noisy must have shape [n, C, H, W] with C, H, W = {spec.shape}; got {got}")
    check_evidence("denoise", noise_model.log_likelihood(noisy[:1], spec.levels), spec, len(noisy[:1]))
    return samples, max(1, MOST_VALUES // (spec.values * spec.levels))
