"""The class-conditional GAN with a projection discriminator."""

from dataclasses import dataclass

from genfast.models.sngan import SNGAN, SNGANConfig


@dataclass
class ProjectionGANConfig(SNGANConfig):
    classes: int = 10

    __doc__ = SNGANConfig.__doc__.replace("`SNGAN`", "`ProjectionGAN`").replace("on, 0 for none", "on, at least 1")

    def least(self):
        return super().least() | {"classes": 1}


class ProjectionGAN(SNGAN):
    """An `SNGAN` of labelled images: class-conditional batch norms in the generator, a projection in the discriminator.

    Paper: cGANs with Projection Discriminator, arXiv 1802.05637.
    Example: `ProjectionGAN(ProjectionGANConfig()).sample(4, labels=7)`
    """

    name = "projection-gan"
    config_type = ProjectionGANConfig
