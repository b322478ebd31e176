"""Recipes by model and name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# The PixelCNNs on digits, which overfit after some 800 updates.
DIGITS = {
    "steps": 2000,
    "batch": 32,
    "lr": 2e-3,
    "warmup": 200,
    "ema": 0.998,
    "weight_decay": 0.05,
    "eval_every": 200,
    "save_every": 1000,
}


@dataclass(frozen=True)
class Recipe:
    """What `--preset name` sets.

    Attributes:
        name: of the recipe.
        data: that it is for; None: the user names them.
        model, train: fields of the config of the model, and of the training.
        conditional: whether the model is trained on labels too; None: as the model needs it.
    """

    name: str
    data: str | None
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    conditional: bool | None = None


# model -> name -> recipe; filled by the files of this folder.
PRESETS: dict[str, dict[str, Recipe]] = {}


def register_recipes(model: str, *recipes: Recipe) -> None:
    """Add recipes of the model of that name; one of a name that is there already replaces it."""
    PRESETS.setdefault(model, {}).update({recipe.name: recipe for recipe in recipes})


def preset(model: str, name: str) -> Recipe:
    """The recipe of that name: its data, and what it sets of the model and of the training."""
    recipes = PRESETS.get(model, {})
    if name not in recipes:
        raise ValueError(f"preset: expected one of {', '.join(recipes) or 'none'} for {model}; got {name!r}")
    return recipes[name]
