"""Generative models, by name: `build("pixelrnn", hidden=32)`, `load("RUN/model")`."""

from __future__ import annotations

import sys

from genfast._registry import import_modules
from genfast.models.base import MODELS, ImageConfig, ImageModel, build, load, register_model

for _name in import_modules(__name__, __path__):
    _module = sys.modules[f"{__name__}.{_name}"]
    for _class in vars(_module).values():
        if isinstance(_class, type) and issubclass(_class, (ImageModel, ImageConfig)):
            globals()[_class.__name__] = _class


__all__ = sorted(
    name
    for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, (ImageModel, ImageConfig)) and not name.startswith("_")
) + ["MODELS", "build", "load", "register_model"]
