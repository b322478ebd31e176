"""genfast: natively accelerated pieces of deep generative models, each with a pure PyTorch fallback."""

from importlib import import_module

from genfast._backends import backends, explain, set_level
from genfast.ops import (
    bernoulli_nll,
    bernoulli_sample,
    categorical_nll,
    categorical_sample,
    diagonal_block,
    diagonal_lstm,
    gated_activation,
    logistic_mixture_nll,
    logistic_mixture_sample,
    row_lstm,
)

__version__ = "0.1.0"

# What draws from a model imports the models, which import what is above.
_SAMPLING = {
    "BitFlip": "noise",
    "Engine": "engine",
    "Gaussian": "noise",
    "denoise": "denoising",
    "inpaint": "inpainting",
    "log_prob": "draws",
    "sample": "draws",
    "stream": "draws",
}

__all__ = [
    "BitFlip",
    "Engine",
    "Gaussian",
    "backends",
    "bernoulli_nll",
    "bernoulli_sample",
    "categorical_nll",
    "categorical_sample",
    "denoise",
    "diagonal_block",
    "diagonal_lstm",
    "explain",
    "gated_activation",
    "inpaint",
    "log_prob",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "row_lstm",
    "sample",
    "set_level",
    "stream",
]


def __getattr__(name):
    if name in _SAMPLING:
        return getattr(import_module(f"genfast.sampling.{_SAMPLING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
