"""Recipes of adversarial models: what `genfast train projection-gan --preset mnist` sets, by model and name."""

ADVERSARIAL = {
    "dcgan": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 64, "latent": 32},
            "train": {"steps": 2000, "batch": 64, "lr": 2e-4, "betas": (0.5, 0.999), "ema": 0.99, "grid_every": 20.0},
        },
    },
    "sngan": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 64, "latent": 32},
            "train": {"steps": 2000, "batch": 64, "lr": 2e-4, "betas": (0.0, 0.9), "ema": 0.99, "grid_every": 20.0},
        },
    },
    "wgan-gp": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 64, "latent": 32, "network": "strided"},
            "train": {"steps": 1000, "batch": 64, "lr": 2e-4, "betas": (0.0, 0.9), "ema": 0.99, "grid_every": 20.0},
        },
    },
    "r3gan": {
        "digits": {
            "data": "digits",
            "conditional": True,
            "model": {"stages": 1, "features": 32, "latent": 32, "gamma": 1.0},
            "train": {"steps": 4000, "batch": 64, "lr": 5e-4, "betas": (0.0, 0.99), "ema": 0.998, "grid_every": 20.0},
        },
    },
    "projection-gan": {
        "digits": {
            "data": "digits",
            "model": {"stages": 1, "features": 64, "latent": 32, "network": "strided", "layers": 1},
            "train": {
                "steps": 5000,
                "batch": 64,
                "lr": 2e-4,
                "discriminator_lr": 4e-4,
                "betas": (0.0, 0.99),
                "ema": 0.998,
                "precision": "bfloat16",
                "grid_every": 25.0,
            },
        },
        "mnist": {
            "data": "mnist",
            "model": {"stages": 2, "features": 64, "latent": 64, "network": "strided", "layers": 0},
            "train": {
                "steps": 9000,
                "batch": 64,
                "lr": 2e-4,
                "discriminator_lr": 4e-4,
                "betas": (0.0, 0.99),
                "ema": 0.999,
                "precision": "bfloat16",
                "grid_every": 5.0,
            },
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
