"""WGAN-GP: a Wasserstein GAN whose critic has a gradient penalty."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from genfast._config import option
from genfast.losses import wasserstein_discriminator, wasserstein_generator, wgan_gp_penalty
from genfast.models.base import register_model
from genfast.models.gan import GAN, LossAndReport
from genfast.models.sngan import SNGANConfig


@dataclass
class WGANGPConfig(SNGANConfig):
    """Settings of a `WGANGP`."""

    discriminator_steps: int = option(5, "updates of the critic before each update of the generator", ge=1, le=1000)
    weight: float = option(10.0, "weight lambda of the gradient penalty", ge=0)


@register_model
class WGANGP(GAN):
    """A GAN trained by the Wasserstein loss. Its critic has no normalisation layers, but a gradient penalty.

    Paper: Improved Training of Wasserstein GANs, arXiv 1704.00028.
    Example: `WGANGP(WGANGPConfig()).sample(4)`
    """

    name = "wgan-gp"
    config_type = WGANGPConfig
    config: WGANGPConfig
    adversarial_loss = "wasserstein"

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.config.plain_networks(slope=0.2)

    def discriminator_objective(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return wasserstein_discriminator(real_logits, fake_logits)

    def penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor | None:
        arguments = () if labels is None else (labels,)
        return self.config.weight * wgan_gp_penalty(self.discriminator, real, fake, *arguments)

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> LossAndReport:
        logits = self.discriminator(fake, labels)
        return wasserstein_generator(logits), {"fake_logits": logits.detach()}
