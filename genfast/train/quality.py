"""What `genfast evaluate` says of models without a likelihood: how near their samples are to images."""

import os
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from genfast import metrics
from genfast.data import read_npz
from genfast.io import read_json, write_json
from genfast.train.progress import counter

DRAWN = 1000  # at least so many samples are drawn, for what is said of classes
NEIGHBOURS = (3, 5)  # of precision and recall, and of density and coverage: those of the papers
KINDS = ("classifier", "pixels")
STEPS = 2000


def sample_quality(draw, training, held_out, *, features=None, asked=None, device="cpu", seed=0,
                   folder=None):  # fmt: skip
    """Lines of a report on samples beside held-out images, with training images in their place as the yardstick.

    Args:
        draw: a function of n: uint8 [n, C, H, W], the first n samples.
        training, held_out: ImageData.
        features: ["classifier"], trained on the training images; ["pixels"]; two .npz files of float arrays
            [N, D], of real and of generated images; None: a classifier where there are labels, else pixels.
        asked: a function of n: the labels that the samples were asked for [n], or None.
        device: where the classifier is trained.
        seed: of the classifier.
        folder: of the run, where the classifier is kept; None: nowhere.
    Raises: ValueError for other features; LookupError for a classifier without labels.
    """
    features = list(features or (["classifier"] if held_out.labels is not None else ["pixels"]))
    if features[0] not in KINDS and len(features) == 2:
        yield from table({"model": given_features(*features)})
        return
    if len(features) != 1 or features[0] not in KINDS:
        raise ValueError(f"features: expected {', '.join(KINDS)} or two .npz files; got {' '.join(features)}")
    real = held_out.images
    samples = draw(max(DRAWN, len(real)))
    ends = {"model": samples[: len(real)]}
    if len(training) >= len(real):
        chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))[: len(real)]
        ends["training images"] = training.images[chosen]
    if features == ["pixels"]:
        yield "features: pixels"
        extract, classifier = (lambda x: x.flatten(1).float() / (held_out.levels - 1)), None
    else:
        classifier, accuracy = run_classifier(training, held_out, device=device, seed=seed, folder=folder, shown=True)
        yield f"features: of a classifier that names the class of {100 * accuracy:.1f} % of the held-out images"
        extract = classifier.features
    found = extract(real)
    yield from table({name: (found, extract(images)) for name, images in ends.items()})
    if classifier is not None:
        yield from class_lines(classifier, samples, training, asked)


def run_classifier(training, held_out, *, device="cpu", seed=0, steps=STEPS, folder=None, shown=False):
    """A classifier of the classes of the data, and its accuracy on the held-out images.

    In a `folder` that can be written it is kept in folder/classifier, by the images and labels, `steps` and `seed` that
    it comes from, and read from there the next time. `shown`: whether a progress bar counts the updates.
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
    with counter(steps, "step") if shown else nullcontext() as progress:
        classifier, accuracy = metrics.train_classifier(
            training.images, training.labels, training.classes, **options, steps=steps, device=device,
            progress=progress and (lambda step: progress(1)),
        )  # fmt: skip
    if kept is not None:
        classifier.save_pretrained(kept)
        write_json(kept / "accuracy.json", {"accuracy": accuracy})
    return classifier, accuracy


def _fingerprint(*parts):
    """crc32 of the images and labels, and of what they mean."""
    found = 0
    for data in parts:
        found = zlib.crc32(f"{tuple(data.images.shape)} {data.levels} {data.classes}".encode(), found)
        for tensor in (data.images, data.labels):
            found = zlib.crc32(tensor.cpu().contiguous().numpy(), found)
    return found


def feature_metrics(real, generated):
    """Every metric of `genfast.metrics.features` of two sets of features, float [N, D] and [M, D]: a dict of floats."""
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


def table(sets):
    """Lines of `feature_metrics` of each pair in a dict {name: (real, generated)}."""
    columns = {name: feature_metrics(*pair) for name, pair in sets.items()}
    yield f"{'':<20}" + "".join(f"{name:>17}" for name in columns)
    for row in next(iter(columns.values())):
        yield f"{row:<20}" + "".join(f"{column[row]:17.4f}" for column in columns.values())


def class_lines(classifier, samples, training, asked):
    """What a classifier takes samples for."""
    probabilities = classifier.probabilities(samples)
    predicted = probabilities.argmax(1).cpu()
    found = metrics.mode_coverage(predicted, training.labels, training.classes)
    score, _ = metrics.inception_score(probabilities, 1)
    yield f"classes: {found.hit} of {found.classes} in {len(samples)} samples, KL of their histogram {found.kl:.4f}"
    yield f"inception score by this classifier: {score:.3f} of at most {training.classes}"
    if asked is not None:
        share = float((predicted == asked(len(samples)).cpu()).double().mean())
        yield f"asked for: {100 * share:.1f} % of the samples are taken for the class that they were asked to be of"


def given_features(real, generated):
    """Two .npz files as features, float64 [N, D]: the array `features`, or the only one."""
    return tuple(_features(path) for path in (real, generated))


def _features(path):
    arrays = read_npz(path)
    array = arrays["features"] if "features" in arrays else next(iter(arrays.values())) if len(arrays) == 1 else None
    if array is None:
        raise ValueError(
            f"{path}: expected an array 'features', or one alone; got {', '.join(sorted(arrays)) or 'none'}"
        )
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{path}: expected finite features [N, D]; got {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.float64))
