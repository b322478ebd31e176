"""Models whose images are compressed, and images that they code well: their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from genfast import models
from genfast.benchmarks.sampling_cases import PLAIN, plain, preset, untrained
from genfast.engine.engine import Engine
from genfast.tasks import sample


def _plain(features: int) -> Engine:
    return Engine(untrained(plain, features, 2), shape=(1, 28, 28), levels=2, input_range=(0, 1))


def _paper(hidden: int) -> Engine:
    return Engine(untrained(preset, "pixelcnn", 15, hidden))


# Name -> how the engine is made. Binary images of 28x28.
CODING_ENGINES: dict[str, Callable[[], Engine]] = {
    f"{PLAIN}, C=32": lambda: _plain(32),
    "PixelCNN of the paper, 15 blocks, h=32": lambda: _paper(32),
    "PixelRNN, 7 layers of 16": lambda: Engine(models.PixelRNN.pretrained("mnist").eval()),
}
# The same for the time to read a block alone.
ALONE: dict[str, Callable[[], Engine]] = {
    f"{PLAIN}, C=16": lambda: _plain(16),
    "PixelCNN of the paper, 15 blocks, h=16": lambda: _paper(16),
}


@cache
def coding_engine(name: str) -> Engine:
    """The engine of that name."""
    return (CODING_ENGINES | ALONE)[name]()


def images_of(name: str, count: int) -> Tensor:
    """Levels uint8 [count, 1, 28, 28] that the model of that name draws."""
    with torch.no_grad():
        return sample(coding_engine(name), count, seed=1)
