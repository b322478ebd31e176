"""Evaluation of a trained model on held-out data, beside baselines that need no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genfast import metrics
from genfast.data import ImageData, PairData
from genfast.engine.arguments import check_count
from genfast.engine.protocols import CodeModel, ImportanceSampled, LatentModel, Sequential, Translator, device_of
from genfast.tasks import sample
from genfast.train.config import is_adversarial
from genfast.train.inputs import batches, check, inputs, labels_in_shares
from genfast.train.loop import pick_device
from genfast.train.quality import STEPS, SampleQuality, sample_quality
from genfast.train.run_data import Tell, any_images, data_of, first_images, held_out_data, load_data, once, silent
from genfast.train.run_folder import cache_of, open_model
from genfast.train.trainer import mean_nats

Track = Callable[[list[Any], str], Iterable[Any]]
Bar = Callable[[int, str], AbstractContextManager[Any]]


@dataclass
class Evaluation:
    """What `evaluate` returns; fields that do not apply to a model are empty or None.

    Attributes:
        data, images: name of the held-out data, and how many images.
        dims: values of an image.
        nats: mean nats per image of the model, its bounds and the baselines, by name.
        importance_samples: for the estimate of the likelihood of a model with latents.
        active_latents, latents: of a model with latents.
        codebook_use: (share of the codes in use, perplexity) of each codebook; codes: of one codebook.
        translation: (mean error in per cent, PSNR in dB) of a translation and of its baselines, by name.
        samples: quality of the samples of a model without a likelihood.
        of_symbols: whether the images are sequences, whose values are symbols.
    """

    data: str
    images: int
    dims: int
    nats: dict[str, float] = field(default_factory=dict)
    importance_samples: int | None = None
    active_latents: int | None = None
    latents: int | None = None
    codebook_use: list[tuple[float, float]] = field(default_factory=list)
    codes: int | None = None
    translation: dict[str, tuple[float, float]] = field(default_factory=dict)
    samples: SampleQuality | None = None
    of_symbols: bool = False


def evaluate(
    target: str | Path,
    data_options: dict[str, Any],
    split: str | None,
    batch: int,
    device: str = "cpu",
    *,
    samples: int = 5000,
    seed: int = 0,
    images: int | None = None,
    features: list[str] | None = None,
    draw: Callable[..., Tensor] = sample,
    track: Track = lambda parts, unit: parts,
    bar: Bar = lambda total, unit: nullcontext(),
    tell: Tell = silent,
    say: Callable[[ImageData | PairData], None] = lambda data: None,
) -> Evaluation:
    """The model's likelihood of held-out images, or the quality of its samples, beside baselines.

    Args:
        target: run folder, model folder or name of shipped weights.
        data_options, split: of the held-out data; without `data`, those of the run.
        batch, device: images at a time, and where to compute.
        samples, seed: of the importance-sampled likelihood of a model with latents.
        images: how many of the held-out images; the first ones, but random ones to compare samples with; None: all.
        features: of the samples of a model without a likelihood, as `sample_quality`.
        draw: function that samples, with the arguments of `genfast.sample`.
        track: function (parts, unit) that iterates over parts, and may show the progress.
        bar: function (total, unit) that returns a context; its value is called with the units that are done.
        tell: called with each message for the user.
        say: called with the held-out data, before the work.
    """
    check_count("evaluate", 0, 0, seed)
    tell = once(tell)
    model = open_model(target).to(pick_device(device))
    source = data_of(target, data_options)
    by_samples = is_adversarial(model) and not isinstance(model, Translator)
    held_out: Any = held_out_data(source, split, tell)
    held_out = any_images(held_out, images, seed) if by_samples else first_images(held_out, images)
    check(model, held_out)
    say(held_out)
    training: Any = _training(source, tell, needed=by_samples or isinstance(model, Translator))
    evaluation = Evaluation(held_out.name, len(held_out), held_out.images[0].numel())
    evaluation.of_symbols = isinstance(model, Sequential)
    if isinstance(model, Translator):
        evaluation.translation = metrics.translation_errors(model, training, held_out, seed=seed)
        return evaluation
    if by_samples:
        evaluation.samples = _sample_quality(model, training, held_out, features, seed, target, draw, bar)
        return evaluation
    parts = batches(inputs(model, held_out), batch)
    evaluation.nats = nll_table(model, training, held_out, batch, samples=samples, seed=seed, track=track)
    if isinstance(model, LatentModel):
        evaluation.importance_samples = samples if isinstance(model, ImportanceSampled) else None
        evaluation.latents = model.latent_size
        evaluation.active_latents = int(metrics.active_units(model, parts).sum())
    if isinstance(model, CodeModel):
        evaluation.codes, evaluation.codebook_use = model.code_count, _codes_in_use(model, held_out, batch)
    return evaluation


def _training(source: dict[str, Any], tell: Tell, *, needed: bool) -> Any:
    """The training images; None where only the held-out ones are there, and they are enough."""
    try:
        return load_data(source, "train", tell)
    except (FileNotFoundError, LookupError) as error:
        if needed:
            raise
        tell(f"no baseline of independent pixels, which training images make: {error}")
        return None


def _sample_quality(
    model: Any,
    training: ImageData,
    held_out: ImageData,
    features: list[str] | None,
    seed: int,
    target: str | Path,
    draw: Callable[..., Tensor],
    bar: Bar = lambda total, unit: nullcontext(),
) -> SampleQuality:
    def asked(count: int) -> Tensor | None:
        return labels_in_shares(model, training, count, seed)

    def drawn(count: int) -> Tensor:
        return draw(model, count, seed=seed, labels=asked(count)).cpu()

    options: Any = {"features": features, "asked": asked if model.spec.classes else None, "device": device_of(model)}
    options |= {"seed": seed, "folder": cache_of(target)}
    with bar(STEPS, "step") as progress:  # of the classifier
        return sample_quality(drawn, training, held_out, **options, progress=progress)


@torch.no_grad()
def _codes_in_use(model: Any, data: ImageData, batch: int) -> list[tuple[float, float]]:
    """The usage of each codebook by these images."""
    codes = torch.cat([model.encode(images) for images, *_ in batches(inputs(model, data), batch)])
    of_each = codes.unflatten(2, (-1, model.codes_per_place)).unbind(3)
    return [metrics.codebook_use(part, model.code_count) for part in of_each]


def nll_table(
    model: nn.Module,
    training: ImageData | None,
    held_out: ImageData | PairData,
    batch: int = 250,
    *,
    samples: int = 5000,
    seed: int = 0,
    track: Track = lambda parts, unit: parts,
) -> dict[str, float]:
    """Nats per image of the held-out images under the model and under baselines.

    For a model with Gaussian latents: by importance sampling, and its bounds. Without training images there is no
    baseline of independent pixels.
    """
    images, levels, parts = held_out.images, held_out.levels, batches(inputs(model, held_out), batch)
    if isinstance(model, ImportanceSampled):
        rows = metrics.latent_nll(model, track(parts, "batch"), samples=samples, seed=seed)
    else:
        rows = {"model": mean_nats(model, track(parts, "batch"))}
    if training is not None:
        rows["independent pixels"] = metrics.independent_pixel_nll(training.images, images, levels)
    return rows | {"gzip": metrics.gzip_nats(images, levels), "PNG": metrics.png_nats(images, levels)}
