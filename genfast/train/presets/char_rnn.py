"""Recipes of char-rnn."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "char-rnn",
    # A text that --data text:FILE names; half an hour of a core is enough for a megabyte.
    Recipe(
        "text",
        data=None,
        model={"hidden": 256, "layers": 2, "dropout": 0.1},
        train={
            "steps": 4000,
            "batch": 32,
            "lr": 0.004,
            "warmup": 100,
            "ema": 0.99,
            "weight_decay": 0.01,
            "eval_every": 250,
            "save_every": 500,
        },
    ),
)
