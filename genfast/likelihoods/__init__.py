"""Likelihoods, one file each: everything that depends on the distribution of the values of a pixel."""

from __future__ import annotations

from genfast._registry import import_modules
from genfast.likelihoods.base import LIKELIHOODS, Likelihood, register_likelihood
from genfast.likelihoods.bernoulli import Bernoulli
from genfast.likelihoods.categorical import Categorical
from genfast.likelihoods.gaussian import Gaussian
from genfast.likelihoods.logistic_mixture import LogisticMixture
from genfast.likelihoods.reading import Reading, heads, read_output

import_modules(__name__, __path__)


def likelihood(name: str, channels: int, levels: int, mixtures: int = 5) -> Likelihood:
    """The likelihood of that name, of images of `channels` with `levels` values each.

    Raises: ValueError for another name, or images that the likelihood does not fit.
    Example: `likelihood("mixture", 3, 256, mixtures=10)`
    """
    if name not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {', '.join(LIKELIHOODS)}; got {name!r}")
    return LIKELIHOODS[name].of(channels, levels, mixtures)


def softmax(channels: int, levels: int) -> Likelihood:
    """A softmax over the levels, which for two levels is the logit of level 1."""
    return Bernoulli(channels, levels) if levels == 2 else Categorical(channels, levels)


def default_likelihood(channels: int, levels: int, mixtures: int = 5) -> Likelihood:
    """The default of a decoder: a mixture of logistics, and for two levels the logit of level 1."""
    return Bernoulli(channels, levels) if levels == 2 else LogisticMixture(channels, levels, mixtures)


def decoder_likelihoods() -> tuple[str, ...]:
    """The names of the likelihoods that a decoder may have."""
    return tuple(name for name, cls in LIKELIHOODS.items() if cls.decodes)


__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "LogisticMixture",
    "Reading",
    "decoder_likelihoods",
    "default_likelihood",
    "heads",
    "likelihood",
    "read_output",
    "register_likelihood",
    "softmax",
]
