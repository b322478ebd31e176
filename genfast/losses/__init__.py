"""Losses of adversarial training: functions of logits and of features, and gradient penalties."""

from genfast.losses.adversarial import (
    hinge_discriminator,
    hinge_generator,
    least_squares_discriminator,
    least_squares_generator,
    minimax_generator,
    non_saturating_discriminator,
    non_saturating_generator,
    relativistic_discriminator,
    relativistic_generator,
    wasserstein_discriminator,
    wasserstein_generator,
)
from genfast.losses.penalties import dragan_penalty, r1_penalty, r2_penalty, wgan_gp_penalty
from genfast.losses.salimans import HistoricalAverage, feature_matching, semi_supervised_discriminator

__all__ = [
    "HistoricalAverage",
    "dragan_penalty",
    "feature_matching",
    "hinge_discriminator",
    "hinge_generator",
    "least_squares_discriminator",
    "least_squares_generator",
    "minimax_generator",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "r1_penalty",
    "r2_penalty",
    "relativistic_discriminator",
    "relativistic_generator",
    "semi_supervised_discriminator",
    "wasserstein_discriminator",
    "wasserstein_generator",
    "wgan_gp_penalty",
]
