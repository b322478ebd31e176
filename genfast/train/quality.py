"""How near the samples of a model without a likelihood are to images."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genfast import metrics
from genfast.data import ImageData, read_npz
from genfast.io import read_json, write_json

DRAWN = 1000  # at least so many samples are drawn, for what is said of classes
NEIGHBOURS = (3, 5)  # of precision and recall, and of density and coverage: those of the papers
KINDS = ("classifier", "pixels")
STEPS = 2000


@dataclass
class ClassShares:
    """What a classifier takes samples for.

    Attributes:
        hit, classes: classes that occur, and of how many.
        samples: how many.
        kl: nats, of the histogram of the classes from that of the data.
        inception_score: by this classifier, at most `classes`.
        as_asked: share that is taken for the class that it was asked to be of; None where none was asked for.
    """

    hit: int
    classes: int
    samples: int
    kl: float
    inception_score: float
    as_asked: float | None


@dataclass
class SampleQuality:
    """Samples beside held-out images.

    Attributes:
        features: "classifier", "pixels" or "given".
        accuracy: of the classifier on the held-out images, or None.
        columns: metric -> value, of the model and of training images in its place.
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
    progress: Callable[[int], None] | None = None,
) -> SampleQuality:
    """Samples beside held-out images, with training images in their place as the yardstick.

    Args:
        draw: a function of n: uint8 [n, C, H, W], the first n samples.
        training, held_out: ImageData.
        features: ["classifier"], trained on the training images; ["pixels"]; two .npz files of float arrays
            [N, D], of real and of generated images; None: a classifier where there are labels, else pixels.
        asked: a function of n: the labels that the samples were asked for [n], or None.
        device: where the classifier is trained.
        seed: of the classifier.
        folder: of the run, where the classifier is kept; None: nowhere.
        progress: called with 1 after each update of the classifier.
    Raises: ValueError for other features; LookupError for a classifier without labels.
    """
    features = list(features or (["classifier"] if held_out.labels is not None else ["pixels"]))
    if features[0] not in KINDS and len(features) == 2:
        return SampleQuality("given", columns={"model": feature_metrics(*given_features(*features))})
    if len(features) != 1 or features[0] not in KINDS:
        raise ValueError(f"features: expected {', '.join(KINDS)} or two .npz files; got {' '.join(features)}")
    real = held_out.images
    samples = draw(max(DRAWN, len(real)))
    ends = {"model": samples[: len(real)]}
    if len(training) >= len(real):
        chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))[: len(real)]
        ends["training images"] = training.images[chosen]
    quality = SampleQuality(features[0])
    if features == ["pixels"]:
        extract, classifier = (lambda x: x.flatten(1).float() / (held_out.levels - 1)), None
    else:
        options = {"device": device, "seed": seed, "folder": folder, "progress": progress}
        classifier, quality.accuracy = run_classifier(training, held_out, **options)
        extract = classifier.features
    of_real = extract(real)
    quality.columns = {name: feature_metrics(of_real, extract(images)) for name, images in ends.items()}
    if classifier is not None:
        quality.classes = class_shares(classifier, samples, training, asked)
    return quality


def run_classifier(
    training: ImageData,
    held_out: ImageData,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    steps: int = STEPS,
    folder: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[metrics.Classifier, float]:
    """A classifier of the classes of the data, and its accuracy on the held-out images.

    In a `folder` that can be written it is kept in folder/classifier, by the images and labels, `steps` and `seed` that
    it comes from, and read from there the next time. `progress`: called with 1 after each update.
    """
    for data in (training, held_out):
        if data.labels is None:
            raise LookupError(f"{data.name}: expected labels to train a classifier; got images without labels")
    kept = None
    if folder is not None and os.access(folder, os.W_OK):
        kept = Path(folder) / "classifier" / f"{_fingerprint(training, held_out):08x}-{steps}-{seed}"
        if (kept / "accuracy.json").is_file():  # the last file that was written
            accuracy = read_json(kept / "accuracy.json", "classifier")["accuracy"]
            return metrics.Classifier.from_pretrained(kept).to(device).eval(), accuracy
    options = {"levels": training.levels, "held_out": (held_out.images, held_out.labels), "seed": seed}
    each = progress and (lambda step: progress(1))
    classifier, accuracy = metrics.train_classifier(
        training.images, training.labels, training.classes, **options, steps=steps, device=device, progress=each
    )
    if kept is not None:
        classifier.save_pretrained(kept)
        write_json(kept / "accuracy.json", {"accuracy": accuracy})
    return classifier, accuracy


def _fingerprint(*parts: ImageData) -> int:
    """crc32 of the images and labels, and of what they mean."""
    checksum = 0
    for data in parts:
        checksum = zlib.crc32(f"{tuple(data.images.shape)} {data.levels} {data.classes}".encode(), checksum)
        for tensor in (data.images, data.labels):
            checksum = zlib.crc32(tensor.cpu().contiguous().numpy(), checksum)
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
    """What a classifier takes samples for."""
    probabilities = classifier.probabilities(samples)
    predicted = probabilities.argmax(1).cpu()
    coverage = metrics.mode_coverage(predicted, training.labels, training.classes)
    score, _ = metrics.inception_score(probabilities, 1)
    share = None
    if asked is not None:
        share = float((predicted == asked(len(samples)).cpu()).double().mean())
    return ClassShares(coverage.hit, coverage.classes, len(samples), coverage.kl, float(score), share)


def given_features(real: str | Path, generated: str | Path) -> tuple[Tensor, ...]:
    """Two .npz files as features, float64 [N, D]: the array `features`, or the only one."""
    return tuple(_features(path) for path in (real, generated))


def _features(path: str | Path) -> Tensor:
    arrays = read_npz(path)
    array = arrays["features"] if "features" in arrays else next(iter(arrays.values())) if len(arrays) == 1 else None
    if array is None:
        raise ValueError(
            f"{path}: expected an array 'features', or one alone; got {', '.join(sorted(arrays)) or 'none'}"
        )
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{path}: expected finite features [N, D]; got {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.float64))
