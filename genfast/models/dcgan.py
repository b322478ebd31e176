"""DCGAN, with the techniques of Salimans et al. as options."""

from dataclasses import dataclass

import torch

from genfast import losses
from genfast._config import option
from genfast.models.base import register_model
from genfast.models.gan import GAN, GANConfig
from genfast.nn.projection import Projection
from genfast.nn.strided import StridedGenerator, StridedTrunk
from genfast.nn.virtual_batch_norm import ReferenceBatch

REFERENCE = 64


@dataclass
class DCGANConfig(GANConfig):
    """Sizes and techniques of a `DCGAN`."""

    smooth: float = option(0.0, "one-sided label smoothing: real targets are 1 - smooth", ge=0, lt=1)
    feature_matching: bool = option(
        False, "whether the generator matches mean features of the discriminator instead of its verdict"
    )
    kernels: int = option(0, "of minibatch discrimination in the discriminator, 0 for none", ge=0)
    dim: int = option(5, "rows of such a kernel", ge=1)
    virtual_batch_norm: bool = option(False, "whether the generator has virtual batch norms (without classes)")

    def __post_init__(self):
        super().__post_init__()
        if self.virtual_batch_norm and self.classes:
            raise ValueError(f"DCGANConfig: virtual_batch_norm must be off with classes; got {self.classes} classes")


@register_model
class DCGAN(GAN):
    """Strided convolutions with batch norms in both networks, and the non-saturating loss.

    Paper: Unsupervised Representation Learning with DCGANs, arXiv 1511.06434; the options: Improved Techniques for
        Training GANs, arXiv 1606.03498; with classes: arXiv 1610.07629 and 1802.05637.
    Example: `DCGAN(DCGANConfig()).sample(4)`
    """

    name = "dcgan"
    config_type = DCGANConfig
    adversarial_loss = "non-saturating"

    def networks(self):
        c = self.config
        sizes = c.channels, c.height, c.width, c.features, c.stages
        generator = StridedGenerator(c.latent, *sizes, classes=c.classes, virtual=c.virtual_batch_norm)
        if c.virtual_batch_norm:
            generator = ReferenceBatch(generator, torch.randn(REFERENCE, c.latent))
        trunk = StridedTrunk(*sizes, batch_norm=True)
        return generator, Projection(trunk, c.classes, c.kernels, c.dim)

    def discriminator_objective(self, real_logits, fake_logits):
        return losses.non_saturating_discriminator(real_logits, fake_logits, self.config.smooth)

    def generator_objective(self, real, fake, labels):
        features = self.discriminator.features(fake)
        logits = self.discriminator.logits(features, labels)
        report = {"fake_logits": logits.detach()}
        if not self.config.feature_matching:
            return losses.non_saturating_generator(logits), report
        with torch.no_grad():
            target = self.discriminator.features(real)
        return losses.feature_matching(target, features), report

    def _images(self, z, labels):
        return self.generator(z) if labels is None else self.generator(z, labels)
