"""Models whose images are compressed, and images that they code well: their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from genfast import models
from genfast.benchmarks.sampling_cases import preset, untrained
from genfast.tasks import sample

# Name -> how the model is made. Binary images of 28x28.
CODING_MODELS: dict[str, Callable[[], nn.Module]] = {
    "PixelCNN, 15 layers of 32": lambda: untrained(preset, "pixelcnn", 15, 32),
    "PixelRNN, 7 layers of 16": lambda: models.PixelRNN.pretrained("mnist"),
}


@cache
def coding_model(name: str) -> nn.Module:
    """The model of that name, in evaluation mode."""
    return CODING_MODELS[name]().eval()


def images_of(name: str, count: int) -> Tensor:
    """Levels uint8 [count, 1, 28, 28] that the model of that name draws."""
    with torch.no_grad():
        return sample(coding_model(name), count, seed=1)
