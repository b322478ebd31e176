"""What is measured of one trained model, beside the data that it was trained on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genfast import metrics
from genfast.data import ImageData
from genfast.engine.calling import evaluating
from genfast.engine.protocols import (
    Autoregressive,
    Bounded,
    CodeModel,
    Density,
    ImportanceSampled,
    LatentModel,
    LatentNetworks,
    Reconstructor,
)
from genfast.metrics.intervals import Interval
from genfast.random import permutation
from genfast.tasks import (
    BitFlipNoise,
    GaussianNoise,
    compress,
    decompress,
    denoise,
    embed,
    inpaint,
    reconstruct,
    sample,
)
from genfast.train.comparison.families import KINDS, TITLES
from genfast.train.comparison.training import Cost
from genfast.train.config import is_adversarial
from genfast.train.inputs import batches, inputs, labels_in_shares
from genfast.train.quality import feature_metrics
from genfast.train.standing import monitored, pooled, samples_state

DRAWN = 1000  # images that are drawn of each model
SHOWN = 8  # images that are filled in and cleaned
CHAIN = 40  # steps of the Markov chains that do it
SUBSETS = 50  # of the kernel distance
TIMINGS = 5
PROBED = 5000  # training images of a linear probe, at most


@dataclass(frozen=True)
class Reference:
    """What every model of a comparison is measured against.

    Attributes:
        training, held_out: the data.
        classifier, accuracy: trained on the training images, and its share of right held-out images; None without
            labels: pixels are the features.
        compared: images of either set in the distances, N.
        importance: samples of each image for the likelihood of models with latents.
        seed: of all that is drawn.
    """

    training: ImageData
    held_out: ImageData
    classifier: metrics.Classifier | None
    accuracy: float | None
    compared: int
    importance: int
    seed: int

    def features(self, images: Tensor) -> Tensor:
        """Features of images, float [n, F]: of the classifier, or pixels in [0, 1]."""
        if self.classifier is None:
            return images.flatten(1).float() / (self.held_out.levels - 1)
        return self.classifier.features(images).cpu()

    def classes(self, images: Tensor) -> Tensor | None:
        """The classes of images [n], by the classifier; -1 for those that are far from all training images."""
        if self.classifier is None:
            return None
        rows = permutation(len(self.training), self.seed)[:DRAWN]
        inside = metrics.looks_real(self.features(self.training.images[rows]), self.features(images))
        return torch.where(inside, self.classifier.predict(images).cpu(), -1)


@dataclass
class Latents:
    """Latents of a model: how many, how many are active, and what a linear probe of them tells of the classes.

    `probe`, `pixels`: shares of the held-out images whose class is told from latents, and from pixels; `better`: their
    difference, image by image. None without labels.
    """

    size: int
    active: int
    probe: float | None = None
    pixels: float | None = None
    better: Interval | None = None


@dataclass
class ModelMeasures:
    """One model; what does not apply to it is None.

    Attributes:
        run: its folder.
        title, model, kind, seed: its family, the name of its model, "autoregressive", "latent", "codes", "adversarial"
            or "other", and the seed of its training.
        parameters: their number.
        cost: of its training, where this comparison trained it; wall_minutes: as its run records them.
        nats, nats_by: per held-out image, and how they are obtained; bits_per_dim: the same.
        file_bits, file_by: bits of the compressed held-out images, per value, and how.
        sharpness, sharpness_of_means: of draws, and of the means that it decodes for the held-out images.
        distances: precision, recall, density, coverage, Frechet distance and MMD, and KID with its deviation.
        classes: shares of the classes among its draws.
        faults: that its draws show.
        latents: or None.
        equilibrium, accuracy: verdict in words, its reasons, and the accuracy of the discriminator; of a GAN.
        images_per_second, without_engine: speed of sampling, and without the pixel engine.
        filled, cleaned: PSNR in dB of filled in and of cleaned images.
    """

    run: str
    title: str
    model: str
    kind: str
    seed: int
    parameters: int
    cost: Cost | None
    wall_minutes: float | None
    nats: Interval | None = None
    nats_by: str = ""
    bits_per_dim: float | None = None
    file_bits: float | None = None
    file_by: str = ""
    sharpness: metrics.Sharpness | None = None
    sharpness_of_means: metrics.Sharpness | None = None
    distances: dict[str, float] = field(default_factory=dict)
    classes: list[float] | None = None
    faults: metrics.Faults | None = None
    latents: Latents | None = None
    equilibrium: metrics.Verdict | None = None
    accuracy: metrics.Accuracy | None = None
    images_per_second: Interval | None = None
    without_engine: Interval | None = None
    filled: float | None = None
    cleaned: float | None = None


@dataclass
class Studied:
    """`ModelMeasures`, and the images and the values of each image that they are from."""

    measures: ModelMeasures
    draws: Tensor
    means: Tensor | None = None
    nats: Tensor | None = None
    filled: Tensor | None = None
    cleaned: Tensor | None = None


def study(model: Any, run: str | Path, seed: int, cost: Cost | None, minutes: float | None, ref: Reference) -> Studied:
    """Measure a model of `run`, trained with `seed`, against the reference."""
    labels = labels_in_shares(model, ref.training, DRAWN, ref.seed)
    draws = sample(model, DRAWN, seed=ref.seed, labels=labels).cpu()
    title, kind = TITLES.get(model.name, model.name), KINDS.get(model.name, "other")
    parameters = sum(p.numel() for p in model.parameters())
    made = ModelMeasures(str(run), title, model.name, kind, seed, parameters, cost, minutes)
    studied = Studied(made, draws)
    _likelihood(studied, model, ref)
    _file(made, model, ref)
    _draws(studied, model, ref)
    _speed(made, model, labels)
    if isinstance(model, LatentModel):
        made.latents = _latents(model, ref)
    if is_adversarial(model):
        made.accuracy = pooled(monitored(str(run)))
        coverage, variance = samples_state(draws, ref.training, ref.classifier, ref.seed)
        made.equilibrium = metrics.verdict(made.accuracy, coverage, variance=variance)
    if isinstance(model, (Autoregressive, LatentModel)):
        _repair(studied, model, ref)
    return studied


@torch.no_grad()
def _likelihood(studied: Studied, model: Any, ref: Reference) -> None:
    """Nats of each held-out image."""
    importance, bounded = isinstance(model, ImportanceSampled), isinstance(model, Bounded)
    if is_adversarial(model) or not (bounded or isinstance(model, Density)):
        return
    parts: list[Tensor] = []
    made, done = studied.measures, 0
    made.nats_by = "exact"
    if importance:
        made.nats_by = f"importance sampling, {ref.importance} samples: at most, in expectation"
    elif bounded and not isinstance(model, Autoregressive):
        made.nats_by = "bound, by each image's own codes" if isinstance(model, CodeModel) else "bound"
    with evaluating(model):
        for batch in batches(inputs(model, ref.held_out), 250):
            if importance:
                values = model.log_prob(*batch, samples=ref.importance, seed=ref.seed, first=done)
            elif bounded:
                values = model.bound(*batch, first=done)
            else:
                values = model.log_prob(*batch)
            parts.append(-values.double().cpu())
            done += len(values)
    studied.nats = torch.cat(parts)
    made.nats = metrics.difference_interval(studied.nats, torch.zeros_like(studied.nats), seed=ref.seed)
    made.bits_per_dim = metrics.bits_per_dim(made.nats.value, ref.held_out.images[0].numel())


def _file(made: ModelMeasures, model: Any, ref: Reference) -> None:
    """Bits of a real file of the held-out images, which is read back."""
    images, has_codes = ref.held_out.images, isinstance(model, CodeModel)
    if not has_codes and not isinstance(model, (Autoregressive, LatentNetworks)):
        return
    labels = ref.held_out.labels if model.spec.classes and not has_codes else None
    data = compress(model, images, labels=labels)
    back = decompress(data, model).cpu()
    made.file_bits = 8 * len(data) / images.numel()
    same = torch.equal(back, images)
    made.file_by = "without loss" if same else f"with loss, {metrics.psnr(back, images, ref.held_out.levels):.1f} dB"


def _draws(studied: Studied, model: Any, ref: Reference) -> None:
    """Sharpness, distances, classes and faults of the draws."""
    made, real, levels = studied.measures, ref.held_out.images, ref.held_out.levels
    made.sharpness = metrics.sharpness(studied.draws, real, levels, seed=ref.seed)
    decodes = isinstance(model, Reconstructor)
    if decodes:
        labels = ref.held_out.labels if model.spec.classes else None
        studied.means = reconstruct(model, real, labels).cpu()
        made.sharpness_of_means = metrics.sharpness(studied.means, real, levels, seed=ref.seed)
    made.distances = distances(studied.draws, ref)
    predicted, shares = ref.classes(studied.draws), None
    if predicted is not None and ref.training.labels is not None:
        shares = torch.bincount(ref.training.labels, minlength=ref.training.classes).double()
        made.classes = metrics.mode_coverage(predicted, shares, ref.training.classes).shares.tolist()
    made.faults = metrics.find_faults(
        studied.draws,
        ref.training.images,
        real,
        levels,
        predicted=predicted,
        predicted_held_out=ref.classes(real),
        shares=shares,
        seed=ref.seed,
    )


def distances(images: Tensor, ref: Reference) -> dict[str, float]:
    """The distances of the first `ref.compared` images from as many held-out ones, by the features of the reference."""
    of_real, of_images = (ref.features(part[: ref.compared]) for part in (ref.held_out.images, images))
    found = feature_metrics(of_real, of_images)
    found["KID"], found["KID, deviation"] = metrics.kernel_distance(
        of_real, of_images, SUBSETS, max(2, min(len(of_real), len(of_images)) // 2), ref.seed
    )
    return found


def _speed(made: ModelMeasures, model: Any, labels: Tensor | None) -> None:
    """Images a second, by the engine that serves the model, and by whole forward passes."""
    made.images_per_second = _rate(model, labels, 256, "auto")
    if isinstance(model, Autoregressive):
        made.without_engine = _rate(model, labels, 16, "full_forward")


def _rate(model: Any, labels: Tensor | None, count: int, backend: str) -> Interval:
    some = None if labels is None else labels[:count]
    settings: Any = {"labels": some} | ({"backend": backend} if isinstance(model, Autoregressive) else {})
    rates = []
    for number in range(TIMINGS + 1):
        start = time.perf_counter()
        sample(model, count, seed=number, **settings)
        rates.append(count / (time.perf_counter() - start))
    rates = sorted(rates[1:])  # the first compiles
    return Interval(rates[len(rates) // 2], rates[0], rates[-1])


def _latents(model: Any, ref: Reference) -> Latents:
    """How many latents tell something of an image, and what they tell of its class."""
    parts = batches(inputs(model, ref.held_out), 250)
    made = Latents(model.latent_size, int(metrics.active_units(model, parts).sum()))
    if ref.training.labels is None or ref.held_out.labels is None:
        return made
    known = ref.training.select(permutation(len(ref.training), ref.seed)[:PROBED], "probed")
    labels: Any = (known.labels, ref.held_out.labels)
    sets = known.images, ref.held_out.images
    latents: Any = [embed(model, x, y if model.spec.classes else None) for x, y in zip(sets, labels, strict=True)]
    pixels = [x.flatten(1).float() for x in sets]
    told, told_by_pixels = (
        metrics.linear_probe_hits(vectors[0], labels[0], vectors[1], labels[1]) for vectors in (latents, pixels)
    )
    made.probe, made.pixels = float(told.double().mean()), float(told_by_pixels.double().mean())
    made.better = metrics.difference_interval(told, told_by_pixels, seed=ref.seed)
    return made


def _repair(studied: Studied, model: Any, ref: Reference) -> None:
    """Fill in the lower halves of the same images, and clean the same noisy ones."""
    images, levels = ref.held_out.images[:SHOWN], ref.held_out.levels
    labels: Any = ref.held_out.labels
    settings: Any = {"seed": ref.seed, "labels": labels[:SHOWN] if model.spec.classes else None}
    known, noisy, noise = damaged(ref)
    studied.filled = inpaint(model, images, known, steps=CHAIN, **settings).images.cpu()
    studied.cleaned = denoise(model, noisy, noise, method="mean", samples=2, steps=CHAIN, **settings).images.cpu()
    studied.measures.filled = metrics.imputation_error(studied.filled, images, known, levels)["psnr"]
    studied.measures.cleaned = metrics.psnr(studied.cleaned, images, levels)


def damaged(ref: Reference) -> tuple[Tensor, Tensor, BitFlipNoise | GaussianNoise]:
    """(mask of what is known, noisy images, their noise) of the first held-out images."""
    images, levels = ref.held_out.images[:SHOWN], ref.held_out.levels
    known = torch.zeros(1, 1, *images.shape[2:], dtype=torch.bool, device="cpu")
    known[:, :, : images.shape[2] // 2] = True
    noise = BitFlipNoise(0.1) if levels == 2 else GaussianNoise(0.2)
    return known, noise.corrupt(images, levels, seed=ref.seed), noise
