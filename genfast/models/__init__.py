"""Generative models, by name: `build("pixelrnn", hidden=32)`, `load("RUN/model")`."""

import sys

from genfast._registry import import_modules
from genfast.models._pretrained import local_folder, read_config
from genfast.models.base import MODELS, ImageConfig, ImageModel, build, register_model

for _name in import_modules(__name__, __path__):
    _module = sys.modules[f"{__name__}.{_name}"]
    for _class in vars(_module).values():
        if isinstance(_class, type) and issubclass(_class, (ImageModel, ImageConfig)):
            globals()[_class.__name__] = _class


def load(folder: str) -> ImageModel:
    """The model of a folder or Hub model id, whichever of `MODELS` it is."""
    folder = local_folder(folder)
    name = read_config(folder)["model"]
    if name not in MODELS:
        raise ValueError(f"{folder}/config.json: expected a model of {sorted(MODELS)}; got {name!r}")
    return MODELS[name][0].from_pretrained(folder)


__all__ = sorted(
    name for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, (ImageModel, ImageConfig)) and not name.startswith("_")
) + ["MODELS", "build", "load", "register_model"]  # fmt: skip
