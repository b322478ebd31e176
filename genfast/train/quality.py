"""Quality of the samples of a model without a likelihood."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast import metrics
from genfast._config import check_options, from_json
from genfast._text import shown
from genfast.data import ImageData, read_npz
from genfast.engine.protocols import ImageSpec
from genfast.io import read_json, write_json
from genfast.random import permutation

DRAWN = 1000  # samples for the statistics of classes, at least
NEIGHBOURS = (3, 5)  # k of precision and recall, and of density and coverage, as in the papers
KINDS = ("classifier", "pixels")
STEPS = 2000


@dataclass
class ClassShares:
    """The classes of samples, by a classifier.

    Attributes:
        hit, classes: classes that occur, and that there are.
        samples: number of samples.
        kl: KL divergence of the class frequencies from those of the data, in nats.
        inception_score: by this classifier, at most `classes`.
        as_asked: share of the samples with the class of their label; None without labels.
    """

    hit: int
    classes: int
    samples: int
    kl: float
    inception_score: float
    as_asked: float | None


@dataclass
class SampleQuality:
    """Samples compared with held-out images.

    Attributes:
        features: "classifier", "pixels" or "given".
        accuracy: of the classifier on the held-out images, or None.
        columns: metric -> value, for the model, and for training images as a baseline.
        classes: `ClassShares`, or None without a classifier.
    """

    features: str
    accuracy: float | None = None
    columns: dict[str, dict[str, float]] = field(default_factory=dict)
    classes: ClassShares | None = None


def sample_quality(
    draw: Callable[[int], Tensor],
    training: ImageData,
    held_out: ImageData,
    *,
    features: list[str] | None = None,
    asked: Callable[[int], Tensor | None] | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> SampleQuality:
    """Compare samples with held-out images, and training images with them as a baseline.

    Args:
        draw: a function of n that returns the first n samples, uint8 [n, C, H, W].
        training, held_out: ImageData.
        features: ["classifier"], trained on the training images; ["pixels"]; two .npz files of float arrays
            [N, D], of real and of generated images; None: a classifier if there are labels, else pixels.
        asked: a function of n that returns the labels of the samples [n], or None.
        device: where the classifier is trained.
        seed: of the classifier.
        folder: of the run, where the classifier is stored; None: it is not stored.
        progress: called with 1 after each update of the classifier.
    Raises: ValueError for other features; LookupError for a classifier without labels.
    """
    features = list(features or (["classifier"] if held_out.labels is not None else ["pixels"]))
    if features[0] not in KINDS and len(features) == 2:
        return SampleQuality("given", columns={"model": feature_metrics(*given_features(*features))})
    if len(features) != 1 or features[0] not in KINDS:
        raise ValueError(f"features: expected {', '.join(KINDS)} or two .npz files; got {' '.join(features)}")
    real = held_out.images
    if len(real) <= max(NEIGHBOURS):
        needed = f"more than {max(NEIGHBOURS)} images to compare samples with, better {DRAWN} (--split train has most)"
        raise ValueError(f"{held_out.name}: expected {needed}; got {len(real)}")
    samples = draw(max(DRAWN, len(real)))
    compared = {"model": samples[: len(real)]}
    if len(training) >= len(real):
        rows = permutation(len(training), seed)[: len(real)]
        compared["training images"] = training.images[rows]
    quality = SampleQuality(features[0])
    extract: Callable[[Tensor], Tensor]
    classifier: metrics.Classifier | None
    if features == ["pixels"]:
        extract, classifier = partial(_pixels, levels=held_out.levels), None
    else:
        options: Any = {"device": device, "seed": seed, "folder": folder, "progress": progress}
        classifier, quality.accuracy = run_classifier(training, held_out, **options)
        extract = classifier.features
    of_real = extract(real)
    quality.columns = {name: feature_metrics(of_real, extract(images)) for name, images in compared.items()}
    if classifier is not None:
        quality.classes = class_shares(classifier, samples, training, asked)
    return quality


def _counting(progress: Callable[[int], object]) -> Callable[[int], object]:
    """A function of the number of an update that calls `progress` with 1."""
    return lambda step: progress(1)


def _pixels(images: Tensor, levels: int) -> Tensor:
    """The pixels of images as features in [0, 1]."""
    return images.flatten(1).float() / (levels - 1)


def run_classifier(
    training: ImageData,
    held_out: ImageData,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    steps: int = STEPS,
    folder: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[metrics.Classifier, float]:
    """A classifier trained on the data, and its accuracy on the held-out images.

    In a writable `folder` it is cached in folder/classifier, under a key of the images, the labels, `steps` and `seed`.
    `progress`: called with 1 after each update.
    """
    labels = _labels(training)
    _labels(held_out)
    kept = None
    if folder is not None and os.access(folder, os.W_OK):
        kept = Path(folder) / "classifier" / f"{_fingerprint(training, held_out):08x}-{steps}-{seed}"
        if (kept / "accuracy.json").is_file():  # it is written last
            path = kept / "accuracy.json"
            kept_accuracy = from_json(_Accuracy, read_json(path, "classifier"), shown(path))
            classifier = metrics.Classifier.from_pretrained(kept).to(device).eval()
            _check_classifier(classifier, training, kept)
            return classifier, kept_accuracy.accuracy
    options: Any = {"levels": training.levels, "held_out": (held_out.images, held_out.labels), "seed": seed}
    each = None if progress is None else _counting(progress)
    classifier, accuracy = metrics.train_classifier(
        training.images, labels, training.classes, **options, steps=steps, device=device, progress=each
    )
    if kept is not None:
        classifier.save_pretrained(kept)
        write_json(kept / "accuracy.json", {"accuracy": accuracy})
    return classifier, accuracy


@dataclass
class _Accuracy:
    """The content of accuracy.json."""

    accuracy: float = field(metadata={"ge": 0, "le": 1})

    def __post_init__(self) -> None:
        check_options(self)


def _check_classifier(classifier: metrics.Classifier, training: ImageData, folder: Path) -> None:
    _, channels, height, width = training.images.shape
    expected = ImageSpec(channels, height, width, training.levels, training.classes)
    if classifier.spec != expected:
        raise ValueError(f"{shown(folder)}: expected a classifier of {expected}; got one of {classifier.spec}")


def _labels(data: ImageData) -> Tensor:
    if data.labels is None:
        raise LookupError(f"{data.name}: expected labels to train a classifier; got images without labels")
    return data.labels


def _fingerprint(*parts: ImageData) -> int:
    """CRC-32 of the images and labels, their shapes, levels and classes."""
    checksum = 0
    for data in parts:
        checksum = zlib.crc32(f"{tuple(data.images.shape)} {data.levels} {data.classes}".encode(), checksum)
        for tensor in (data.images, _labels(data)):
            checksum = zlib.crc32(tensor.cpu().contiguous().numpy().data, checksum)
    return checksum


def feature_metrics(real: Tensor, generated: Tensor) -> dict[str, float]:
    """Every metric of `genfast.metrics.distances` of features, float [N, D] and [M, D]."""
    k, more = NEIGHBOURS
    precision, recall = metrics.precision_recall(real, generated, k)
    density, coverage = metrics.density_coverage(real, generated, more)
    return {
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "Frechet distance": metrics.frechet_distance(real, generated),
        "MMD (KID's kernel)": metrics.mmd(real, generated),
    }


def class_shares(
    classifier: metrics.Classifier,
    samples: Tensor,
    training: ImageData,
    asked: Callable[[int], Tensor | None] | None,
) -> ClassShares:
    """The classes of samples, by a classifier."""
    probabilities = classifier.probabilities(samples)
    predicted = probabilities.argmax(1).cpu()
    coverage = metrics.mode_coverage(predicted, _labels(training), training.classes)
    score, _ = metrics.inception_score(probabilities, 1)
    share = None
    if asked is not None and (labels := asked(len(samples))) is not None:
        share = float((predicted == labels.cpu()).double().mean())
    return ClassShares(coverage.hit, coverage.classes, len(samples), coverage.kl, float(score), share)


def given_features(real: str | Path, generated: str | Path) -> tuple[Tensor, ...]:
    """The features in two .npz files, float64 [N, D]: the array `features`, or the only array."""
    return tuple(_features(path) for path in (real, generated))


def _features(path: str | Path) -> Tensor:
    arrays = read_npz(path)
    array = arrays["features"] if "features" in arrays else next(iter(arrays.values())) if len(arrays) == 1 else None
    if array is None:
        raise ValueError(
            f"{shown(path)}: expected an array 'features', or one alone; got {', '.join(sorted(arrays)) or 'none'}"
        )
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{shown(path)}: expected finite features [N, D]; got {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.float64))
