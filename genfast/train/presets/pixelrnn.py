"""Recipes of pixelrnn."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "pixelrnn",
    Recipe(
        "mnist",
        data="mnist-binary",
        model={"hidden": 16, "layers": 7, "head": 32, "virtual_column": True},
        train={
            "steps": 52_000,
            "batch": 16,
            "lr": 0.004,
            "betas": (0.9, 0.99),
            "warmup": 300,
            "ema": 0.999,
            "weight_decay": 0.02,
            "eval_every": 2000,
            "save_every": 1000,
        },
    ),
    Recipe(
        "digits",
        data="digits",
        model={"hidden": 16, "layers": 3, "head": 32, "dropout": 0.2},
        train={
            "steps": 2000,
            "batch": 32,
            "lr": 0.004,
            "warmup": 200,
            "ema": 0.998,
            "weight_decay": 0.05,
            "eval_every": 200,
            "save_every": 1000,
        },
    ),
    Recipe(
        "mnist-row",
        data="mnist-binary",
        model={"kind": "row", "hidden": 16, "layers": 7, "head": 32},
        train={
            "steps": 11_000,
            "batch": 16,
            "lr": 0.004,
            "warmup": 300,
            "ema": 0.999,
            "weight_decay": 0.02,
            "eval_every": 5500,
            "save_every": 1000,
        },
    ),
)
