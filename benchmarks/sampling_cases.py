"""What is sampled beside its rivals: models with random weights, numbers of images and of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from genfast.models import build
from genfast.nn import MaskedConv2d

PLAIN = "PixelCNN, 7 layers of 3x3"
LSTM = "Diagonal BiLSTM, 7 layers, h=16"
FULL, ROWS, CACHED = "whole image for each pixel", "rows so far for each pixel", "cached, eager torch"


@dataclass
class Case:
    """`batch` images of a model on `threads` threads.

    Attributes:
        group, case: its name.
        model: a function that makes the model, and its arguments.
        options: what `genfast.sample` must be told about a model that is not of `genfast.models`.
        rivals: of FULL, ROWS and CACHED.
        rival_images: of how many images the full forwards are timed, where `batch` of them would take minutes.
        drawing: time the same with every pixel known as well: the difference is what drawing takes.
    """

    group: str
    case: str
    model: tuple
    batch: int
    threads: int = 2
    options: dict = field(default_factory=dict)
    rivals: tuple = ()
    rival_images: int | None = None
    drawing: bool = False


def cases() -> Iterator[Case]:
    """Every `Case`; a model is made when its turn comes."""
    grey = {"shape": (1, 28, 28), "input_range": (0, 1)}
    for features in (16, 32, 64):
        name, of, two = f"C={features}", (plain, features, 2), {**grey, "levels": 2}
        for batch in (64, 256):
            rivals = (FULL, CACHED) if batch == 64 else ()
            yield Case(PLAIN, name, of, batch, 2, two, rivals)
        yield Case(PLAIN, name, of, 64, 1, two)
        if features != 32:
            yield Case(PLAIN, name, of, 1, 1, two, (FULL, CACHED))
    yield Case(PLAIN, "C=64, 256 levels", (plain, 64, 256), 64, 1, {**grey, "levels": 256}, drawing=True)
    lstm = (preset, "pixelrnn", 7, 16, "diagonal")
    yield Case(LSTM, "", lstm, 32)
    yield Case(LSTM, "", lstm, 64, rivals=(FULL, ROWS, CACHED))
    yield Case(LSTM, "", lstm, 64, 1)
    yield Case(LSTM, "", lstm, 1, 1, rivals=(FULL, CACHED))
    rivals = (FULL, ROWS, CACHED)
    yield Case("PixelRNN, Row LSTM, 7 layers, h=16", "", (preset, "pixelrnn", 7, 16, "row"), 64, rivals=rivals)
    yield Case("PixelCNN of the paper, 15 blocks, h=32", "", (preset, "pixelcnn", 15, 32), 64, rivals=rivals)
    yield Case("Gated PixelCNN, 12 layers, h=32", "", (preset, "gated-pixelcnn", 12, 32), 64, rivals=rivals)
    yield Case("PixelCNN++, 32x32x3", "160 filters, 5 blocks", (plus_plus,), 32, rivals=rivals, rival_images=2)


@cache
def untrained(function: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    """The model `function(*arguments)`, in evaluation mode; the same weights in every run."""
    torch.manual_seed(0)
    model = function(*arguments).eval()
    # New models of genfast have output projections of zero, and what is multiplied by zero could be left out.
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def plain(features: int, levels: int) -> nn.Module:
    """Masked 3x3 convolutions and ReLU, and a 1x1 convolution to the logits."""
    layers = [MaskedConv2d(1, features, 3, "A"), nn.ReLU()]
    for _ in range(6):
        layers += [MaskedConv2d(features, features, 3, "B"), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(features, 1 if levels == 2 else levels, 1))


def preset(name: str, layers: int, hidden: int, kind: str | None = None) -> nn.Module:
    """A model of `genfast.models` for binary images of 28x28."""
    kind = {} if kind is None else {"kind": kind}
    return build(name, channels=1, height=28, width=28, levels=2, hidden=hidden, layers=layers, **kind)


def plus_plus() -> nn.Module:
    """The paper's CIFAR-10 model."""
    sizes = {"channels": 3, "height": 32, "width": 32, "levels": 256}
    return build("pixelcnn++", **sizes, filters=160, blocks=5, resolutions=3, mixtures=10)
