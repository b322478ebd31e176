"""Recipes of gated-pixelcnn."""

from genfast.train.presets._registry import DIGITS, Recipe, register_recipes

register_recipes(
    "gated-pixelcnn",
    Recipe(
        "mnist",
        data="mnist-binary",
        model={"hidden": 16, "layers": 10, "head": 32},
        train={
            "steps": 26_000,
            "batch": 16,
            "lr": 0.004,
            "warmup": 300,
            "ema": 0.999,
            "weight_decay": 0.02,
            "precision": "bfloat16",
            "eval_every": 13_000,
            "save_every": 1000,
        },
    ),
    Recipe(
        "digits",
        data="digits",
        conditional=True,
        model={"hidden": 32, "layers": 5, "head": 64, "dropout": 0.2},
        train=DIGITS,
    ),
    # The prior of a vq-vae: --data codes:RUN says of which.
    Recipe(
        "codes",
        data=None,
        model={"hidden": 32, "layers": 4, "head": 64, "dropout": 0.3},
        train=DIGITS,
    ),
)
