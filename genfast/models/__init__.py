"""Generative models, by name: `build("pixelrnn", hidden=32)`, `load("RUN/model")`."""

from __future__ import annotations

import sys
from pathlib import Path

from genfast._registry import import_modules
from genfast.models._pretrained import local_folder, read_config
from genfast.models.base import MODELS, ImageConfig, ImageModel, build, register_model

for _name in import_modules(__name__, __path__):
    _module = sys.modules[f"{__name__}.{_name}"]
    for _class in vars(_module).values():
        if isinstance(_class, type) and issubclass(_class, (ImageModel, ImageConfig)):
            globals()[_class.__name__] = _class


def load(folder: str | Path) -> ImageModel:
    """Load a model of any class in `MODELS` from a folder, or by its Hub model id.

    Raises: as the `from_pretrained` of a model; ValueError for a model that is not in `MODELS`.
    """
    folder = local_folder(folder)
    name = read_config(folder)["model"]
    if name not in MODELS:
        raise ValueError(f"{folder}/config.json: expected a model of {sorted(MODELS)}; got {name!r}")
    return MODELS[name][0].from_pretrained(folder)


__all__ = sorted(
    name
    for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, (ImageModel, ImageConfig)) and not name.startswith("_")
) + ["MODELS", "build", "load", "register_model"]
