"""Training: `fit(model, train, valid, TrainConfig(...), "runs/one")`."""

from genfast.train.config import TrainConfig
from genfast.train.optim import learning_rate
from genfast.train.presets import PRESETS, preset
from genfast.train.trainer import FitResult, fit, mean_nats

__all__ = ["PRESETS", "FitResult", "TrainConfig", "fit", "learning_rate", "mean_nats", "preset"]
