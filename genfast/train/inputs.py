"""What a model is given of the data, and the refusal of data that are not the model's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genfast import models
from genfast.data import ImageData, PairData
from genfast.engine.protocols import ImageModel, Translator, device_of


def inputs(model: nn.Module, data: ImageData | PairData) -> tuple[Tensor, ...]:
    """The tensors that `log_prob` takes, on the model's device: (images,), or (images, labels) if it has classes; of
    pairs, what training takes: (source, target).

    Raises: ValueError for images of another shape or levels than the model's config names, or for labels that
        a conditional model needs and the data lack, or that are none of its classes; for pairs that the model does not
        take, or that it needs.
    """
    check(model, data)
    device = device_of(model)
    conditional = isinstance(model, ImageModel) and model.spec.classes
    if isinstance(data, PairData):
        parts = data.source, data.target
    else:
        parts = (data.images, data.labels) if conditional else (data.images,)
    return tuple(part.to(device) for part in parts)


def check(model: nn.Module, data: ImageData | PairData) -> None:
    """Refuse data that are not the model's, as `inputs` says."""
    if not isinstance(model, ImageModel):
        return
    spec, source = model.spec, model.source if isinstance(model, Translator) else None
    check_pairs(kind_of(model), source is not None, data)
    if source and data.source.shape[1] != source.channels:
        raise ValueError(f"{data.name}: expected sources of {source.channels} channels; got {data.source.shape[1]}")
    expected, got = (*spec.shape, spec.levels), (*data.images.shape[1:], data.levels)
    if got != expected:
        raise ValueError(f"{data.name}: expected (channels, height, width, levels) {expected}; got {got}")
    classes = spec.classes
    if not classes:
        return
    if data.labels is None:
        raise ValueError(f"{data.name}: expected labels for a model of {classes} classes; got images without labels")
    if data.labels.shape != (len(data),) or data.labels.is_floating_point():
        got = f"{data.labels.dtype} {tuple(data.labels.shape)}"
        raise ValueError(f"{data.name}: expected {len(data)} whole labels; got {got}")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{data.name}: expected labels from 0 to {classes - 1}; got {low} to {high}")


def check_pairs(kind: str, takes_pairs: bool, data: ImageData | PairData) -> None:
    """ValueError for pairs where a model of that kind takes images, and for images where it takes pairs."""
    if takes_pairs and not isinstance(data, PairData):
        expected = f"pairs for a {kind}, such as photo-edges or pairs:FOLDER"
        raise ValueError(f"{data.name}: expected {expected}; got images without a source")
    if isinstance(data, PairData) and not takes_pairs:
        raise ValueError(f"{data.name}: expected images for a {kind}, which takes no source; got pairs")


def labels_in_shares(model: nn.Module, data: ImageData, count: int, seed: int = 0) -> Tensor | None:
    """Labels to ask a model for where its samples are compared with the data: int64 [count], each class in the share
    that it has there, the first of more the same; None without classes.

    Raises: ValueError for data that are not the model's, as `inputs`.
    """
    if not model.spec.classes:
        return None
    check(model, data)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data.labels[order[torch.arange(count) % len(data)]]


def kind_of(model: nn.Module) -> str:
    """The name by which a model is known, for an error."""
    return model.name if isinstance(model, models.ImageModel) else type(model).__name__


def batches(parts: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    """The tensors of `inputs` in batches: a list of tuples."""
    return list(zip(*(part.split(size) for part in parts), strict=True))
