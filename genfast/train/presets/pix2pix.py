"""Recipes of pix2pix."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "pix2pix",
    Recipe(
        "digit-outlines",
        data="digit-outlines",
        model={"features": 16, "patch": 1},
        train={
            "steps": 2000,
            "batch": 8,
            "lr": 0.001,
            "betas": (0.5, 0.999),
            "ema": 0.998,
            "grid_every": 5.0,
        },
    ),
    Recipe(
        "photo-edges",
        data="photo-edges",
        model={"features": 16, "halvings": 5},
        train={
            "steps": 4000,
            "batch": 4,
            "lr": 0.001,
            "betas": (0.5, 0.999),
            "ema": 0.998,
            "precision": "bfloat16",
            "grid_every": 5.0,
        },
    ),
)
