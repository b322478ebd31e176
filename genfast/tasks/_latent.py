"""Shared by the tasks for models with latents: the checks of a call, and its batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_batch_size, check_count, check_labels
from genfast.engine.conventions import Keywords, refuse_conventions
from genfast.engine.protocols import Generator, ImageSpec, LatentModel, Translator, device_of
from genfast.engine.wrappers import unwraps


@dataclass(frozen=True)
class Call:
    """The checked arguments of a call about n images.

    Attributes:
        first, seed: of the random numbers.
        labels: int64 [n] on the device of the model, or None.
        size: images of a batch.
    """

    n: int
    first: int
    seed: int
    labels: Tensor | None
    size: int

    def batches(self) -> list[slice]:
        """Slices of 0 .. n - 1, `size` at a time."""
        return [slice(start, min(start + self.size, self.n)) for start in range(0, self.n, self.size)]

    def labels_of(self, part: slice) -> Tensor | None:
        """The labels of a batch."""
        return None if self.labels is None else self.labels[part]


def check_latent_model(call: str, model: Any) -> LatentModel:
    """The model, checked: TypeError for one without Gaussian latents."""
    if not isinstance(model, nn.Module) or not isinstance(model, LatentModel):
        got = type(model).__name__
        raise TypeError(f"{call}: model must have Gaussian latents, as genfast.models.VAE has; got {got}")
    return model


def default_batch_size(spec: ImageSpec) -> int:
    """The default number of images in a batch: about 500 of 28x28, fewer of larger ones."""
    return max(16, min(4096, 400_000 // spec.values))


def check_call(
    call: str,
    model: Any,
    n: int,
    *,
    first: int = 0,
    seed: int = 0,
    labels: int | Tensor | None = None,
    batch_size: int | None = None,
) -> Call:
    """The arguments of a call about n images of a model, checked."""
    _, first, seed = check_count(call, n, first, seed)
    size = check_batch_size(call, batch_size, default_batch_size(model.spec))
    return Call(n, first, seed, check_labels(call, labels, model.spec, n, device_of(model)), size)


@unwraps
def is_latent(model: Any) -> bool:
    """Whether a model is a `genfast.engine.protocols.LatentModel`."""
    return isinstance(model, nn.Module) and isinstance(model, LatentModel)


def refuse_codes(call: str, model: Any) -> None:
    """TypeError for a model of whole images without Gaussian latents, such as a VQ-VAE."""
    if isinstance(model, (Generator, Translator)) and not is_latent(model):
        expected = "autoregressive, as genfast.models.PixelCNN is, or have Gaussian latents, as genfast.models.VAE has"
        raise TypeError(f"{call}: model must be {expected}; got {type(model).__name__}")


def refuse_engine_options(call: str, model: nn.Module, backend: str, keywords: Keywords) -> None:
    """RuntimeError or ValueError for an option that only autoregressive models have."""
    kind = type(model).__name__
    if backend not in ("auto", "torch"):
        why = f"{kind} has latents, and its chains run by torch"
        raise RuntimeError(
            f"{call}: backend must be able to serve this model; got {backend!r} ({why}); can serve: torch"
        )
    refuse_conventions(kind, call, keywords=keywords)


def no_images(model: Any) -> Tensor:
    """uint8 [0, C, H, W] on the device of a model."""
    return torch.zeros(0, *model.spec.shape, dtype=torch.uint8, device=device_of(model))
