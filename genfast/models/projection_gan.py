"""Projection GAN: a class-conditional SNGAN with a projection discriminator."""

from __future__ import annotations

from dataclasses import dataclass

from genfast._config import option
from genfast.models.base import register_model
from genfast.models.sngan import SNGAN, SNGANConfig


@dataclass
class ProjectionGANConfig(SNGANConfig):
    """Settings of a `ProjectionGAN`."""

    classes: int = option(10, "number of labels that both networks are conditional on", ge=1, le=2**20, from_data=True)


@register_model
class ProjectionGAN(SNGAN):
    """An `SNGAN` with class-conditional batch norms in the generator and a projection discriminator.

    Paper: cGANs with Projection Discriminator, arXiv 1802.05637.
    Example: `ProjectionGAN(ProjectionGANConfig()).sample(4, labels=7)`
    """

    name = "projection-gan"
    config_type = ProjectionGANConfig
