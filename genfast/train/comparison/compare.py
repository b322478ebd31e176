"""The same data, the same budget, many families of models: they are trained, or are finished runs, and are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from genfast._text import shown
from genfast.data import ImageData
from genfast.random import permutation
from genfast.train.comparison.claims import Claim, claims
from genfast.train.comparison.families import FAMILIES, Family, recipes
from genfast.train.comparison.measures import ModelMeasures, Reference, Studied, distances, study
from genfast.train.comparison.training import Cost, train_model
from genfast.train.inputs import check
from genfast.train.metrics_log import read_metrics
from genfast.train.quality import run_classifier
from genfast.train.run_data import Tell, data_of, first_images, held_out_data, load_data, named, once, silent
from genfast.train.run_folder import load_run, machine, open_model

HELD_OUT = 1000  # images at most, of the measures
IMPORTANCE = 500  # samples
Bar = Callable[[int, int], AbstractContextManager[Any]]


@dataclass
class Comparison:
    """What `compare` returns.

    Attributes:
        data, levels: name of the training data, and values of a channel.
        training, validation, held_out: images of each split; compared: of either set in the distances.
        minutes: the budget of each model, of time of the CPU; None for finished runs.
        threads: of the CPU.
        accuracy: of the classifier whose features are used; None: pixels.
        models: `ModelMeasures`.
        left_out: why a family was not trained, by its title.
        training_images: the distances of training images from held-out ones, the best that can be expected.
        claims: `Claim`s.
        machine: what it ran on.
    """

    data: str
    levels: int
    training: int
    validation: int
    held_out: int
    compared: int
    minutes: float | None
    threads: int
    accuracy: float | None
    models: list[ModelMeasures] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    training_images: dict[str, float] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)


@dataclass
class Compared:
    """A `Comparison`, and the images that it is of."""

    result: Comparison
    studied: list[Studied]
    reference: Reference


def compare(
    data_options: dict[str, Any],
    out: str | Path,
    *,
    minutes: float,
    seeds: int = 1,
    seed: int = 0,
    families: Sequence[Family] = FAMILIES,
    overwrite: bool = False,
    bar: Bar = lambda steps, done: nullcontext(),
    tell: Tell = silent,
    say: Tell = silent,
) -> Compared:
    """Train every family that fits the data, each for the same time of the CPU, in `out`/runs, and compare the models.

    Args:
        data_options: of the data, as for `start`.
        out: folder; the runs are `out`/runs/MODEL-SEED.
        minutes: budget of each training, of time of the CPU of all threads together.
        seeds, seed: trainings of each family, and the first seed.
        families: those to train.
        overwrite: whether runs that are there are replaced.
        bar, tell, say: as for `start`; `say` is also called before each training.
    Returns: Compared.
    Raises: as `start`; ValueError for data that no family fits.
    """
    source = named(data_options)
    tell = once(tell)
    training: Any = load_data(source, "train", tell)
    if not isinstance(training, ImageData):
        raise ValueError(f"{training.name}: expected images; got pairs")
    fitting, left_out = recipes(training, tuple(families))
    for title, reason in left_out.items():
        say(f"{title}: left out: {reason}")
    if not fitting:
        raise ValueError(f"{training.name}: expected data that a family fits; got none that does")
    count = len(fitting) * seeds
    say(f"{count} trainings of {minutes:g} CPU-minutes each, {count * minutes:g} in all, and the measures")
    runs: list[tuple[Path, int, Cost]] = []
    for number in range(seed, seed + seeds):
        for recipe in fitting:
            run = Path(out) / "runs" / f"{recipe.family.model.replace('+', 'p')}-{number}"
            say(f"{recipe.family.title}, seed {number}: {shown(run)}")
            cost = train_model(
                recipe, source, run, minutes=minutes, seed=number, overwrite=overwrite, bar=bar, tell=tell
            )
            runs.append((run, number, cost))
    return _compared(runs, source, minutes, left_out, seed, tell, say)


def compare_runs(
    runs: Sequence[str | Path], data_options: dict[str, Any], *, seed: int = 0, tell: Tell = silent, say: Tell = silent
) -> Compared:
    """Compare the models of finished runs, on the data of the first one or on those of the options.

    Raises: ValueError for runs of other images, or of another split of them; FileNotFoundError for a missing run.
    """
    sources = [{key: value for key, value in data_of(run, data_options).items() if value} for run in runs]
    for run, source in zip(runs, sources, strict=True):
        if source != sources[0]:
            expected = f"the data of {shown(runs[0])}, {shown(sources[0])}, or --data"
            raise ValueError(f"{shown(run)}: expected {expected}; got {shown(source)}")
    settings = [load_run(run)["train"] for run in runs]
    trained = [(Path(run), int(about.get("seed", 0)), None) for run, about in zip(runs, settings, strict=True)]
    return _compared(trained, sources[0], None, {}, seed, once(tell), say)


def _compared(
    runs: Sequence[tuple[Path, int, Cost | None]],
    source: dict[str, Any],
    minutes: float | None,
    left_out: dict[str, str],
    seed: int,
    tell: Tell,
    say: Tell,
) -> Compared:
    ref, validation = _reference(source, seed, tell, say)
    studied = []
    for run, number, cost in runs:
        say(f"measuring {shown(run)}")
        model = open_model(run).cpu().eval()
        check(model, ref.held_out)
        studied.append(study(model, run, number, cost, _wall_minutes(run), ref))
    held_out = ref.held_out
    result = Comparison(
        ref.training.name,
        held_out.levels,
        len(ref.training),
        validation,
        len(held_out),
        ref.compared,
        minutes,
        torch.get_num_threads(),
        ref.accuracy,
        [one.measures for one in studied],
        left_out,
        distances(ref.training.images[_rows(ref)], ref),
        claims(studied, held_out.images, held_out.levels, seed),
        machine(torch.device("cpu")),
    )
    return Compared(result, studied, ref)


def _rows(ref: Reference) -> torch.Tensor:
    """As many random training images as held-out ones are compared."""
    return permutation(len(ref.training), ref.seed)[: ref.compared]


def _reference(source: dict[str, Any], seed: int, tell: Tell, say: Tell) -> tuple[Reference, int]:
    """What the models are measured against, and the number of validation images."""
    training: Any = load_data(source, "train", tell)
    held_out: Any = first_images(held_out_data(source, None, tell), HELD_OUT)
    classifier, accuracy = None, None
    if training.labels is not None and held_out.labels is not None:
        say("training a classifier, whose features are compared")
        classifier, accuracy = run_classifier(training, held_out, seed=seed)
    compared = min(len(held_out), len(training))
    ref = Reference(training, held_out, classifier, accuracy, compared, IMPORTANCE, seed)
    return ref, len(load_data(source, "valid", tell))


def _wall_minutes(run: Path) -> float | None:
    """Minutes of training that a run records."""
    records = read_metrics(run / "metrics.jsonl")
    seconds = records[-1].get("seconds") if records else None
    return None if seconds is None else seconds / 60
