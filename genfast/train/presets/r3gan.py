"""Recipes of r3gan."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "r3gan",
    Recipe(
        "digits",
        data="digits",
        conditional=True,
        model={"stages": 1, "features": 32, "latent": 32, "gamma": 1.0},
        train={
            "steps": 2000,
            "batch": 64,
            "lr": 0.0005,
            "betas": (0.0, 0.99),
            "ema": 0.998,
            "precision": "bfloat16",
            "grid_every": 20.0,
        },
    ),
    Recipe(
        "mnist",
        data="mnist",
        conditional=True,
        model={"patch": 2, "stages": 1, "features": 32, "latent": 64, "gamma": 1.0},
        train={
            "steps": 2500,
            "batch": 64,
            "lr": 0.0005,
            "betas": (0.0, 0.99),
            "ema": 0.998,
            "precision": "bfloat16",
            "grid_every": 2.0,
        },
    ),
)
