"""Recipes of sngan."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "sngan",
    Recipe(
        "digits",
        data="digits",
        model={"stages": 1, "features": 32, "latent": 32},
        train={
            "steps": 3000,
            "batch": 64,
            "lr": 0.0002,
            "betas": (0.0, 0.9),
            "ema": 0.998,
            "grid_every": 30.0,
        },
    ),
)
