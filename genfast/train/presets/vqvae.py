"""Recipes of vq-vae."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "vq-vae",
    Recipe(
        "digits",
        data="digits",
        model={"codes": 64, "features": 16, "hidden": 48, "layers": 2, "downsampling": 1, "decay": 0.95},
        train={
            "steps": 2000,
            "batch": 32,
            "lr": 0.002,
            "warmup": 100,
            "ema": 0.995,
            "weight_decay": 0.02,
            "eval_every": 200,
            "save_every": 1000,
        },
    ),
    Recipe(
        "photos",
        data="photos",
        model={
            "codes": 256,
            "features": 32,
            "hidden": 64,
            "layers": 2,
            "decay": 0.95,
            "likelihood": "gaussian",
        },
        train={
            "steps": 3000,
            "batch": 16,
            "lr": 0.002,
            "warmup": 100,
            "ema": 0.995,
            "weight_decay": 0.02,
            "precision": "bfloat16",
            "eval_every": 250,
            "eval_batch": 52,
            "save_every": 1000,
        },
    ),
)
