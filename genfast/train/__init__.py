"""Training: `fit(model, train, valid, TrainConfig(...), "runs/one")`, and `fit_adversarial` of a GAN."""

from genfast.train.adversarial import AdversarialResult, fit_adversarial
from genfast.train.config import AdversarialConfig, TrainConfig
from genfast.train.optim import learning_rate
from genfast.train.presets import PRESETS, preset
from genfast.train.trainer import FitResult, fit, mean_nats

__all__ = [
    "PRESETS",
    "AdversarialConfig",
    "AdversarialResult",
    "FitResult",
    "TrainConfig",
    "fit",
    "fit_adversarial",
    "learning_rate",
    "mean_nats",
    "preset",
]
