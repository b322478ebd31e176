"""Training: `fit(model, train, valid, TrainConfig(...), "runs/one")`."""

from genfast.train.config import TrainConfig
from genfast.train.presets import PRESETS, preset

__all__ = ["PRESETS", "FitResult", "TrainConfig", "fit", "learning_rate", "mean_nats", "preset"]


def __getattr__(name):
    # torch takes a second to import; the command line's --help reads the settings without it.
    if name in ("FitResult", "fit", "learning_rate", "mean_nats"):
        from genfast.train import optim, trainer

        return getattr(optim if name == "learning_rate" else trainer, name)
    raise AttributeError(f"module 'genfast.train' has no attribute {name!r}")
