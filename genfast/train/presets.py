"""Recipes by model and name: `genfast train pixelrnn --preset mnist`. `conditional` ones train on the labels too."""

from genfast.train.adversarial_presets import ADVERSARIAL

# The PixelCNNs on digits, which overfit after some 800 updates.
DIGITS = {
    "steps": 2000,
    "batch": 32,
    "lr": 2e-3,
    "warmup": 200,
    "ema": 0.998,
    "weight_decay": 0.05,
    "eval_every": 200,
    "save_every": 1000,
}

PRESETS = {
    "pixelrnn": {
        "mnist": {
            "data": "mnist-binary",
            "model": {"hidden": 16, "layers": 7, "head": 32, "virtual_column": True},
            "train": {
                "steps": 52_000,
                "batch": 16,
                "lr": 4e-3,
                "betas": (0.9, 0.99),
                "warmup": 300,
                "ema": 0.999,
                "weight_decay": 0.02,
                "eval_every": 2000,
                "save_every": 1000,
            },
        },
        "digits": {
            "data": "digits",
            "model": {"hidden": 16, "layers": 3, "head": 32, "dropout": 0.2},
            "train": {
                "steps": 2000,
                "batch": 32,
                "lr": 4e-3,
                "warmup": 200,
                "ema": 0.998,
                "weight_decay": 0.05,
                "eval_every": 200,
                "save_every": 1000,
            },
        },
        "mnist-row": {
            "data": "mnist-binary",
            "model": {"kind": "row", "hidden": 16, "layers": 7, "head": 32},
            "train": {
                "steps": 11_000,
                "batch": 16,
                "lr": 4e-3,
                "warmup": 300,
                "ema": 0.999,
                "weight_decay": 0.02,
                "eval_every": 5500,
                "save_every": 1000,
            },
        },
    },
    "pixelcnn": {
        "mnist": {
            "data": "mnist-binary",
            "model": {"hidden": 16, "layers": 15, "head": 32},
            "train": {
                "steps": 45_000,
                "batch": 16,
                "lr": 6e-3,
                "warmup": 300,
                "ema": 0.999,
                "weight_decay": 0.02,
                "precision": "bfloat16",
                "eval_every": 15_000,
                "save_every": 1000,
            },
        },
        "digits": {
            "data": "digits",
            "model": {"hidden": 32, "layers": 6, "head": 64, "dropout": 0.2},
            "train": DIGITS,
        },
    },
    "gated-pixelcnn": {
        "mnist": {
            "data": "mnist-binary",
            "model": {"hidden": 16, "layers": 10, "head": 32},
            "train": {
                "steps": 26_000,
                "batch": 16,
                "lr": 4e-3,
                "warmup": 300,
                "ema": 0.999,
                "weight_decay": 0.02,
                "precision": "bfloat16",
                "eval_every": 13_000,
                "save_every": 1000,
            },
        },
        "digits": {
            "data": "digits",
            "conditional": True,
            "model": {"hidden": 32, "layers": 5, "head": 64, "dropout": 0.2},
            "train": DIGITS,
        },
        # The prior of a vq-vae: --data codes:RUN says of which.
        "codes": {
            "data": None,
            "model": {"hidden": 32, "layers": 4, "head": 64, "dropout": 0.3},
            "train": DIGITS,
        },
    },
    "pixelcnn++": {
        "digits": {
            "data": "digits",
            "model": {"filters": 32, "blocks": 2, "resolutions": 2, "mixtures": 5, "dropout": 0.3},
            "train": DIGITS,
        },
        "photos": {
            "data": "photos",
            "model": {"filters": 40, "blocks": 2, "resolutions": 3, "mixtures": 5, "dropout": 0.0},
            "train": {
                "steps": 800,
                "batch": 16,
                "lr": 2e-3,
                "warmup": 200,
                "ema": 0.998,
                "weight_decay": 0.05,
                "precision": "bfloat16",
                "eval_every": 250,
                "eval_batch": 52,
                "save_every": 500,
            },
        },
    },
    "vq-vae": {
        "digits": {
            "data": "digits",
            "model": {"codes": 64, "features": 16, "hidden": 48, "layers": 2, "downsampling": 1, "decay": 0.95},
            "train": {
                "steps": 2000,
                "batch": 32,
                "lr": 2e-3,
                "warmup": 100,
                "ema": 0.995,
                "weight_decay": 0.02,
                "eval_every": 200,
                "save_every": 1000,
            },
        },
        "photos": {
            "data": "photos",
            "model": {"codes": 256, "features": 32, "hidden": 64, "layers": 2, "decay": 0.95, "likelihood": "gaussian"},
            "train": {
                "steps": 3000,
                "batch": 16,
                "lr": 2e-3,
                "warmup": 100,
                "ema": 0.995,
                "weight_decay": 0.02,
                "precision": "bfloat16",
                "eval_every": 250,
                "eval_batch": 52,
                "save_every": 1000,
            },
        },
    },
    "vae": {
        "mnist": {
            "data": "mnist-binary",
            "model": {"latent": 32, "network": "conv", "hidden": 16, "layers": 1},
            "train": {
                "steps": 56_000,
                "batch": 64,
                "lr": 3e-3,
                "betas": (0.9, 0.999),
                "warmup": 300,
                "ema": 0.9995,
                "weight_decay": 0.02,
                "precision": "bfloat16",
                "eval_every": 7000,
                "save_every": 1000,
            },
        },
        "digits": {
            "data": "digits",
            "model": {"latent": 16, "network": "conv", "hidden": 16, "layers": 1, "dropout": 0.2},
            "train": DIGITS,
        },
    },
    # Begins as the VAE of the same preset: --init-from its run.
    "iwae": {
        "mnist": {
            "data": "mnist-binary",
            "model": {
                "latent": 32,
                "network": "conv",
                "hidden": 16,
                "layers": 1,
                "samples": 50,
                "estimator": "dreg",
                "resampled": 1,
            },
            "train": {
                "steps": 10_000,
                "batch": 64,
                "lr": 1e-3,
                "betas": (0.9, 0.999),
                "warmup": 300,
                "ema": 0.9995,
                "weight_decay": 0.02,
                "precision": "bfloat16",
                "eval_every": 5000,
                "save_every": 1000,
            },
        },
    },
}

PRESETS |= ADVERSARIAL


def preset(model, name):
    """The recipe of that name: its data, and what it sets of the model and of the training."""
    recipes = PRESETS.get(model, {})
    if name not in recipes:
        raise ValueError(f"preset: expected one of {', '.join(recipes) or 'none'} for {model}; got {name!r}")
    return recipes[name]
