"""Start a training from a preset and options, or resume it from its own settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genfast import models
from genfast._config import from_json
from genfast._defaults import plain_defaults
from genfast._text import shown
from genfast.data import ImageData, PairData, describe
from genfast.engine.protocols import CodeModel
from genfast.io import write_json
from genfast.train.adversarial import AdversarialRun
from genfast.train.checkpoint import copy_into, open_checkpoint
from genfast.train.codes import attach_prior, check_prior, is_codes
from genfast.train.config import RunConfig, config_type, is_adversarial, rounds_of
from genfast.train.inputs import check, check_pairs
from genfast.train.loop import RunResult, check_same_images, of_cpu_time, pick_device, run_training, saved_state
from genfast.train.presets import preset as recipe_of
from genfast.train.run_data import Tell, load_data, named, once, silent
from genfast.train.run_folder import CONFIG, load_run, machine, open_model, run_settings, run_writer
from genfast.train.trainer import Run

# Options of a run to resume that may change: where the data are and how they are read, and how long it lasts.
MOVABLE = ("data", "data_root", "strict", "max_gb")
LENGTHS = ("steps", "epochs")
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
    of_cpu: bool = False,
    threads: int | None = None,
    bar: Bar = lambda steps, done: nullcontext(),
    tell: Tell = silent,
    say: Tell = silent,
) -> RunResult:
    """Start the run `out` from a preset and options, which override the preset, or resume it from its own settings.

    Nothing in `out` changes before all is checked: a run that is overwritten is whole until the other has begun.
    `conditional`, for models whose config has `classes`: whether to train on the labels of the data; None: as the
    preset says. `minutes`: the `budget` of a new run that is given neither steps nor epochs; otherwise, as for `fit`,
    when to stop, ready for `resume`. `of_cpu`: whether the budget is of time of the CPU, of all threads together,
    which other processes do not shorten. `bar(steps, done)` is a context whose value is called with each record of
    metrics.jsonl. `tell` is called with what the user should know of the data, `say` with which data these are, before
    the work.

    A run may be resumed with `data` that lie elsewhere, if they are the same images, and with more `steps` or `epochs`.
    """
    if threads:
        torch.set_num_threads(threads)
    if minutes and not resume and not {"steps", "epochs"} & train_options.keys():
        train_options, minutes = train_options | {"budget": minutes}, None
    asked = {k: v for k, v in (("model", model), ("preset", preset), ("conditional", conditional)) if v is not None}
    recipe = recipe_of(model, preset) if preset else None
    model_type, model_config_type = models.MODELS[model]
    with run_writer(out, resume=resume, overwrite=overwrite):
        if resume:
            settings = load_run(out)
            _check_unchanged(settings, asked | model_options | train_options, data_options)
            trained = settings["train"] | _longer(train_options)
            config: RunConfig = from_json(config_type(model_type), trained, shown(Path(out) / CONFIG))
            source = settings["data"] | {k: v for k, v in named(data_options).items() if k in MOVABLE and v}
        else:
            config = config_type(model_type)(**((recipe.train if recipe else {}) | train_options))
            source = _source(data_options, recipe)
        training, validation = _load_both(source, resume, once(tell))
        if resume:
            model_config = asdict(from_json(model_config_type, settings["model_config"], shown(Path(out) / CONFIG)))
        else:
            model_config = _model_config(model, recipe, model_options, training, conditional)
        torch.manual_seed(config.seed)
        with plain_defaults():
            network = _resumed(out, model, model_config) if resume else models.build(model, **model_config)
        if init_from:
            _start_from(network, init_from, training)
        check(network, training)
        check(network, validation)
        # Only the run that this command names is written to, not one that the settings of a received run name.
        is_named = not resume or bool(data_options.get("data"))
        if is_codes(source):
            check_prior(source, network, is_named)
        about = _about(preset, pick_device(config.device), training)
        if resume:
            _follow(out, settings, config, source, (network, training, validation), tell)
        else:
            settings = run_settings(model, model_config, config, source, **about)
        done = saved_state(out).step if resume else 0
        say(f"{describe(training)}; {len(validation)} to validate on")
        say(_summary(network, config, training))
        with bar(config.total_steps(len(training), rounds_of(network)), done) as progress:
            kind: Any = AdversarialRun if is_adversarial(network) else Run
            kind = of_cpu_time(kind) if of_cpu else kind
            options: Any = {"resume": resume, "minutes": minutes, "progress": progress, "settings": settings}
            result: RunResult = run_training(kind, network, training, validation, config, out, **options)
    if is_codes(source):
        _hand_over(source, out, result, is_named, tell)
    return result


def _summary(network: Any, config: RunConfig, training: ImageData | PairData) -> str:
    """The model, its size, how long it is trained, and where."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    length = f"{config.total_steps(len(training), rounds_of(network)):,} updates of {config.batch} images"
    length = f"{length}, {config.budget:g} minutes at most" if config.budget else length
    device = pick_device(config.device)
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    return f"{network.name} of {parameters:,} parameters; {length}; on {where}"


def _hand_over(source: dict[str, Any], out: str | Path, result: RunResult, is_named: bool, tell: Tell) -> None:
    """Give a finished prior to the VQ-VAE whose codes it was trained on, if the command named it."""
    if result.reason != "finished":  # the present prior of the VQ-VAE may be better
        tell(f"{out}: becomes the prior of {source['data']} when its training is finished")
    elif is_named:
        attach_prior(source, out)
    else:
        tell(f"{out}: becomes the prior of {source['data']} with --resume --data {source['data']}")


def _resumed(out: str | Path, model: str, model_config: dict[str, Any]) -> Any:
    """The model of a run, which is built only if its checkpoint is as large."""
    with open_checkpoint(out) as (file, _):
        expected = f"{shown(Path(out) / CONFIG)}: expected the settings of a {model}"
        return file.fill(lambda: models.build(model, **model_config), expected)


def _model_config(
    model: str, recipe: Any, options: dict[str, Any], data: ImageData | PairData, conditional: bool | None
) -> dict[str, Any]:
    """The settings of a new model: those of the preset, over them the options, over them what the data decide."""
    if conditional is None and recipe:
        conditional = recipe.conditional
    return (recipe.model if recipe else {}) | options | _fixed_by(model, data, conditional)


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
        raise ValueError(f"{shown(target)}: expected a {network.name} to start from; got a {first.name}")
    has_codes = isinstance(first, CodeModel)
    if has_codes:
        first.set_prior(None)  # training changes the codes
    check(first, training)
    # Tensors that only the new model has keep their values.
    copy_into(network, network.state_dict() | first.state_dict(), str(target))


def _load_both(source: dict[str, Any], resume: bool, tell: Tell) -> tuple[Any, Any]:
    """The training and the validation data."""
    try:
        return load_data(source, "train", tell), load_data(source, "valid", tell)
    except FileNotFoundError as error:
        if not resume:
            raise
        raise FileNotFoundError(f"{error}; with --resume, --data says where the data of the run are now") from None


def _source(data_options: dict[str, Any], recipe: Any) -> dict[str, Any]:
    """The settings of the data: as the options name them, else the preset."""
    options = named(data_options)
    return options | {"data": options["data"] or (recipe.data if recipe else None)}


def _about(preset: str | None, device: torch.device, training: ImageData | PairData) -> dict[str, Any]:
    """The entries of config.json that resuming does not need."""
    names = training.class_names if isinstance(training, ImageData) else ()
    return {"preset": preset, "machine": machine(device)} | ({"class_names": list(names)} if names else {})


def _longer(train_options: dict[str, Any]) -> dict[str, Any]:
    return {name: train_options[name] for name in LENGTHS if name in train_options}


def _follow(
    out: str | Path,
    settings: dict[str, Any],
    config: RunConfig,
    source: dict[str, Any],
    data: tuple[nn.Module, Any, Any],
    tell: Tell,
) -> None:
    """Write where the data of a resumed run are now, and how long it is to last, if the images are those of the run."""
    now = settings | {"train": config.to_dict(), "data": source}
    if now["data"] == settings["data"] and all(now["train"][k] == settings["train"].get(k, 0) for k in LENGTHS):
        return
    check_same_images(out, *data)
    write_json(Path(out) / CONFIG, now)
    for name in LENGTHS:
        before, after = settings["train"].get(name), now["train"][name]
        if before and before != after:
            tell(f"{name}: {after} instead of {before}: the learning rate goes on as if it had been {after} all along")


def _check_unchanged(settings: dict[str, Any], options: dict[str, Any], data_options: dict[str, Any]) -> None:
    """ValueError for an option that differs from the settings of the run to resume.

    The data may lie elsewhere: their images are compared. `steps`, or `epochs` of a run that counts them, may be more.
    """
    saved = settings["model_config"] | settings["train"] | settings["data"]
    saved |= {"model": settings["model"], "conditional": bool(settings["model_config"].get("classes"))}
    # A run of an earlier version does not store its preset.
    saved["preset"] = settings.get("preset", options.get("preset"))
    given = options | {k: v for k, v in data_options.items() if v and k not in MOVABLE}
    counted = "epochs" if saved.get("epochs") else "steps"
    for name, value in given.items():
        value = list(value) if isinstance(value, tuple) else value
        if name == counted:
            if value < saved[name]:
                raise ValueError(f"{name}: expected at least {saved[name]} as in the run to resume; got {value}")
        elif saved.get(name) != value:
            expected = f"{shown(saved.get(name), 100)} as in the run to resume"
            raise ValueError(f"{name}: expected {expected}; got {shown(value)}")
