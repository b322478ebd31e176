"""Recipes of wavenet."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "wavenet",
    # Sounds that --data audio:FOLDER names.
    Recipe(
        "audio",
        data=None,
        model={"hidden": 32, "layers": 20, "cycle": 10, "head": 128},
        train={
            "steps": 4000,
            "batch": 8,
            "lr": 0.002,
            "warmup": 100,
            "ema": 0.99,
            "weight_decay": 0.01,
            "eval_every": 250,
            "save_every": 500,
        },
    ),
)
