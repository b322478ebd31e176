"""genfast: natively accelerated pieces of deep generative models, each with a pure PyTorch fallback."""

from genfast import _interrupt as _interrupt  # first: what follows takes seconds
from genfast import audit, compat, data, losses, metrics, models, nn, ops, tasks, train
from genfast._native.backends import backends, set_isa
from genfast._version import __version__ as __version__
from genfast.engine.engine import Engine
from genfast.engine.unchecked import UncheckedModel
from genfast.explain import explain
from genfast.ops import *  # noqa: F403
from genfast.tasks import (
    BitFlipNoise,
    GaussianNoise,
    check,
    compress,
    decompress,
    denoise,
    embed,
    inpaint,
    interpolate,
    log_prob,
    neighbours,
    reconstruct,
    sample,
    stream,
    translate,
    traverse,
)
from genfast.train.trainer import fit

__all__ = [
    "train",
    "tasks",
    "ops",
    "nn",
    "models",
    "metrics",
    "losses",
    "data",
    "compat",
    "audit",
    "BitFlipNoise",
    "Engine",
    "GaussianNoise",
    "UncheckedModel",
    "backends",
    "check",
    "compress",
    "decompress",
    "denoise",
    "embed",
    "explain",
    "fit",
    "inpaint",
    "interpolate",
    "log_prob",
    "neighbours",
    "reconstruct",
    "sample",
    "set_isa",
    "stream",
    "translate",
    "traverse",
    *ops.__all__,
]
