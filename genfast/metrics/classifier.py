"""A small classifier, trained on the labelled images at hand: features for the metrics of `genfast.metrics.features`
where no pretrained network is wanted, and an opinion of which class a generated image is."""

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from genfast.models.base import ImageConfig, ImageModel

SMALLEST = 7  # pixels of the last feature map: strides of two go on while the next one would be at least half of it


@dataclass
class ClassifierConfig(ImageConfig):
    """Sizes of a `Classifier`.

    Attributes:
        classes: of the images, K.
        filters: of the first convolution; each stride of two doubles them, up to four times.
        vector: length F of the feature vectors.
    """

    levels: int = 256
    classes: int = 10
    filters: int = 16
    vector: int = 64

    def least(self):
        return super().least() | {"classes": 2, "filters": 1, "vector": 1}


class Classifier(ImageModel):
    """Convolutions of stride two, one hidden layer of F features, one linear layer of K logits.

    `classifier(images)` takes uint8 [N, C, H, W], levels, and returns logits float [N, K]. It saves and opens itself as
    the other models do: `classifier.save_pretrained(folder)`, `Classifier.from_pretrained(folder)`.

    Example: `classifier, accuracy = train_classifier(images, labels, 10); classifier.features(images)`
    """

    name = "classifier"
    config_type = ClassifierConfig

    def __init__(self, config):
        super().__init__(config)
        size, channels, filters = (config.height, config.width), config.channels, config.filters
        layers = [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
        channels = filters
        while not layers[2:] or min(size) > SMALLEST:
            filters = min(2 * channels, 4 * config.filters)
            layers += [nn.Conv2d(channels, filters, 3, stride=2, padding=1), nn.ReLU()]
            size, channels = tuple((side + 1) // 2 for side in size), filters
        self.convolutions = nn.Sequential(*layers)
        self.hidden = nn.Linear(channels * size[0] * size[1], config.vector)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(config.vector, config.classes)

    def forward(self, images):
        return self.head(self.drop(self._vectors(images)))

    @torch.no_grad()
    def features(self, images, batch=500):
        """The feature vectors of images: uint8 [N, C, H, W] -> float32 [N, F], at least 0, on the device of the
        classifier, `batch` images at a time."""
        return self._in_batches(self._vectors, images, batch, self.config.vector)

    @torch.no_grad()
    def probabilities(self, images, batch=500):
        """p(class | image): uint8 [N, C, H, W] -> float32 [N, K]."""
        return self._in_batches(lambda x: self.forward(x).float().softmax(1), images, batch, self.config.classes)

    def predict(self, images, batch=500):
        """The most probable class: uint8 [N, C, H, W] -> int64 [N]."""
        return self.probabilities(images, batch).argmax(1)

    def _vectors(self, images):
        self._check_images(images)
        x = images.to(self.head.weight.dtype) * (2 / (self.config.levels - 1)) - 1
        return F.relu(self.hidden(self.convolutions(x).flatten(1)))

    def _in_batches(self, function, images, batch, columns):
        self._check_images(images[:0].to(self.head.weight.device))
        was_training = self.training
        self.eval()
        parts = [function(part.to(self.head.weight.device)).float() for part in images.split(batch) if len(part)]
        self.train(was_training)
        return torch.cat(parts) if parts else torch.zeros(0, columns, device=self.head.weight.device)


def train_classifier(
    images,
    labels,
    classes=None,
    *,
    levels=256,
    held_out=None,
    steps=2000,
    seconds=None,
    batch=64,
    rate=2e-3,
    seed=0,
    device="cpu",
    progress=None,
):
    """Train a `Classifier` and measure it on images that it was not trained on.

    AdamW with a learning rate that rises and falls once (Smith 2018, arXiv 1803.09820); each image is shifted by up to
    a fourteenth of its size. The random state of torch is left as it was; the same seed on the same machine with the
    same threads gives the same classifier unless `seconds` ends it early.

    Args:
        images: uint8 [N, C, H, W], levels.
        labels: integers [N], 0 .. classes - 1.
        classes: how many; None: as many as the largest label says.
        levels: values of a channel.
        held_out: (images, labels) to measure on; None: a tenth of the given ones, drawn by `seed` and not trained on.
        steps: updates; seconds: end sooner if it takes longer; batch: images per update; rate: highest learning rate.
        seed: of the weights, the order and the shifts.
        device: where to train, and where the classifier stays.
        progress: called with the number of each update.
    Returns: (classifier in evaluation mode, share of the held-out images whose class it names).
    Raises: TypeError or ValueError for images and labels that do not fit, or fewer than 2 of them.
    """
    images, labels, classes = _labelled(images, labels, classes)
    _, channels, height, width = images.shape
    config = ClassifierConfig(channels, height, width, levels, classes=classes)
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if held_out is None:
            order = torch.randperm(len(images))
            apart, rest = order.split([max(1, len(images) // 10), len(images) - max(1, len(images) // 10)])
            held_out, images, labels = (images[apart], labels[apart]), images[rest], labels[rest]
        else:
            held_out = _labelled(*held_out, classes)[:2]
        classifier = Classifier(config).to(device)
        classifier._check_images(images[:0].to(device))
        # Only these may hold a level that the classifier does not know: the batches are drawn from them.
        for part in (images, held_out[0]):
            classifier._check_images(part.to(device))
        _descend(classifier, images.to(device), labels.to(device), steps, seconds, batch, rate, progress)
    accuracy = float((classifier.predict(held_out[0]).cpu() == held_out[1].cpu()).double().mean())
    return classifier.eval(), accuracy


def _descend(classifier, images, labels, steps, seconds, batch, rate, progress):
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.01)
    started, done, step = time.perf_counter(), 0.0, 0
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(done / 0.2, (1 - done) / 0.8) + 1e-2 * rate
        chosen = torch.randint(len(images), (batch,)).to(images.device)
        loss = F.cross_entropy(classifier(_shifted(images[chosen])), labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        done = step / steps
        if seconds is not None:
            done = max(done, (time.perf_counter() - started) / seconds)
        if progress is not None:
            progress(step)


def _shifted(images):
    """Each image moved by up to a fourteenth of its height and width, the pixels of the border repeated."""
    n, _, *sizes = images.shape
    rows, columns = (
        (torch.arange(size) + torch.randint(-(size // 14), size // 14 + 1, (n, 1))).clamp(0, size - 1).to(images.device)
        for size in sizes
    )
    which = torch.arange(n, device=images.device)[:, None, None]
    return images.movedim(1, 3)[which, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _labelled(images, labels, classes):
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or len(images) < 2:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(f"train_classifier: images must be uint8 [N, C, H, W] with N at least 2; got {got}")
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.shape != (len(images),):
        expected = f"integers [N] with N={len(images)}"
        raise ValueError(f"train_classifier: labels must be {expected}; got {labels.dtype} {tuple(labels.shape)}")
    low, high = (int(value) for value in labels.aminmax())
    classes = max(2, high + 1) if classes is None else classes
    if low < 0 or high >= classes:
        raise ValueError(f"train_classifier: labels must lie in 0..{classes - 1}; got {low} to {high}")
    return images, labels.long(), classes
