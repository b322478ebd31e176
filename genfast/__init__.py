"""genfast: natively accelerated pieces of deep generative models, each with a pure PyTorch fallback."""

from genfast import ops as _ops
from genfast._native.backends import backends, set_isa
from genfast._version import __version__ as __version__
from genfast.engine.engine import Engine
from genfast.explain import explain
from genfast.ops import *  # noqa: F403
from genfast.tasks import (
    BitFlipNoise,
    GaussianNoise,
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

__all__ = [
    "BitFlipNoise",
    "Engine",
    "GaussianNoise",
    "backends",
    "compress",
    "decompress",
    "denoise",
    "embed",
    "explain",
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
    *_ops.__all__,
]
