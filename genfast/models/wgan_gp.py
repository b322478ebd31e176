"""WGAN-GP: a critic whose gradient has norm 1 between real and generated images."""

from dataclasses import dataclass

from genfast.losses import wasserstein_discriminator, wasserstein_generator, wgan_gp_penalty
from genfast.models.gan import GAN
from genfast.models.sngan import SNGANConfig


@dataclass
class WGANGPConfig(SNGANConfig):
    """Sizes of a `WGANGP`.

    Attributes:
        channels: 1 for grey, 3 for R, G, B.
        height, width: of the images, in pixels; multiples of 2 to the power `stages`.
        levels: values of a channel, 2 to 256.
        classes: number of labels that both networks are conditional on, 0 for none.
        latent: size Z of the latent vector.
        features: of all maps; of strided networks those at half the resolution, twice as many at each coarser one.
        stages: how often the resolution is halved, and doubled.
        discriminator_steps: updates of the critic before each of the generator.
        network: residual (blocks that halve or double), or strided (4x4 convolutions of stride 2, much cheaper).
        layers: 3x3 convolutions of strided networks at each resolution.
        kernels: of minibatch discrimination in the discriminator, 0 for none.
        dim: rows of such a kernel.
        weight: lambda, of the gradient penalty.
    """

    discriminator_steps: int = 5
    weight: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        self.check_number("weight")


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
