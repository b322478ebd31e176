"""genfast: natively accelerated pieces of deep generative models, each with a pure PyTorch fallback."""

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

__all__ = [
    "backends",
    "bernoulli_nll",
    "bernoulli_sample",
    "categorical_nll",
    "categorical_sample",
    "diagonal_block",
    "diagonal_lstm",
    "explain",
    "gated_activation",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "row_lstm",
    "set_level",
]
