"""Recipes of pixelsnail."""

from genfast.train.presets._registry import DIGITS, Recipe, register_recipes

register_recipes(
    "pixelsnail",
    Recipe(
        "digits",
        data="digits",
        conditional=True,
        model={"hidden": 32, "blocks": 2, "layers": 2, "heads": 2, "head": 64, "dropout": 0.2},
        train=DIGITS,
    ),
)
