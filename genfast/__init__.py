"""genfast: natively accelerated pieces of deep generative models, each with a pure PyTorch fallback."""

from importlib import import_module

from genfast._backends import backends, explain, set_level
from genfast.ops import (
    aggregate_posterior,
    bernoulli_nll,
    bernoulli_sample,
    bias_act,
    categorical_nll,
    categorical_sample,
    codebook_statistics,
    diagonal_block,
    diagonal_lstm,
    gated_activation,
    gaussian_latent,
    gaussian_nll,
    importance_bound,
    kernel_sum,
    logistic_mixture_nll,
    logistic_mixture_sample,
    minibatch_discrimination,
    minibatch_stddev,
    nearest_neighbors,
    power_iteration,
    row_lstm,
    spectral_norm,
    upfirdn2d,
    vector_quantize,
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
    "translate": "translation",
}

__all__ = [
    "BitFlip",
    "Engine",
    "Gaussian",
    "aggregate_posterior",
    "backends",
    "bernoulli_nll",
    "bernoulli_sample",
    "bias_act",
    "categorical_nll",
    "categorical_sample",
    "codebook_statistics",
    "denoise",
    "diagonal_block",
    "diagonal_lstm",
    "explain",
    "gated_activation",
    "gaussian_latent",
    "gaussian_nll",
    "importance_bound",
    "inpaint",
    "kernel_sum",
    "log_prob",
    "logistic_mixture_nll",
    "logistic_mixture_sample",
    "minibatch_discrimination",
    "minibatch_stddev",
    "nearest_neighbors",
    "power_iteration",
    "row_lstm",
    "sample",
    "spectral_norm",
    "set_level",
    "stream",
    "translate",
    "upfirdn2d",
    "vector_quantize",
]


def __getattr__(name):
    if name in _SAMPLING:
        return getattr(import_module(f"genfast.sampling.{_SAMPLING[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
