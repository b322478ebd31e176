"""R3GAN: a relativistic loss with zero-centred gradient penalties, and residual networks without normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genfast._config import option
from genfast.losses import r1_penalty, relativistic_discriminator, relativistic_generator
from genfast.models.base import register_model
from genfast.models.gan import GAN, GANConfig, LossAndReport
from genfast.nn.fixup import FixupDiscriminator, FixupGenerator


@dataclass
class R3GANConfig(GANConfig):
    """Settings of an `R3GAN`."""

    features: int = option(
        32, "features (channels) at the finest resolution; twice as many at each coarser one", ge=1, le=2**16
    )
    stages: int = option(
        1,
        "number of times that the resolution is halved in the discriminator and doubled in the generator",
        ge=0,
        le=16,
    )
    blocks: int = option(1, "residual blocks at each resolution (paper: 2)", ge=1, le=1000)
    expansion: int = option(2, "ratio of the features inside a residual block to those outside", ge=1, le=1024)
    group: int = option(16, "features in each group of the grouped 3x3 convolutions", ge=1, le=2**16)
    patch: int = option(
        1, "side of the square patches of pixels that the first and last layers work on (paper: 1)", ge=1, le=65535
    )
    gamma: float = option(1.0, "weight of the R1 and R2 penalties, each multiplied by gamma / 2", ge=0)

    @property
    def stride(self) -> int:
        """Side in pixels of the square of the image that a place in the smallest feature map covers."""
        return self.patch << self.stages


@register_model
class R3GAN(GAN):
    """A GAN of residual networks without normalisation, trained by the relativistic loss with R1 and R2 penalties.

    Paper: The GAN is dead; long live the GAN! A Modern GAN Baseline, arXiv 2501.05441, at a smaller size.
    Example: `R3GAN(R3GANConfig()).sample(4)`
    """

    name = "r3gan"
    config_type = R3GANConfig
    config: R3GANConfig
    adversarial_loss = "relativistic"

    def networks(self) -> tuple[nn.Module, nn.Module]:
        c = self.config
        sizes = c.latent, c.channels, c.height, c.width, c.features, c.stages, c.blocks, c.expansion, c.group, c.patch
        return FixupGenerator(*sizes, classes=c.classes), FixupDiscriminator(*sizes, classes=c.classes)

    def discriminator_objective(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relativistic_discriminator(real_logits, fake_logits)

    def penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor | None:
        """gamma / 2 (R1 + R2). Their mean is computed as R1 of both batches together."""
        arguments = () if labels is None else (labels.repeat(2),)
        return self.config.gamma * r1_penalty(self.discriminator, torch.cat((real, fake)), *arguments)

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> LossAndReport:
        logits = self.discriminator(fake, labels)
        with torch.no_grad():
            real_logits = self.discriminator(real, labels)
        report = {"fake_logits": logits.detach(), "real_logits": real_logits}
        return relativistic_generator(real_logits, logits), report
