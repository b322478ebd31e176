"""Recipes of projection-gan."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "projection-gan",
    Recipe(
        "digits",
        data="digits",
        model={"stages": 1, "features": 64, "latent": 32, "network": "strided", "layers": 1},
        train={
            "batch": 64,
            "discriminator_lr": 0.0004,
            "betas": (0.0, 0.99),
            "precision": "bfloat16",
            "steps": 5000,
            "lr": 0.0002,
            "ema": 0.998,
            "grid_every": 25.0,
        },
    ),
    # A run without minibatch discrimination, and with other learning rates, made one image of each class.
    Recipe(
        "mnist",
        data="mnist",
        model={
            "stages": 2,
            "features": 32,
            "latent": 64,
            "network": "strided",
            "layers": 1,
            "kernels": 16,
            "dim": 4,
        },
        train={
            "batch": 64,
            "discriminator_lr": 0.0004,
            "betas": (0.0, 0.99),
            "precision": "bfloat16",
            "steps": 9000,
            "lr": 0.00015,
            "ema": 0.999,
            "grid_every": 2.0,
        },
    ),
)
