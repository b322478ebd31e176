"""Recipes of dcgan."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "dcgan",
    Recipe(
        "digits",
        data="digits",
        model={"stages": 1, "features": 64, "latent": 32},
        train={
            "steps": 6000,
            "batch": 64,
            "lr": 0.0002,
            "betas": (0.5, 0.999),
            "ema": 0.998,
            "grid_every": 60.0,
        },
    ),
)
