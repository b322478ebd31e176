"""SNGAN: spectral normalisation of the discriminator and the hinge loss."""

from dataclasses import dataclass
from typing import Literal

from genfast._config import option
from genfast.losses import hinge_discriminator, hinge_generator
from genfast.models.base import register_model
from genfast.models.gan import GAN, GANConfig
from genfast.nn.projection import Projection
from genfast.nn.residual_resampling import ResidualGenerator, ResidualTrunk
from genfast.nn.spectral_norm import SpectralNorm
from genfast.nn.strided import StridedGenerator, StridedTrunk


@dataclass
class SNGANConfig(GANConfig):
    """Sizes of an `SNGAN`."""

    network: Literal["residual", "strided"] = option(
        "residual", "residual (blocks that halve or double), or strided (4x4 convolutions of stride 2, much cheaper)"
    )
    layers: int = option(0, "3x3 convolutions of strided networks at each resolution", ge=0)
    kernels: int = option(0, "of minibatch discrimination in the discriminator, 0 for none", ge=0)
    dim: int = option(5, "rows of such a kernel", ge=1)

    def __post_init__(self):
        super().__post_init__()
        if self.layers and self.network == "residual":
            raise ValueError(f"{type(self).__name__}: layers must be 0 for residual networks; got {self.layers}")

    def plain_networks(self, slope):
        """A generator, and a discriminator without normalisation; `slope` of a strided one's leaky ReLUs."""
        sizes = self.channels, self.height, self.width, self.features, self.stages
        if self.network == "residual":
            trunk = ResidualTrunk(self.channels, self.features, self.stages)
            generator = ResidualGenerator(self.latent, *sizes, classes=self.classes)
        else:
            trunk = StridedTrunk(*sizes, layers=self.layers, slope=slope)
            generator = StridedGenerator(self.latent, *sizes, layers=self.layers, classes=self.classes)
        return generator, Projection(trunk, self.classes, self.kernels, self.dim)


@register_model
class SNGAN(GAN):
    """A discriminator whose weights all have spectral norm 1, and the hinge loss.

    Paper: Spectral Normalization for Generative Adversarial Networks, arXiv 1802.05957.
    Example: `SNGAN(SNGANConfig()).sample(4)`
    """

    name = "sngan"
    config_type = SNGANConfig
    adversarial_loss = "hinge"

    def networks(self):
        generator, discriminator = self.config.plain_networks(slope=0.1)
        return generator, SpectralNorm(discriminator)

    def discriminator_objective(self, real_logits, fake_logits):
        return hinge_discriminator(real_logits, fake_logits)

    def generator_objective(self, real, fake, labels):
        logits = self.discriminator(fake, labels)
        return hinge_generator(logits), {"fake_logits": logits.detach()}
