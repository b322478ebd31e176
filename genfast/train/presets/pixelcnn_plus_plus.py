"""Recipes of pixelcnn++."""

from genfast.train.presets._registry import DIGITS, Recipe, register_recipes

register_recipes(
    "pixelcnn++",
    Recipe(
        "digits",
        data="digits",
        model={"filters": 32, "blocks": 2, "resolutions": 2, "mixtures": 5, "dropout": 0.3},
        train=DIGITS,
    ),
    Recipe(
        "photos",
        data="photos",
        model={"filters": 40, "blocks": 2, "resolutions": 3, "mixtures": 5, "dropout": 0.0},
        train={
            "steps": 800,
            "batch": 16,
            "lr": 0.002,
            "warmup": 200,
            "ema": 0.998,
            "weight_decay": 0.05,
            "precision": "bfloat16",
            "eval_every": 250,
            "eval_batch": 52,
            "save_every": 500,
        },
    ),
)
