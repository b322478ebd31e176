"""Recipes of vae."""

from genfast.train.presets._registry import DIGITS, Recipe, register_recipes

register_recipes(
    "vae",
    Recipe(
        "mnist",
        data="mnist-binary",
        model={"latent": 32, "network": "conv", "hidden": 16, "layers": 1},
        train={
            "steps": 56_000,
            "batch": 64,
            "lr": 0.003,
            "betas": (0.9, 0.999),
            "warmup": 300,
            "ema": 0.9995,
            "weight_decay": 0.02,
            "precision": "bfloat16",
            "eval_every": 7000,
            "save_every": 1000,
        },
    ),
    Recipe(
        "digits",
        data="digits",
        model={"latent": 16, "network": "conv", "hidden": 16, "layers": 1, "dropout": 0.2},
        train=DIGITS,
    ),
)
