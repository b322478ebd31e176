"""R3GAN: a relativistic pairing loss with zero-centred gradient penalties, and networks without tricks."""

from dataclasses import dataclass

import torch

from genfast.losses import r1_penalty, relativistic_discriminator, relativistic_generator
from genfast.models.gan import GAN, GANConfig
from genfast.nn.fixup import FixupDiscriminator, FixupGenerator


@dataclass
class R3GANConfig(GANConfig):
    """Sizes of an `R3GAN`.

    Attributes:
        channels: 1 for grey, 3 for R, G, B.
        height, width: of the images, in pixels; multiples of patch times 2 to the power `stages`.
        levels: values of a channel, 2 to 256.
        classes: number of labels that both networks are conditional on, 0 for none.
        latent: size Z of the latent vector.
        features: of the feature maps at the finest resolution, twice as many at each coarser one.
        stages: how often the resolution is halved, and doubled.
        discriminator_steps: updates of the discriminator before each of the generator.
        blocks: residual blocks at each resolution; 2 in the paper.
        expansion: features inside a block, in features of the network.
        group: features of a group of the 3x3 convolutions.
        patch: side of the squares of pixels that the first and last layers read and write at once; 1 in the paper.
        gamma: weight of the penalties: gamma / 2 times R1, and times R2.
    """

    features: int = 32
    stages: int = 1
    blocks: int = 1
    expansion: int = 2
    group: int = 16
    patch: int = 1
    gamma: float = 1.0

    def least(self):
        return super().least() | {"stages": 0, "blocks": 1, "expansion": 1, "group": 1, "patch": 1}

    @property
    def stride(self):
        return self.patch * 2**self.stages

    def __post_init__(self):
        super().__post_init__()
        self.check_number("gamma")


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
