"""Checks of what `denoise` is given, whatever the model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from genfast.engine.arguments import check_int
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import check_evidence
from genfast.random.streams import MOST_CHAINS, MOST_STEPS
from genfast.tasks.noise import Noise

METHODS = ("sample", "mean", "map")
# Values times levels of a batch: what is known of each level lies in memory.
MOST_VALUES = 2**25


def check_noisy(
    spec: ImageSpec, noisy: Any, noise_model: Noise, method: str, samples: int | None, steps: int
) -> tuple[int, int]:
    """(samples, the most images of a batch) of arguments of `denoise` that fit the images of a model.

    Raises: TypeError or ValueError for those that do not, and the noise model's for what it cannot have made.
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
