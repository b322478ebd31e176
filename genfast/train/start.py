"""Start a training from a preset and options, or resume it from its own settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genfast import models
from genfast.data import ImageData, PairData
from genfast.engine.protocols import CodeModel
from genfast.train.adversarial import AdversarialRun
from genfast.train.checkpoint import copy_into, load_checkpoint
from genfast.train.codes import attach_prior, check_prior, is_codes
from genfast.train.config import RunConfig, config_type, is_adversarial, rounds_of
from genfast.train.inputs import check, check_pairs
from genfast.train.loop import RunResult, pick_device, run_training
from genfast.train.presets import preset as recipe_of
from genfast.train.run_data import Tell, load_data, silent
from genfast.train.run_folder import load_run, machine, open_model, run_settings, run_writer
from genfast.train.trainer import Run

Bar = Callable[[int, int], AbstractContextManager[Any]]


def start(
    out: str | Path,
    *,
    model: str,
    preset: str | None = None,
    model_options: dict[str, Any],
    train_options: dict[str, Any],
    data_options: dict[str, Any],
    conditional: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    bar: Bar = lambda steps, done: nullcontext(),
    tell: Tell = silent,
) -> RunResult:
    """Start the run `out` from a preset and options, which override the preset, or resume it from its own settings.

    Nothing in `out` changes before all is checked: a run that is overwritten is whole until the other has begun.
    `conditional`, for models whose config has `classes`: whether to train on the labels of the data; None: as the
    preset says. `bar(steps, done)` is a context whose value is called with each record of metrics.jsonl.
    """
    if threads:
        torch.set_num_threads(threads)
    asked = {"model": model, "preset": preset, "conditional": conditional}
    recipe = recipe_of(model, preset) if preset else None
    model_type, model_config_type = models.MODELS[model]
    with run_writer(out, resume=resume, overwrite=overwrite):
        if resume:
            settings = load_run(out)
            given = {k: v for k, v in asked.items() if v is not None} | model_options | train_options
            _check_unchanged(settings, given, data_options)
            config: RunConfig = config_type(model_type).from_dict(settings["train"])
            source = settings["data"] | {k: v for k, v in data_options.items() if k == "data_root" and v}
        else:
            config = config_type(model_type)(**((recipe.train if recipe else {}) | train_options))
            source = data_options | {"data": data_options["data"] or (recipe.data if recipe else None)}
        training, validation = load_data(source, "train", tell), load_data(source, "valid", tell)
        if resume:
            model_config = settings["model_config"]
        else:
            if conditional is None and recipe:
                conditional = recipe.conditional
            fixed = _fixed_by(model, training, conditional)
            model_config = (recipe.model if recipe else {}) | model_options | fixed
        torch.manual_seed(config.seed)
        network = models.build(model, **model_config)
        if init_from:
            _start_from(network, init_from, training)
        for data in (training, validation):
            check(network, data)
        # Only the run that this command names is written to, not one that the settings of a received run name.
        named = not resume or bool(data_options.get("data"))
        if is_codes(source):
            check_prior(source, network, named)
        about: Any = {"preset": preset, "machine": machine(pick_device(config.device))}
        settings = run_settings(model, model_config, config, source, **about)
        done = load_checkpoint(out)[1]["step"] if resume else 0
        with bar(config.total_steps(len(training), rounds_of(network)), done) as progress:
            kind = AdversarialRun if is_adversarial(network) else Run
            options: Any = {"resume": resume, "minutes": minutes, "progress": progress, "settings": settings}
            result: RunResult = run_training(kind, network, training, validation, config, out, **options)
    if is_codes(source):
        _hand_over(source, out, result, named, tell)
    return result


def _hand_over(source: dict[str, Any], out: str | Path, result: RunResult, named: bool, tell: Tell) -> None:
    """Give a finished prior to the VQ-VAE whose codes it was trained on, if the command named it."""
    if result.reason != "finished":  # the present prior of the VQ-VAE may be better
        tell(f"{out}: becomes the prior of {source['data']} when its training is finished")
    elif named:
        attach_prior(source, out)
    else:
        tell(f"{out}: becomes the prior of {source['data']} with --resume --data {source['data']}")


def _fixed_by(model: str, data: ImageData | PairData, conditional: bool | None) -> dict[str, Any]:
    """The fields of a model's config that the data decide."""
    model_type, config = models.MODELS[model]
    check_pairs(model, model_type.takes_pairs, data)
    fixed, needs_labels = config.fixed_by(data), config.is_always_conditional()
    conditional = needs_labels if conditional is None else conditional
    if not conditional:
        return fixed | ({"classes": 0} if needs_labels else {})  # 0 is refused by the config
    if data.labels is None:
        expected = f"labels, which a {model} needs" if needs_labels else "labels, or --no-conditional"
        raise ValueError(f"{data.name}: expected {expected}; got images without labels")
    return fixed | {"classes": data.classes}


def _start_from(network: nn.Module, target: str, training: ImageData | PairData) -> None:
    first: Any = open_model(target)
    if not isinstance(network, type(first)):  # a subclass may start from its base: an IWAE from a VAE
        raise ValueError(f"{target}: expected a {network.name} to start from; got a {first.name}")
    has_codes = isinstance(first, CodeModel)
    if has_codes:
        first.set_prior(None)  # training changes the codes
    check(first, training)
    # Tensors that only the new model has keep their values.
    copy_into(network, network.state_dict() | first.state_dict(), str(target))


def _check_unchanged(settings: dict[str, Any], options: dict[str, Any], data_options: dict[str, Any]) -> None:
    """ValueError for an option that differs from the settings of the run to resume."""
    saved = settings["model_config"] | settings["train"] | settings["data"]
    saved |= {"model": settings["model"], "conditional": bool(settings["model_config"].get("classes"))}
    # A run of an earlier version does not store its preset.
    saved["preset"] = settings.get("preset", options.get("preset"))
    given = options | {k: v for k, v in data_options.items() if v and k != "data_root"}
    for name, value in given.items():
        value = list(value) if isinstance(value, tuple) else value
        if saved.get(name) != value:
            raise ValueError(f"{name}: expected {saved.get(name)} as in the run to resume; got {value}")
