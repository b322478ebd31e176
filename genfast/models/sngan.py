"""SNGAN: a GAN with a spectrally normalised discriminator and the hinge loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from genfast._config import option
from genfast.losses import hinge_discriminator, hinge_generator
from genfast.models.base import register_model
from genfast.models.gan import GAN, GANConfig, LossAndReport
from genfast.nn.projection import Projection
from genfast.nn.residual_resampling import ResidualGenerator, ResidualTrunk
from genfast.nn.spectral_norm import SpectralNorm
from genfast.nn.strided import StridedGenerator, StridedTrunk


@dataclass
class SNGANConfig(GANConfig):
    """Settings of an `SNGAN`."""

    network: Literal["residual", "strided"] = option(
        "residual", "architecture: residual blocks, or strided 4x4 convolutions, which are much cheaper"
    )
    layers: int = option(0, "further 3x3 convolutions at each resolution of the strided architecture", ge=0, le=1000)
    kernels: int = option(0, "kernels of minibatch discrimination in the discriminator; 0: none", ge=0, le=2**16)
    dim: int = option(5, "size of each kernel of minibatch discrimination", ge=1, le=2**16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers and self.network == "residual":
            raise ValueError(f"{type(self).__name__}: layers must be 0 for residual networks; got {self.layers}")

    def plain_networks(self, slope: float) -> tuple[nn.Module, Projection]:
        """A generator, and a discriminator without normalisation. `slope`: of the leaky ReLUs of strided networks."""
        sizes = self.channels, self.height, self.width, self.features, self.stages
        trunk: nn.Module
        generator: nn.Module
        if self.network == "residual":
            trunk = ResidualTrunk(self.channels, self.features, self.stages)
            generator = ResidualGenerator(self.latent, *sizes, classes=self.classes)
        else:
            trunk = StridedTrunk(*sizes, layers=self.layers, slope=slope)
            generator = StridedGenerator(self.latent, *sizes, layers=self.layers, classes=self.classes)
        return generator, Projection(trunk, self.classes, self.kernels, self.dim)


@register_model
class SNGAN(GAN):
    """A GAN whose discriminator has weights of spectral norm 1, trained by the hinge loss.

    Paper: Spectral Normalization for Generative Adversarial Networks, arXiv 1802.05957.
    Example: `SNGAN(SNGANConfig()).sample(4)`
    """

    name = "sngan"
    config_type = SNGANConfig
    config: SNGANConfig
    adversarial_loss = "hinge"

    def networks(self) -> tuple[nn.Module, nn.Module]:
        generator, discriminator = self.config.plain_networks(slope=0.1)
        return generator, SpectralNorm(discriminator)

    def discriminator_objective(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return hinge_discriminator(real_logits, fake_logits)

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> LossAndReport:
        logits = self.discriminator(fake, labels)
        return hinge_generator(logits), {"fake_logits": logits.detach()}
