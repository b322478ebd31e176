"""DCGAN, with the techniques of Salimans et al. (2016) as options."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genfast import losses
from genfast._config import option
from genfast.models.base import register_model
from genfast.models.gan import GAN, GANConfig, LossAndReport
from genfast.nn.projection import Projection
from genfast.nn.strided import StridedGenerator, StridedTrunk
from genfast.nn.virtual_batch_norm import ReferenceBatch

# Images in the reference batch of virtual batch norms.
REFERENCE = 64


@dataclass
class DCGANConfig(GANConfig):
    """Settings of a `DCGAN`."""

    smooth: float = option(0.0, "one-sided label smoothing: the targets of real images are 1 - smooth", ge=0, lt=1)
    feature_matching: bool = option(
        False, "train the generator by feature matching: it matches mean features of the discriminator"
    )
    kernels: int = option(0, "kernels of minibatch discrimination in the discriminator; 0: none", ge=0, le=2**16)
    dim: int = option(5, "size of each kernel of minibatch discrimination", ge=1, le=2**16)
    virtual_batch_norm: bool = option(False, "use virtual batch norms in the generator; only without classes")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.virtual_batch_norm and self.classes:
            raise ValueError(f"DCGANConfig: virtual_batch_norm must be off with classes; got {self.classes} classes")


@register_model
class DCGAN(GAN):
    """A GAN of strided convolutions with batch norms, trained by the non-saturating loss.

    Paper: Unsupervised Representation Learning with DCGANs, arXiv 1511.06434; the options: Improved Techniques for
        Training GANs, arXiv 1606.03498; with classes: arXiv 1610.07629 and 1802.05637.
    Example: `DCGAN(DCGANConfig()).sample(4)`
    """

    name = "dcgan"
    config_type = DCGANConfig
    config: DCGANConfig
    discriminator: Projection
    adversarial_loss = "non-saturating"

    def networks(self) -> tuple[nn.Module, Projection]:
        c = self.config
        sizes = c.channels, c.height, c.width, c.features, c.stages
        generator: nn.Module = StridedGenerator(c.latent, *sizes, classes=c.classes, virtual=c.virtual_batch_norm)
        if c.virtual_batch_norm:
            generator = ReferenceBatch(generator, torch.randn(REFERENCE, c.latent))
        trunk = StridedTrunk(*sizes, batch_norm=True)
        return generator, Projection(trunk, c.classes, c.kernels, c.dim)

    def discriminator_objective(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return losses.non_saturating_discriminator(real_logits, fake_logits, self.config.smooth)

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> LossAndReport:
        features = self.discriminator.features(fake)
        logits = self.discriminator.logits(features, labels)
        report = {"fake_logits": logits.detach()}
        if not self.config.feature_matching:
            return losses.non_saturating_generator(logits), report
        with torch.no_grad():
            target = self.discriminator.features(real)
        return losses.feature_matching(target, features), report

    def _images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(z) if labels is None else self.generator(z, labels)
