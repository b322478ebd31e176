"""R3GAN: a relativistic pairing loss with zero-centred gradient penalties, and networks without tricks."""

from dataclasses import dataclass

import torch

from genfast._config import option
from genfast.losses import r1_penalty, relativistic_discriminator, relativistic_generator
from genfast.models.base import register_model
from genfast.models.gan import GAN, GANConfig
from genfast.nn.fixup import FixupDiscriminator, FixupGenerator


@dataclass
class R3GANConfig(GANConfig):
    """Sizes of an `R3GAN`."""

    features: int = option(32, "of the feature maps at the finest resolution, twice as many at each coarser one", ge=1)
    stages: int = option(1, "how often the resolution is halved, and doubled; may be 0", ge=0)
    blocks: int = option(1, "residual blocks at each resolution; 2 in the paper", ge=1)
    expansion: int = option(2, "features inside a block, in features of the network", ge=1)
    group: int = option(16, "features of a group of the 3x3 convolutions", ge=1)
    patch: int = option(
        1, "side of the squares of pixels that the first and last layers read and write at once; 1 in the paper", ge=1
    )
    gamma: float = option(1.0, "weight of the penalties: gamma / 2 times R1, and times R2", ge=0)

    @property
    def stride(self):
        return self.patch * 2**self.stages


@register_model
class R3GAN(GAN):
    """Each real image judged against one generated one, R1 and R2 penalties, residual networks without normalisation.

    Paper: The GAN is dead; long live the GAN! A Modern GAN Baseline, arXiv 2501.05441, at a smaller size.
    Example: `R3GAN(R3GANConfig()).sample(4)`
    """

    name = "r3gan"
    config_type = R3GANConfig
    adversarial_loss = "relativistic"

    def networks(self):
        c = self.config
        sizes = c.latent, c.channels, c.height, c.width, c.features, c.stages, c.blocks, c.expansion, c.group, c.patch
        return FixupGenerator(*sizes, classes=c.classes), FixupDiscriminator(*sizes, classes=c.classes)

    def discriminator_objective(self, real_logits, fake_logits):
        return relativistic_discriminator(real_logits, fake_logits)

    def penalty(self, real, fake, labels):
        """gamma / 2 (R1 + R2): twice the mean over both batches at once."""
        given = () if labels is None else (labels.repeat(2),)
        return self.config.gamma * r1_penalty(self.discriminator, torch.cat((real, fake)), *given)

    def generator_objective(self, real, fake, labels):
        logits = self.discriminator(fake, labels)
        with torch.no_grad():
            real_logits = self.discriminator(real, labels)
        report = {"fake_logits": logits.detach(), "real_logits": real_logits}
        return relativistic_generator(real_logits, logits), report
