"""Recipes of iwae."""

from genfast.train.presets._registry import Recipe, register_recipes

register_recipes(
    "iwae",
    # Begins as the VAE of the same preset: --init-from its run.
    Recipe(
        "mnist",
        data="mnist-binary",
        model={
            "latent": 32,
            "network": "conv",
            "hidden": 16,
            "layers": 1,
            "samples": 50,
            "estimator": "dreg",
            "resampled": 1,
        },
        train={
            "steps": 10_000,
            "batch": 64,
            "lr": 0.001,
            "betas": (0.9, 0.999),
            "warmup": 300,
            "ema": 0.9995,
            "weight_decay": 0.02,
            "precision": "bfloat16",
            "eval_every": 5000,
            "save_every": 1000,
        },
    ),
)
