"""`--config` and `--print-config` of `genfast train`: the settings of a run as a file, YAML or JSON."""

from __future__ import annotations

import argparse
import json
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from genfast._text import shown
from genfast.cli.options import DATA_OPTIONS
from genfast.io import MOST_JSON, read_bytes, read_json
from genfast.models import MODELS
from genfast.train.config import config_type
from genfast.train.presets import preset as recipe_of

SECTIONS = ("model_config", "train", "data")
# What a file may say, with the kinds of its values; the rest of a run's config.json is not read.
KEYS: dict[str, Any] = {
    **{"model": str, "preset": (str, type(None)), "conditional": (bool, type(None))},
    **dict.fromkeys(SECTIONS, dict),
}
_NAMES = {str: "a text", int: "a whole number", (int, float): "a number", bool: "true or false"}
UNREAD = ("genfast_run", "machine", "class_names")
Settings = dict[str, Any]


def read_settings(path: str, model: str) -> Settings:
    """The settings of a file for the training of this model.

    Raises: ValueError for settings of another model, or that are none; ImportError for YAML without PyYAML.
    """
    name, is_yaml = shown(path), Path(path).suffix.lower() in (".yaml", ".yml")
    values = _read_yaml(path, name) if is_yaml else read_json(Path(path), "settings of a training")
    if not isinstance(values, dict) or (unknown := sorted(map(str, values.keys() - {*KEYS, *UNREAD}))):
        got = f"{shown(', '.join(unknown))}" if isinstance(values, dict) else f"a {type(values).__name__}"
        raise ValueError(f"{name}: expected {', '.join(KEYS)}; got {got}")
    for key, kind in KEYS.items():
        if key in values and not isinstance(values[key], kind):
            raise ValueError(
                f"{name}: expected settings as --print-config prints them; got {key}: {shown(values[key])}"
            )
    if values.get("model", model) != model:
        raise ValueError(f"{name}: expected settings of a {model}; got those of a {shown(values['model'])}")
    return _checked(values, model, name)


def _read_yaml(path: str, name: str) -> Any:
    try:
        yaml = import_module("yaml")
    except ImportError as error:
        raise ImportError(f"{name}: expected JSON, or the package PyYAML; got {error}") from None
    try:
        text = read_bytes(path, "settings of a training", MOST_JSON).decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # a few lines may stand for billions
            raise ValueError("an alias, which is not read")
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: expected YAML; got {shown(' '.join(str(error).split()), 200)}") from None


def _checked(values: Settings, model: str, name: str) -> Settings:
    """The sections without what the data decide; a run's config.json says by its classes whether it has labels."""
    model_type, config = MODELS[model]
    read: Settings = {"preset": values.get("preset"), "conditional": values.get("conditional")}
    found = dict(values.get("model_config", {}))
    if read["conditional"] is None and "classes" in found and config.may_be_conditional():
        read["conditional"] = bool(found["classes"])
    read["model_config"] = _fields(found, config, f"{name}: model_config")
    of_training = config_type(model_type)
    read["train"] = _fields(dict(values.get("train", {})), of_training, f"{name}: train", "budget")
    read["data"] = _given(values.get("data", {}))
    for key, value in read["data"].items():
        fits = key in DATA_OPTIONS and isinstance(value, DATA_OPTIONS[key])
        if not fits or isinstance(value, bool) != (key == "strict"):  # a bool is an int
            named = ", ".join(f"{name} ({_NAMES[kind]})" for name, kind in DATA_OPTIONS.items())
            raise ValueError(f"{name}: data: expected {named}; got {shown(f'{key}: {value!r}')}")
    return read


def _given(values: Settings) -> Settings:
    """Those that say something."""
    return {key: value for key, value in values.items() if value is not None and value is not False}


def _fields(values: Settings, config: type, name: str, *kept: str) -> Settings:
    """The values of fields, but for those that the data decide, numbers as such: YAML takes 1e-3 for a text."""
    hints, known = get_type_hints(config), {field.name: field for field in fields(config)}
    unknown = sorted(values.keys() - known.keys() - {"classes"})
    if unknown:
        raise ValueError(f"{name}: expected fields of {config.__name__}; got {shown(', '.join(unknown))}")
    read = {key: v for key, v in values.items() if key in known and (key in kept or not _of_data(known[key]))}
    for key, value in read.items():
        if hints[key] is float and isinstance(value, str):
            try:
                read[key] = float(value)
            except ValueError:
                raise ValueError(f"{name}: {key} must be a number; got {shown(value)}") from None
    return read


def _of_data(field: Any) -> bool:
    return bool(field.metadata["from_data"])


def merged(read: Settings, options: Settings) -> Settings:
    """The settings of a file, and over them those of the command line.

    `--data` is given with its own options: those of the file belong to its data. A length on the command line is the
    only one.
    """
    if read.get("preset") and options["preset"] not in (None, read["preset"]):
        expected = f"{read['preset']} or none, beside a file with all that this preset sets"
        raise ValueError(f"--preset: expected {expected}; got {options['preset']}")
    together = {key: read.get(key) if options[key] is None else options[key] for key in ("preset", "conditional")}
    together["model_config"] = read.get("model_config", {}) | options["model_config"]
    trained, given = dict(read.get("train", {})), options["train"]
    if {"steps", "epochs"} & given.keys():
        trained = {key: value for key, value in trained.items() if key not in ("steps", "epochs", "budget")}
    together["train"] = trained | given
    ours = _given(options["data"])
    together["data"] = options["data"] | ({} if "data" in ours else read.get("data", {})) | ours
    return together


def printed(model: str, settings: Settings) -> str:
    """All settings of a training, those that nobody gave included: YAML where PyYAML is installed, else JSON."""
    model_type, config = MODELS[model]
    recipe = recipe_of(model, settings["preset"]) if settings["preset"] else None
    conditional = settings["conditional"]
    if conditional is None and config.may_be_conditional():
        conditional = recipe.conditional if recipe else None
        conditional = config.is_always_conditional() if conditional is None else conditional
    source = _given(settings["data"])
    if recipe and recipe.data:
        source = {"data": recipe.data} | source
    content = {
        "model": model,
        "preset": settings["preset"],
        **({} if conditional is None else {"conditional": conditional}),
        "model_config": _all(config, (recipe.model if recipe else {}) | settings["model_config"]),
        "train": _all(config_type(model_type), (recipe.train if recipe else {}) | settings["train"]),
        "data": source,
    }
    content = json.loads(json.dumps(content))  # tuples are lists there
    try:
        return str(import_module("yaml").safe_dump(content, sort_keys=False))
    except ImportError:
        return json.dumps(content, indent=1) + "\n"


def _all(config: type, given: Settings) -> Settings:
    values = {f.name: given.get(f.name, f.default) for f in fields(config) if not _of_data(f) or f.name in given}
    return {name: value for name, value in values.items() if value is not MISSING}


def check_out(args: argparse.Namespace) -> None:
    """ValueError for a training without a folder to write to."""
    if args.out is None:
        raise ValueError("--out: expected the folder of the run; got none")
