"""Images of tensors, arrays, datasets and loaders of torch, as a training takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from genfast.data._images import MOST_CLASSES, ImageData
from genfast.data.npz_names import role
from genfast.data.pair_data import PairData

TAKEN = (
    "a uint8 tensor or array [n, C, H, W], [n, H, W, C] or [n, H, W] of levels, a tuple (images, labels) of two, a "
    "torch Dataset or DataLoader, or what genfast.data.load returns"
)
READ_TWICE = 16  # items of a dataset, to find one that changes its images at random


@runtime_checkable
class Items(Protocol):
    """A dataset of numbered items."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True)
class Form:
    """What images are to be: `shape` (C, H, W), or None for any; `levels`; and `what` begins errors."""

    shape: tuple[int, int, int] | None
    levels: int
    what: str


def as_data(data: Any, form: Form, source: Form | None = None) -> ImageData | PairData:
    """The images, and labels if there are some, of what a user has; PairData if there is a `source` for pairs.

    Images of tensors and arrays are whole numbers, levels 0..levels-1, uint8 or another integer type. Where an array
    could be [n, C, H, W] and [n, H, W, C], it is the first. Items of a Dataset are an image, (image, label), or a dict
    with names such as `image` and `label`; of pairs (source, target). An image is a PIL image, a tensor or array of
    levels, or one of floats that are exactly level / (levels - 1), as ToTensor of torchvision makes them. Every item is
    read once, in order. Of a DataLoader the dataset is taken: a training draws its own batches.

    Raises: TypeError for anything else, ValueError for values or sizes that do not fit; both say what to do.
    """
    if isinstance(data, (ImageData, PairData)):
        return data
    if isinstance(data, (Tensor, np.ndarray)):
        return ImageData(_whole(data, form), form.levels, form.what)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, (Tensor, np.ndarray)) for part in data):
        if source is not None:
            return PairData(_whole(data[0], source), _whole(data[1], form), form.levels, form.what)
        images = _whole(data[0], form)
        return _labelled(images, form, _integers(data[1], len(images), form.what))
    if isinstance(data, DataLoader):
        data = _dataset_of(data, form.what)
    is_dataset = isinstance(data, (Items, IterableDataset)) and not isinstance(data, (str, bytes, list, tuple, Mapping))
    if not is_dataset:
        shown = repr(data) if isinstance(data, str) else f"of {len(data)}" if isinstance(data, (list, tuple)) else ""
        raise TypeError(f"{form.what} must be {TAKEN}; got {type(data).__name__} {shown}".rstrip())
    return _read(data, form, source)


def _whole(images: Any, form: Form) -> Tensor:
    """Levels as uint8 [n, C, H, W]."""
    images = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images.detach().cpu()
    if images.is_floating_point() or images.is_complex():
        raise TypeError(f"{form.what} must hold whole levels, as torch.uint8; got {images.dtype}{_how(images, form)}")
    images = _channels_first(images, form)
    low, high = int(images.min()), int(images.max())
    if low < 0 or high >= form.levels:
        raise ValueError(f"{form.what} must hold levels 0..{form.levels - 1} of the model; got {low} to {high}")
    return images.to(torch.uint8).contiguous()


def _how(images: Tensor, form: Form) -> str:
    """What to do with floats, for an error."""
    if not images.numel() or images.is_complex():
        return ""
    low, high, top = float(images.min()), float(images.max()), form.levels - 1
    scaled = ""
    if -1 <= low <= high <= 1:
        scaled = f"{top} * images" if low >= 0 else f"{top / 2:g} * (images + 1)"
    code = f"({scaled or 'images'}).round().to(torch.uint8)"
    return f" from {low:.3g} to {high:.3g}: give {code}, if they are levels in that range"


def _channels_first(images: Tensor, form: Form) -> Tensor:
    if images.dim() == 3:
        images = images[:, None]
    c, h, w = form.shape or (1, 1, 1)
    fits = images.dim() == 4 and (tuple(images.shape[1:]) == form.shape or form.shape is None)
    if not fits and images.dim() == 4 and tuple(images.shape[1:]) == (h, w, c):
        images, fits = images.permute(0, 3, 1, 2), True
    if not fits or not len(images):
        raise ValueError(f"{form.what} must have shape [n, {c}, {h}, {w}] of the model; got {tuple(images.shape)}")
    return images


def _integers(labels: Any, count: int, what: str) -> Tensor:
    labels = labels.detach().cpu() if isinstance(labels, Tensor) else torch.from_numpy(np.asarray(labels))
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape not in ((count,), (count, 1)):
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise TypeError(f"{what} must have {count} whole labels, one for each image; got {got}")
    return labels.reshape(-1).to(torch.int64)


def _labelled(images: Tensor, form: Form, labels: Tensor | None) -> ImageData:
    if labels is None:
        return ImageData(images, form.levels, form.what)
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < MOST_CLASSES:
        raise ValueError(f"{form.what} must have labels from 0 to {MOST_CLASSES - 1}; got {low} to {high}")
    return ImageData(images, form.levels, form.what, labels=labels, classes=high + 1)


def _dataset_of(loader: DataLoader[Any], what: str) -> Any:
    """The dataset of a loader, if every item of it is seen once in a pass."""
    sampler, dataset = loader.sampler, loader.dataset
    advice = "give its dataset instead, with what its items should be"
    if loader.collate_fn is not default_collate or type(loader.batch_sampler) not in (BatchSampler, type(None)):
        raise TypeError(f"{what} must be a DataLoader of torch's own batches; got one with its own ({advice})")
    if isinstance(dataset, IterableDataset) or type(sampler) is SequentialSampler:
        return dataset
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source):
        return dataset
    if type(sampler) is SubsetRandomSampler:
        return Subset(dataset, sorted(sampler.indices))
    raise TypeError(f"{what} must be a DataLoader that shows each item once; got a {type(sampler).__name__} ({advice})")


def _read(dataset: Any, form: Form, source: Form | None) -> ImageData | PairData:
    """All items of a dataset, each read once."""
    items: Iterable[Any] = dataset
    count = None
    if isinstance(dataset, Items) and not isinstance(dataset, IterableDataset):
        _check_fixed(dataset, source or form)
        count = len(dataset)
        items = (dataset[i] for i in range(count))
    firsts, targets, others = Stack(count), Stack(count), []
    for number, item in enumerate(items):
        first, second = _parts(item)
        firsts.add(_one(first, source or form, number))
        if source:
            targets.add(_one(second, form, number))
        else:
            others.append(second)
    images = firsts.all(form.what)
    if source:
        return PairData(images, targets.all(form.what), form.levels, form.what)
    return _labelled(images, form, _labels(others))


class Stack:
    """Images of one shape, one after the other; in place if their number is known, so that no image is held twice."""

    def __init__(self, count: int | None) -> None:
        self.count, self.parts, self.room, self.added = count, [], torch.empty(0, dtype=torch.uint8, device="cpu"), 0

    parts: list[Tensor]

    def add(self, image: Tensor) -> None:
        """Another image."""
        if self.count is None:
            self.parts.append(image)
            return
        if not self.added:
            self.room = torch.empty((self.count, *image.shape), dtype=image.dtype, device="cpu")
        self.room[self.added] = image
        self.added += 1

    def all(self, what: str) -> Tensor:
        """The images [n, C, H, W]. ValueError, which `what` begins, if there is none."""
        if not self.parts and not self.added:
            raise ValueError(f"{what} must have at least one image; got an empty dataset")
        return torch.stack(self.parts) if self.parts else self.room[: self.added]


def _parts(item: Any) -> tuple[Any, Any]:
    """(image, label or target, else None) of an item."""
    if isinstance(item, Mapping):
        named = {role(str(key)): value for key, value in reversed(list(item.items()))}
        return named.get("images"), named.get("labels")
    if isinstance(item, (tuple, list)) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _labels(labels: Sequence[Any]) -> Tensor | None:
    """Whole numbers as labels; None for targets of another kind, which a model of images does not need."""
    numbers = []
    for label in labels:
        array = np.asarray(label) if isinstance(label, (int, Tensor, np.ndarray, np.generic)) else np.empty(0)
        if array.size != 1 or array.dtype.kind not in "iu":
            return None
        numbers.append(int(array.reshape(())))
    return torch.tensor(numbers, dtype=torch.int64, device="cpu")


def _one(image: Any, form: Form, number: int) -> Tensor:
    """An image of an item as uint8 [C, H, W]."""
    form = Form(form.shape, form.levels, f"{form.what}[{number}]")
    if type(image).__module__.startswith("PIL."):
        image = np.asarray(image)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.array(image))
    if not isinstance(image, Tensor):
        raise TypeError(f"{form.what} must be an image or (image, label); got {type(image).__name__}")
    image = image.detach().cpu()
    if image.is_floating_point():
        levels = (image * (form.levels - 1)).round()
        if not torch.equal((levels / (form.levels - 1)).to(image.dtype), image) or not bool(image.isfinite().all()):
            expected = f"floats that are exactly level / {form.levels - 1}, as ToTensor makes them, or whole levels"
            got = f"others from {float(image.min()):.3g} to {float(image.max()):.3g}"
            raise ValueError(f"{form.what} must hold {expected}; got {got} (leave out Normalize and the like)")
        image = levels.to(torch.int64)
    return _whole(image[None], form)[0]


def _check_fixed(dataset: Items, form: Form) -> None:
    """ValueError for a dataset whose items change: each is read once, which would freeze one of their variations."""
    for number in range(min(READ_TWICE, len(dataset))):
        one, other = (_one(_parts(dataset[number])[0], form, number) for _ in range(2))
        if not torch.equal(one, other):
            expected = "the same image each time: leave out random transforms, which would be applied only once"
            raise ValueError(f"{form.what}[{number}] must be {expected}; got two different ones")
