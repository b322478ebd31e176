"""The inputs of a model from data, and the check that the data fit the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genfast import models
from genfast.data import ImageData, PairData
from genfast.data.convert import Form, as_data
from genfast.data.splits import split_indices
from genfast.engine.protocols import ImageModel, Translator, device_of
from genfast.random import permutation


def inputs(model: nn.Module, data: ImageData | PairData) -> tuple[Tensor, ...]:
    """The arguments of a model's loss and `log_prob`, on its device.

    (images,), or (images, labels) for a conditional model, or (source, target) for pairs.

    Raises: ValueError for images of another shape or levels than the model's; for labels that a conditional model
        needs and the data lack, or that are none of its classes; for pairs where the model takes images, and the
        reverse.
    """
    check(model, data)
    device = device_of(model)
    conditional = isinstance(model, ImageModel) and model.spec.classes
    if isinstance(data, PairData):
        parts: tuple[Any, ...] = (data.source, data.target)
    else:
        parts = (data.images, data.labels) if conditional else (data.images,)
    return tuple(part.to(device) for part in parts)


def check(model: nn.Module, data: ImageData | PairData) -> None:
    """ValueError for data that do not fit the model, as `inputs`. A model without `spec` takes any images alone."""
    if not isinstance(model, ImageModel):
        if "config" in vars(model):
            wanted = "an attribute `spec`, a genfast.engine.protocols.ImageSpec, of a model with a config"
            raise TypeError(f"{type(model).__name__}: expected {wanted}, so that labels are not left out; got none")
        return
    spec, source = model.spec, model.source if isinstance(model, Translator) else None
    check_pairs(kind_of(model), source is not None, data)
    if source and data.source.shape[1] != source.channels:
        raise ValueError(f"{data.name}: expected sources of {source.channels} channels; got {data.source.shape[1]}")
    expected, sizes = (*spec.shape, spec.levels), (*data.images.shape[1:], data.levels)
    if sizes != expected:
        raise ValueError(f"{data.name}: expected (channels, height, width, levels) {expected}; got {sizes}")
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


def training_data(call: str, model: Any, train: Any, valid: Any) -> tuple[Any, Any]:
    """Training and validation images of what a user has, as `genfast.data.convert.as_data` takes it.

    `valid` None: a tenth of the training images, always the same ones, is held out.
    """
    train = data_for(model, train, f"{call}: train")
    if valid is not None:
        return train, data_for(model, valid, f"{call}: valid")
    held_out, rest = (torch.from_numpy(split_indices(len(train), split)) for split in ("valid", "train"))
    if not len(held_out):
        expected = "at least 10 images, of which one in 10 is held out, or valid be given"
        raise ValueError(f"{call}: train must have {expected}; got {len(train)}")
    rest = torch.cat((rest, torch.from_numpy(split_indices(len(train), "test")))).sort().values
    kept = train.select(rest, f"{train.name}, without those held out")
    return kept, train.select(held_out, f"{train.name}, held out")


def data_for(model: Any, data: Any, what: str) -> Any:
    """Data as a model takes them. Raises: as `as_data`; `what` begins the errors."""
    if not isinstance(model, ImageModel):  # its images may be any
        return as_data(data, Form(None, 256, what))
    spec, source = model.spec, model.source if isinstance(model, Translator) else None
    form = Form(spec.shape, spec.levels, what)
    if source is None:
        return as_data(data, form)
    return as_data(data, form, Form((source.channels, spec.height, spec.width), source.levels, what))


def check_pairs(kind: str, takes_pairs: bool, data: ImageData | PairData) -> None:
    """ValueError for pairs if a model of that kind takes images, and for images if it takes pairs."""
    if takes_pairs and not isinstance(data, PairData):
        expected = f"pairs for a {kind}, such as photo-edges or pairs:FOLDER"
        raise ValueError(f"{data.name}: expected {expected}; got images without a source")
    if isinstance(data, PairData) and not takes_pairs:
        raise ValueError(f"{data.name}: expected images for a {kind}, which takes no source; got pairs")


def labels_in_shares(model: Any, data: ImageData, count: int, seed: int = 0) -> Tensor | None:
    """Labels for samples that are compared with data, int64 [count]; None for an unconditional model.

    The classes have the frequencies of the data. The first n of more labels are the same.

    Raises: ValueError for data that do not fit the model, as `inputs`.
    """
    if not model.spec.classes:
        return None
    check(model, data)
    order = permutation(len(data), seed)
    labels = data.labels
    assert labels is not None  # `check` has refused the data otherwise
    return labels[order[torch.arange(count, dtype=torch.int64, device="cpu") % len(data)]]


def kind_of(model: nn.Module) -> str:
    """The name of a kind of model, for an error."""
    return model.name if isinstance(model, models.ImageModel) else type(model).__name__


def batches(parts: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    """The tensors of `inputs` in batches."""
    return list(zip(*(part.split(size) for part in parts), strict=True))
