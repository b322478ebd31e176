"""Recipes of pixelcnn."""

from genfast.train.presets._registry import DIGITS, Recipe, register_recipes

register_recipes(
    "pixelcnn",
    Recipe(
        "mnist",
        data="mnist-binary",
        model={"hidden": 16, "layers": 15, "head": 32},
        train={
            "steps": 45_000,
            "batch": 16,
            "lr": 0.006,
            "warmup": 300,
            "ema": 0.999,
            "weight_decay": 0.02,
            "precision": "bfloat16",
            "eval_every": 15_000,
            "save_every": 1000,
        },
    ),
    Recipe(
        "digits",
        data="digits",
        model={"hidden": 32, "layers": 6, "head": 64, "dropout": 0.2},
        train=DIGITS,
    ),
)
