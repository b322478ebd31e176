"""Recipes of wgan-gp."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "wgan-gp",
    Recipe(
        "digits",
        data="digits",
        model={"stages": 1, "features": 64, "latent": 32, "network": "strided"},
        train={
            "steps": 1500,
            "batch": 64,
            "lr": 0.0004,
            "betas": (0.0, 0.9),
            "ema": 0.995,
            "grid_every": 75.0,
        },
    ),
)
