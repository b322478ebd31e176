"""Recipes of adversarial models: what `genfast train projection-gan --preset mnist` sets, by model and name."""

PROJECTION = {
    "batch": 64,
    "discriminator_lr": 4e-4,
    "betas": (0.0, 0.99),
    "precision": "bfloat16",
}

ADVERSARIAL = {
    "dcgan": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 64, "latent": 32},
            "train": {"steps": 6000, "batch": 64, "lr": 2e-4, "betas": (0.5, 0.999), "ema": 0.998, "grid_every": 60.0},
        },
    },
    "sngan": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 32, "latent": 32},
            "train": {"steps": 3000, "batch": 64, "lr": 2e-4, "betas": (0.0, 0.9), "ema": 0.998, "grid_every": 30.0},
        },
    },
    "wgan-gp": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 64, "latent": 32, "network": "strided"},
            "train": {"steps": 1500, "batch": 64, "lr": 4e-4, "betas": (0.0, 0.9), "ema": 0.995, "grid_every": 75.0},
        },
    },
    "r3gan": {
        "digits": {
            "data": "digits",
            "conditional": True,
            "model": {"stages": 1, "features": 32, "latent": 32, "gamma": 1.0},
            "train": {
                "steps": 2000,
                "batch": 64,
                "lr": 5e-4,
                "betas": (0.0, 0.99),
                "ema": 0.998,
                "precision": "bfloat16",
                "grid_every": 20.0,
            },
        },
        "mnist": {
            "data": "mnist",
            "conditional": True,
            "model": {"patch": 2, "stages": 1, "features": 32, "latent": 64, "gamma": 1.0},
            "train": {
                "steps": 2500,
                "batch": 64,
                "lr": 5e-4,
                "betas": (0.0, 0.99),
                "ema": 0.998,
                "precision": "bfloat16",
                "grid_every": 2.0,
            },
        },
    },
    "projection-gan": {
        "digits": {
            "data": "digits",
            "model": {
                "stages": 1,
                "features": 64,
                "latent": 32,
                "network": "strided",
                "layers": 1,
            },
            "train": PROJECTION | {"steps": 5000, "lr": 2e-4, "ema": 0.998, "grid_every": 25.0},
        },
        # A run without minibatch discrimination, and with other learning rates, made one image of each class.
        "mnist": {
            "data": "mnist",
            "model": {
                "stages": 2,
                "features": 32,
                "latent": 64,
                "network": "strided",
                "layers": 1,
                "kernels": 16,
                "dim": 4,
            },
            "train": PROJECTION | {"steps": 9000, "lr": 1.5e-4, "ema": 0.999, "grid_every": 2.0},
        },
    },
    "pix2pix": {
        "digit-outlines": {
            "data": "digit-outlines",
            "model": {"features": 16, "patch": 1},
            "train": {"steps": 2000, "batch": 8, "lr": 1e-3, "betas": (0.5, 0.999), "ema": 0.998, "grid_every": 5.0},
        },
        "photo-edges": {
            "data": "photo-edges",
            "model": {"features": 16, "halvings": 5},
            "train": {
                "steps": 4000,
                "batch": 4,
                "lr": 1e-3,
                "betas": (0.5, 0.999),
                "ema": 0.998,
                "precision": "bfloat16",
                "grid_every": 5.0,
            },
        },
    },
}
