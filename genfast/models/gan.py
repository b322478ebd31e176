"""The base class of all generative adversarial networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genfast._config import inherited, option
from genfast.engine.arguments import kind_of
from genfast.engine.calling import evaluating
from genfast.models._prior import prior_blocks, sample_prior
from genfast.models.base import ImageConfig, ImageModel
from genfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev

# Batches of `BLOCK` latents over which `settle` averages the statistics of batch norms.
SETTLING = 32

# A loss [], and detached tensors to report.
LossAndReport = tuple[Tensor, dict[str, Tensor]]


@dataclass
class GANConfig(ImageConfig):
    """Settings of a `GAN`."""

    levels: int = inherited(ImageConfig, "levels", 256)
    classes: int = option(
        0, "number of labels that both networks are conditional on; 0: unconditional", ge=0, le=2**20, from_data=True
    )
    latent: int = option(64, "size Z of the latent vector", ge=1, le=2**16)
    features: int = option(64, "features (channels) of the feature maps at the finest resolution", ge=1, le=2**16)
    stages: int = option(
        2,
        "number of times that the resolution is halved in the discriminator and doubled in the generator",
        ge=1,
        le=16,
    )
    discriminator_steps: int = option(
        1, "updates of the discriminator before each update of the generator", ge=1, le=1000
    )

    @property
    def stride(self) -> int:
        """Side in pixels of the square of the image that a place in the smallest feature map covers."""
        return 2**self.stages

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_multiples(self.stride, "the networks' stride")


class GAN(ImageModel):
    """A generator of images from z ~ N(0, I), and a discriminator between real and generated images.

    A subclass defines `networks`, `adversarial_loss` (a name in `genfast.metrics.equilibrium.LOSSES`),
    `discriminator_objective` and `generator_objective`, and optionally a `penalty`. The networks work on levels scaled
    to [-1, 1]; generated images are rounded to the nearest level.

    Training (`genfast.train.fit_adversarial`) calls `discriminator_loss` and `generator_loss`, which draw latents from
    torch's global generator. The labels of the batch are those of the real and of the generated images.
    """

    config_type = GANConfig
    config: GANConfig
    adversarial_loss: ClassVar[str]
    generator: nn.Module
    discriminator: nn.Module

    def __init__(self, config: GANConfig) -> None:
        super().__init__(config)
        self.generator, self.discriminator = self.networks()

    @property
    def discriminator_steps(self) -> int:
        """Updates of the discriminator before each update of the generator."""
        return self.config.discriminator_steps

    @property
    def least_batch(self) -> int:
        """The smallest batch for training: 2 if a network has batch norms, else 1."""
        return 2 if _batch_norms(self) else 1

    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Generate images, float [B, C, H, W] in [-1, 1].

        Args:
            z: latents, float [B, Z].
            labels: integers [B], 0 to classes - 1, for a conditional model.
        Raises: TypeError for another dtype; ValueError for another shape, a missing label, a label out of range, or
            labels for an unconditional model.
        """
        return self._images(self._check_latents(z), self._check_labels(labels, z.shape[0])).clamp(-1, 1)

    def discriminate(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of images: float [B, C, H, W] in [-1, 1] -> float [B]. Labels and errors as for `generate`."""
        c, kind = self.config, type(self).__name__
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{kind}: x must be a float tensor; got {kind_of(x)}")
        if x.dim() != 4 or x.shape[1:] != (c.channels, c.height, c.width):
            expected = f"[B, C, H, W] with C={c.channels}, H={c.height}, W={c.width}"
            raise ValueError(f"{kind}: x must have shape {expected}; got {tuple(x.shape)}")
        return self.discriminator(x.to(self._weight.dtype), self._check_labels(labels, x.shape[0]))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As `generate`."""
        return self.generate(z, labels)

    def discriminator_loss(self, x: Tensor, labels: Tensor | None = None) -> LossAndReport:
        """The loss of the discriminator on a batch, and a report.

        Args:
            x: levels, uint8 [B, C, H, W].
            labels: as for `generate`.
        Returns: (loss [], report). The report has detached tensors: real_logits and fake_logits [B], and penalty [] if
            there is one.
        Raises: as `generate`; ValueError for a batch smaller than `least_batch` in training mode.
        """
        real, labels = self._batch(x, labels)
        with torch.no_grad():
            # Autocast may have lowered the precision.
            fake = self._images(self.draw_latents(x.shape[0]), labels).to(real.dtype)
        real_logits, fake_logits = self.logits_of_both(real, fake, labels)
        report = {"real_logits": real_logits.detach(), "fake_logits": fake_logits.detach()}
        loss, penalty = self.discriminator_objective(real_logits, fake_logits), self.penalty(real, fake, labels)
        if penalty is not None:
            report["penalty"] = penalty.detach()
            loss = loss + penalty
        return loss, report

    def generator_loss(self, x: Tensor, labels: Tensor | None = None) -> LossAndReport:
        """The loss of the generator on a batch, and a report with fake_logits [B]; as `discriminator_loss`."""
        real, labels = self._batch(x, labels)
        fake = self._images(self.draw_latents(x.shape[0]), labels)
        return self.generator_objective(real, fake, labels)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """A new generator (z, labels) -> images in [-1, 1], and a new discriminator (images, labels) -> logits [B]."""
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines networks")

    def discriminator_objective(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss [] of logits [B], without the penalty."""
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines discriminator_objective")

    def generator_objective(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> LossAndReport:
        """The generator's loss [] of real and generated images in [-1, 1], and a report with fake_logits [B]."""
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines generator_objective")

    def logits_of_both(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [B] of real and of generated images, computed as one batch unless the network couples the batch."""
        if couples_batch(self.discriminator):
            return self.discriminator(real, labels), self.discriminator(fake, labels)
        labels = None if labels is None else labels.repeat(2)
        real, fake = self.discriminator(torch.cat((real, fake)), labels).chunk(2)
        return real, fake

    def penalty(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor | None:
        """A penalty [] that is added to the discriminator's objective; None: no penalty."""
        return None

    def draw_latents(self, n: int) -> Tensor:
        """Draw z ~ N(0, I) by torch's global generator: float [n, Z]."""
        return torch.randn(n, self.config.latent, device=self._weight.device, dtype=self._weight.dtype)

    @torch.no_grad()
    def settle(self) -> None:
        """Recompute the running statistics of the generator's batch norms, as means over `SETTLING` batches.

        Averaged weights need it: the running statistics of training belong to the weights before averaging. The latents
        are fixed, the labels are every class in turn. Without batch norms there is no effect.
        """
        norms = _batch_norms(self.generator)
        if not norms:
            return
        device, n = self._weight.device, SETTLING * 64
        classes = self.config.classes
        labels = torch.arange(n, dtype=torch.int64, device=device) % classes if classes else None
        blocks = prior_blocks(n, self.config.latent, seed=2**64 - 1, first=0, labels=labels, device=device)
        momentum = [norm.momentum for norm in norms]
        with evaluating(self):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None
                norm.train()
            for _, z, block_labels, _ in blocks:
                self._images(z.to(self._weight.dtype), block_labels)
            for norm, value in zip(norms, momentum, strict=True):
                norm.momentum = value
                norm.eval()

    def preview(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of fixed latents, uint8 [n, C, H, W], of every class in turn; x and labels are unused."""
        side = min(self.config.classes, 12) or 8
        classes = self.config.classes
        labels = torch.arange(side * side, dtype=torch.int64, device="cpu") % classes if classes else None
        return self.sample(side * side, labels=labels)

    @torch.no_grad()
    def sample_images(self, n: int, *, seed: int, first: int, temperature: float, labels: Tensor | None) -> Tensor:
        """Draw images for `genfast.sample`, which has checked the arguments: uint8 [n, C, H, W].

        The temperature multiplies the standard deviation of the prior.
        """

        def images(z: Tensor, labels: Tensor | None, first: int) -> Tensor:
            return self.quantised(self._images(z.to(self._weight.dtype), labels))

        return sample_prior(
            images,
            self.spec,
            self.config.latent,
            n,
            seed=seed,
            first=first,
            temperature=temperature,
            labels=labels,
            device=self._weight.device,
        )

    def _images(self, z: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator(z, labels)

    def _batch(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The checked images, scaled to [-1, 1], and their checked labels."""
        self._check_images(x)
        if self.training and x.shape[0] < self.least_batch:
            expected = f"a batch of at least {self.least_batch} images, as its statistics are taken over the batch"
            raise ValueError(f"{type(self).__name__}: x must be {expected}; got {x.shape[0]}")
        return self.scaled(x), self._check_labels(labels, x.shape[0])

    def _check_latents(self, z: Any) -> Tensor:
        kind, latent = type(self).__name__, self.config.latent
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"{kind}: z must be a float tensor; got {kind_of(z)}")
        if z.dim() != 2 or z.shape[1] != latent:
            raise ValueError(f"{kind}: z must have shape [B, {latent}]; got {tuple(z.shape)}")
        return z.to(self._weight.dtype)


def couples_batch(network: nn.Module) -> bool:
    """Whether a network's output for an image depends on the other images of the batch."""
    layers = MinibatchDiscrimination, MinibatchStddev
    return bool(_batch_norms(network)) or any(isinstance(module, layers) for module in network.modules())


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
