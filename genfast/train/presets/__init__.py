"""Recipes by model and name, one file per model: `genfast train pixelrnn --preset mnist`."""

from __future__ import annotations

from genfast._registry import import_modules
from genfast.train.presets._registry import PRESETS, Recipe, preset, register_recipes

import_modules(__name__, __path__)

__all__ = ["PRESETS", "Recipe", "preset", "register_recipes"]
