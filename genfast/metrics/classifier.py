"""A small classifier of labelled images: features for `genfast.metrics.distances` without a pretrained network, and the
classes of generated images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import documented, option
from genfast._defaults import plain_defaults
from genfast.engine.arguments import as_tensor
from genfast.engine.calling import evaluating
from genfast.models.base import ImageConfig, ImageModel

INTEGERS: Any = {"dtype": torch.int64, "device": "cpu"}
SMALLEST = 7  # convolutions of stride two are added while a side of the feature map has more pixels than this


@documented
@dataclass
class ClassifierConfig(ImageConfig):
    """Sizes of a `Classifier`."""

    levels: int = option(256, "values of a channel, 2 to 256", ge=2, le=256, from_data=True)
    classes: int = option(10, "of the images, K", ge=2, le=2**20, from_data=True)
    filters: int = option(
        16, "of the first convolution; each stride of two doubles them, up to four times", ge=1, le=2**16
    )
    vector: int = option(64, "length F of the feature vectors", ge=1, le=2**16)


class Classifier(ImageModel):
    """Convolutions of stride two, one hidden layer of F features, one linear layer of K logits.

    `classifier(images)` takes uint8 [N, C, H, W], levels, and returns logits float [N, K]. Like other models it has
    `save_pretrained(folder)` and `from_pretrained(folder)`.

    Example: `classifier, accuracy = train_classifier(images, labels, 10); classifier.features(images)`
    """

    name = "classifier"
    config_type = ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        size, channels, filters = (config.height, config.width), config.channels, config.filters
        layers = [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
        channels = filters
        while not layers[2:] or min(size) > SMALLEST:
            filters = min(2 * channels, 4 * config.filters)
            layers += [nn.Conv2d(channels, filters, 3, stride=2, padding=1), nn.ReLU()]
            size, channels = ((size[0] + 1) // 2, (size[1] + 1) // 2), filters
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * size[0] * size[1], config.vector)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(config.vector, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.drop(self._vectors(images)))

    @torch.no_grad()
    def features(self, images: Tensor, batch: int = 500) -> Tensor:
        """The feature vectors of images: uint8 [N, C, H, W] -> float32 [N, F], at least 0, on the classifier's device.

        `batch`: images at a time.
        """
        return self._in_batches(self._vectors, images, batch, self.config.vector)

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch: int = 500) -> Tensor:
        """p(class | image): uint8 [N, C, H, W] -> float32 [N, K]."""
        return self._in_batches(lambda x: self.forward(x).float().softmax(1), images, batch, self.config.classes)

    def predict(self, images: Tensor, batch: int = 500) -> Tensor:
        """The most probable class: uint8 [N, C, H, W] -> int64 [N]."""
        return self.probabilities(images, batch).argmax(1)

    def _vectors(self, images: Tensor) -> Tensor:
        self._check_images(images)
        x = images.to(self.head.weight.dtype) * (2 / (self.config.levels - 1)) - 1
        return F.relu(self.hidden(self.convolutions(x).flatten(1)))

    def _in_batches(self, function: Callable[[Tensor], Tensor], images: Tensor, batch: int, columns: int) -> Tensor:
        self._check_images(images[:0].to(self.head.weight.device))
        with evaluating(self):
            parts = [function(part.to(self.head.weight.device)).float() for part in images.split(batch) if len(part)]
        if not parts:
            return torch.zeros(0, columns, dtype=torch.float32, device=self.head.weight.device)
        return torch.cat(parts)


def train_classifier(
    images: Tensor,
    labels: ArrayLike,
    classes: int | None = None,
    *,
    levels: int = 256,
    held_out: tuple[Tensor, ArrayLike] | None = None,
    steps: int = 2000,
    seconds: float | None = None,
    batch: int = 64,
    rate: float = 2e-3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> tuple[Classifier, float]:
    """Train a `Classifier` and measure its accuracy on held-out images.

    AdamW with one cycle of the learning rate (Smith 2018, arXiv 1803.09820); images are shifted by up to a fourteenth
    of their size. The random state of torch does not change. The same seed gives the same classifier on the same
    machine and number of threads, unless `seconds` ends the training early.

    Args:
        images: uint8 [N, C, H, W], levels.
        labels: integers [N], 0 .. classes - 1.
        classes: how many; None: the largest label plus one.
        levels: values of a channel.
        held_out: (images, labels) to measure on; None: a random tenth of the given ones, which is not trained on.
        steps, batch, rate: updates, images per update, highest learning rate.
        seconds: longest time to train.
        seed: of the weights, the order and the shifts.
        device: where to train, and where the classifier stays.
        progress: called with the number of each update.
    Returns: (classifier in evaluation mode, accuracy on the held-out images).
    Raises: TypeError or ValueError for images and labels that do not fit, or fewer than 2 of them.
    """
    images, labels, classes = _labelled(images, labels, classes)
    _, channels, height, width = images.shape
    config = ClassifierConfig(channels, height, width, levels, classes=classes)
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if held_out is None:
            order = torch.randperm(len(images), **INTEGERS)
            apart, rest = order.split([max(1, len(images) // 10), len(images) - max(1, len(images) // 10)])
            held_out, images, labels = (images[apart], labels[apart]), images[rest], labels[rest]
        else:
            held_out = _labelled(*held_out, classes)[:2]
        with plain_defaults():
            classifier = Classifier(config).to(device)
        classifier._check_images(images[:0].to(device))
        for part in (images, held_out[0]):
            classifier._check_images(part.to(device))
        _descend(classifier, images.to(device), labels.to(device), steps, seconds, batch, rate, progress)
    accuracy = float((classifier.predict(held_out[0]).cpu() == held_out[1].cpu()).double().mean())
    return classifier.eval(), accuracy


def _descend(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    steps: int,
    seconds: float | None,
    batch: int,
    rate: float,
    progress: Callable[[int], object] | None,
) -> None:
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.01)
    started, done, step = time.perf_counter(), 0.0, 0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(done / 0.2, (1 - done) / 0.8) + 1e-2 * rate
        rows = torch.randint(len(images), (batch,), **INTEGERS).to(images.device)
        loss = F.cross_entropy(classifier(_shifted(images[rows])), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with plain_defaults():
            optimizer.step()
        step += 1
        done = step / steps
        if seconds is not None:
            done = max(done, (time.perf_counter() - started) / seconds)
        if progress is not None:
            progress(step)


def _shifted(images: Tensor) -> Tensor:
    """Each image moved by up to a fourteenth of its height and width, the pixels of the border repeated."""
    n, _, *sizes = images.shape
    rows, columns = (
        (torch.arange(size, **INTEGERS) + torch.randint(-(size // 14), size // 14 + 1, (n, 1), **INTEGERS))
        .clamp(0, size - 1)
        .to(images.device)
        for size in sizes
    )
    which = torch.arange(n, device=images.device, dtype=torch.int64)[:, None, None]
    return images.movedim(1, 3)[which, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _labelled(images: Tensor, labels: ArrayLike, classes: int | None) -> tuple[Tensor, Tensor, int]:
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or len(images) < 2:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(f"train_classifier: images must be uint8 [N, C, H, W] with N at least 2; got {got}")
    labels = as_tensor(labels)
    if labels.is_floating_point() or labels.shape != (len(images),):
        expected = f"integers [N] with N={len(images)}"
        raise ValueError(f"train_classifier: labels must be {expected}; got {labels.dtype} {tuple(labels.shape)}")
    low, high = (int(value) for value in labels.aminmax())
    classes = max(2, high + 1) if classes is None else classes
    if low < 0 or high >= classes:
        raise ValueError(f"train_classifier: labels must lie in 0..{classes - 1}; got {low} to {high}")
    return images, labels.long(), classes
