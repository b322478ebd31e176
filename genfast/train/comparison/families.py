"""The families of models that are compared, and their settings for images of a size."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from genfast import models
from genfast._defaults import plain_defaults
from genfast.data import ImageData
from genfast.train.config import config_type
from genfast.train.presets import preset

SMALL = 16  # pixels of a side, up to which the presets of 8x8 digits are taken
COARSEST = 7  # pixels of a side, to which the networks of a GAN halve an image at most
ENDLESS = 10**9  # updates: the budget ends the training


@dataclass(frozen=True)
class Family:
    """A kind of model.

    Attributes:
        title: as it is called.
        model: its name in `genfast.models.MODELS`.
        presets: those for small and for larger images.
        kind: "autoregressive", "latent", "codes" or "adversarial".
    """

    title: str
    model: str
    presets: tuple[str, str]
    kind: str


FAMILIES = (
    Family("PixelRNN", "pixelrnn", ("digits", "mnist"), "autoregressive"),
    Family("PixelCNN++", "pixelcnn++", ("digits", "photos"), "autoregressive"),
    Family("VAE", "vae", ("digits", "mnist"), "latent"),
    Family("IWAE", "iwae", ("mnist", "mnist"), "latent"),
    Family("VQ-VAE + prior", "vq-vae", ("digits", "photos"), "codes"),
    Family("DCGAN", "dcgan", ("digits", "digits"), "adversarial"),
    Family("projection GAN", "projection-gan", ("digits", "mnist"), "adversarial"),
    Family("R3GAN", "r3gan", ("digits", "mnist"), "adversarial"),
)
TITLES = {family.model: family.title for family in FAMILIES}
KINDS = {family.model: family.kind for family in FAMILIES} | dict.fromkeys(
    ("pixelcnn", "gated-pixelcnn"), "autoregressive"
)
KINDS |= dict.fromkeys(("sngan", "wgan-gp"), "adversarial")


@dataclass(frozen=True)
class Recipe:
    """The settings of a family for some data: of the model and of its training, and whether it takes labels."""

    family: Family
    model_options: dict[str, Any]
    train_options: dict[str, Any]
    conditional: bool


def recipes(data: ImageData, families: tuple[Family, ...] = FAMILIES) -> tuple[list[Recipe], dict[str, str]]:
    """The recipe of each family that fits the data, and the reason why another does not, by its title."""
    fitting, left_out = [], {}
    for family in families:
        try:
            recipe = _recipe(family, data)
            settings = recipe.model_options | models.MODELS[family.model][1].fixed_by(data)
            with plain_defaults():
                models.build(family.model, **settings, **({"classes": data.classes} if recipe.conditional else {}))
            fitting.append(recipe)
        except (TypeError, ValueError) as error:
            left_out[family.title] = str(error)
    return fitting, left_out


def _recipe(family: Family, data: ImageData) -> Recipe:
    sides = data.images.shape[2:]
    small = max(sides) <= SMALL
    base = preset(family.model, family.presets[0 if small else 1])
    of_model, of_training = dict(base.model), dict(base.train)
    needs_labels = models.MODELS[family.model][1].is_always_conditional()
    if needs_labels and data.labels is None:
        raise ValueError(f"{data.name}: expected labels, which a {family.title} needs; got images without labels")
    if family.model == "iwae":
        of_training = dict(preset("vae", family.presets[1] if not small else "digits").train)
        if small:
            of_model |= preset("vae", "digits").model | {"samples": 10}
    if family.model == "pixelcnn++":
        of_model["resolutions"] = 1 + _halvings(sides, of_model["resolutions"] - 1)
    if family.kind == "adversarial":
        wanted = 0
        while max(sides) / of_model.get("patch", 1) / 2**wanted > COARSEST:
            wanted += 1
        of_model["stages"] = wanted
    of_training |= {"steps": ENDLESS, "epochs": 0.0, "device": "cpu"}
    known = {field.name for field in fields(config_type(models.MODELS[family.model][0]))}
    return Recipe(
        family,
        of_model,
        {name: value for name, value in of_training.items() if name in known},
        data.labels is not None and (needs_labels or bool(base.conditional)),
    )


def _halvings(sides: Any, most: int) -> int:
    """How often both sides can be halved, at most so often."""
    return next(count for count in range(most, -1, -1) if all(side % 2**count == 0 for side in sides))
