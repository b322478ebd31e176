"""WGAN-GP: a critic whose gradient has norm 1 between real and generated images."""

from dataclasses import dataclass

from genfast._config import option
from genfast.losses import wasserstein_discriminator, wasserstein_generator, wgan_gp_penalty
from genfast.models.base import register_model
from genfast.models.gan import GAN
from genfast.models.sngan import SNGANConfig


@dataclass
class WGANGPConfig(SNGANConfig):
    """Sizes of a `WGANGP`."""

    discriminator_steps: int = option(5, "updates of the critic before each of the generator", ge=1)
    weight: float = option(10.0, "lambda, of the gradient penalty", ge=0)


@register_model
class WGANGP(GAN):
    """An estimate of the Wasserstein distance as the loss, without any norm in the critic.

    Paper: Improved Training of Wasserstein GANs, arXiv 1704.00028.
    Example: `WGANGP(WGANGPConfig()).sample(4)`
    """

    name = "wgan-gp"
    config_type = WGANGPConfig
    adversarial_loss = "wasserstein"

    def networks(self):
        return self.config.plain_networks(slope=0.2)

    def discriminator_objective(self, real_logits, fake_logits):
        return wasserstein_discriminator(real_logits, fake_logits)

    def penalty(self, real, fake, labels):
        given = () if labels is None else (labels,)
        return self.config.weight * wgan_gp_penalty(self.discriminator, real, fake, *given)

    def generator_objective(self, real, fake, labels):
        logits = self.discriminator(fake, labels)
        return wasserstein_generator(logits), {"fake_logits": logits.detach()}
