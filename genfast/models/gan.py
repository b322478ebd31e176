"""What all generative adversarial networks share: latents, labels, losses of a batch, and images drawn."""

from dataclasses import dataclass

import torch
from torch import nn

from genfast._config import inherited, option
from genfast.engine.arguments import kind_of
from genfast.models._prior import prior_blocks
from genfast.models.base import ImageConfig, ImageModel
from genfast.nn.minibatch import MinibatchDiscrimination, MinibatchStddev

# Batches of the prior, of BLOCK latents each, that batch norms take their statistics of.
SETTLING = 32


@dataclass
class GANConfig(ImageConfig):
    """Sizes of a `GAN`."""

    levels: int = inherited(ImageConfig, "levels", 256)
    classes: int = option(0, "number of labels that both networks are conditional on, 0 for none", ge=0, from_data=True)
    latent: int = option(64, "size Z of the latent vector", ge=1)
    features: int = option(64, "of the feature maps, those of the finest resolution where they differ", ge=1)
    stages: int = option(2, "how often the resolution is halved, and doubled", ge=1)
    discriminator_steps: int = option(1, "updates of the discriminator before each of the generator", ge=1)

    @property
    def stride(self):
        """Pixels of an image along one side of the networks' smallest feature map."""
        return 2**self.stages

    def __post_init__(self):
        super().__post_init__()
        if self.height % self.stride or self.width % self.stride:
            expected = f"multiples of {self.stride}, the networks' stride"
            got = f"{self.height} and {self.width}"
            raise ValueError(f"{type(self).__name__}: height and width must be {expected}; got {got}")


class GAN(ImageModel):
    """A generator of images from z ~ N(0, I), and a discriminator that tells them from data.

    A subclass makes both (`networks`), names its loss (`adversarial_loss`, of `genfast.metrics.equilibrium.LOSSES`),
    and says what each network minimises of the logits of real and generated images (`discriminator_objective`,
    `generator_objective`) and of the images (`penalty`). Images are levels, which the networks see scaled to [-1, 1];
    what the generator makes is rounded to the nearest level.

    Training (`genfast.train.fit_adversarial`) calls `discriminator_loss` and `generator_loss`, which draw latents from
    torch's global generator. Both are given the labels of the batch, real images and generated ones the same.
    """

    config_type = GANConfig

    def __init__(self, config):
        super().__init__(config)
        self.generator, self.discriminator = self.networks()

    @property
    def discriminator_steps(self):
        """Updates of the discriminator before each of the generator."""
        return self.config.discriminator_steps

    @property
    def least_batch(self):
        """The smallest batch that can be trained on: 2 where a network takes statistics over the batch."""
        return 2 if _batch_norms(self) else 1

    def generate(self, z, labels=None):
        """Images of latents: float [B, Z] -> float [B, C, H, W] in [-1, 1].

        Args: z; labels (integers [B], of a conditional model).
        Raises: TypeError for another dtype; ValueError for another shape, a label that is missing or out of range, or
            one given to an unconditional model.
        """
        return self._images(self._check_latents(z), self._check_labels(labels, len(z))).clamp(-1, 1)

    def discriminate(self, x, labels=None):
        """Logits of images, float [B, C, H, W] in [-1, 1] -> float [B]; labels and errors as of `generate`."""
        c, kind = self.config, type(self).__name__
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            raise TypeError(f"{kind}: x must be a float tensor; got {kind_of(x)}")
        if x.dim() != 4 or x.shape[1:] != (c.channels, c.height, c.width):
            expected = f"[B, C, H, W] with C={c.channels}, H={c.height}, W={c.width}"
            raise ValueError(f"{kind}: x must have shape {expected}; got {tuple(x.shape)}")
        return self.discriminator(x.to(self._dtype), self._check_labels(labels, len(x)))

    def forward(self, z, labels=None):
        """As `generate`."""
        return self.generate(z, labels)

    def discriminator_loss(self, x, labels=None):
        """What the discriminator minimises on a batch: (loss [], report).

        Args: x (uint8 [B, C, H, W], levels); labels as of `generate`.
        Returns: the report holds detached tensors: real_logits and fake_logits [B], and a penalty [] where there is
            one.
        Raises: as `generate`; ValueError for a batch of one, of a model with batch statistics.
        """
        real, labels = self._batch(x, labels)
        with torch.no_grad():
            fake = self._images(self.draw_latents(len(x)), labels).to(real.dtype)  # which autocast may have narrowed
        real_logits, fake_logits = self.judge_both(real, fake, labels)
        report = {"real_logits": real_logits.detach(), "fake_logits": fake_logits.detach()}
        loss, penalty = self.discriminator_objective(real_logits, fake_logits), self.penalty(real, fake, labels)
        if penalty is not None:
            report["penalty"] = penalty.detach()
            loss = loss + penalty
        return loss, report

    def generator_loss(self, x, labels=None):
        """What the generator minimises: (loss [], report), the report's fake_logits [B]. Arguments as before."""
        real, labels = self._batch(x, labels)
        fake = self._images(self.draw_latents(len(x)), labels)
        return self.generator_objective(real, fake, labels)

    def judge_both(self, real, fake, labels):
        """Logits of real and of generated images, as one batch where what the network says of an image depends on that image alone."""
        if couples_batch(self.discriminator):
            return self.discriminator(real, labels), self.discriminator(fake, labels)
        labels = None if labels is None else labels.repeat(2)
        real, fake = self.discriminator(torch.cat((real, fake)), labels).chunk(2)
        return real, fake

    def penalty(self, real, fake, labels):
        """What is added to the discriminator's objective, [] or None."""
        return None

    def draw_latents(self, n):
        """z ~ N(0, I) by torch's global generator, float [n, Z]."""
        like = next(self.parameters())
        return torch.randn(n, self.config.latent, device=like.device, dtype=like.dtype)

    def scaled(self, x):
        """Levels as numbers in [-1, 1]."""
        return x.to(self._dtype) * (2 / (self.config.levels - 1)) - 1

    def quantised(self, y):
        """Numbers in [-1, 1] as the nearest levels, uint8."""
        top = self.config.levels - 1
        return ((y.float() + 1) * (top / 2)).round_().clamp_(0, top).to(torch.uint8)

    @torch.no_grad()
    def settle(self):
        """Give the generator's batch norms the statistics of what these weights make: means over `SETTLING` batches.

        Averaged weights have other activations than those whose statistics training has followed. The latents are
        always the same, the labels every class in turn. Without batch norms nothing happens.
        """
        norms = _batch_norms(self.generator)
        if not norms:
            return
        was_training, momentum = self.training, [norm.momentum for norm in norms]
        self.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        device, n = next(self.parameters()).device, SETTLING * 64
        labels = torch.arange(n, device=device) % self.config.classes if self.config.classes else None
        for _, z, chosen, _ in prior_blocks(n, self.config.latent, seed=2**64 - 1, first=0, labels=labels,
                                            device=device):  # fmt: skip
            self._images(z.to(self._dtype), chosen)
        for norm, value in zip(norms, momentum, strict=True):
            norm.momentum = value
        self.train(was_training)

    def preview(self, x, labels=None):
        """Images of fixed latents, of a conditional model every class in turn: uint8 [n, C, H, W]."""
        side = min(self.config.classes, 12) or 8
        labels = torch.arange(side * side) % self.config.classes if self.config.classes else None
        return self.sample(side * side, labels=labels)

    @torch.no_grad()
    def sample_images(self, n, *, seed, first, temperature, labels):
        """What `genfast.sample` calls, with arguments that were checked: uint8 [n, C, H, W].

        The prior's standard deviation is multiplied by the temperature.
        """
        c, device = self.config, next(self.parameters()).device
        blocks = prior_blocks(n, c.latent, seed=seed, first=first, labels=labels, device=device)
        parts = [self._images((temperature * z).to(self._dtype), chosen)[part] for _, z, chosen, part in blocks]
        empty = torch.empty(0, c.channels, c.height, c.width, device=device)
        return self.quantised(torch.cat(parts) if n else empty)

    @property
    def _dtype(self):
        return next(self.parameters()).dtype

    def _images(self, z, labels):
        return self.generator(z, labels)

    def _batch(self, x, labels):
        """Real images in [-1, 1], and their labels."""
        self._check_images(x)
        if self.training and len(x) < self.least_batch:
            expected = f"a batch of at least {self.least_batch} images, as its statistics are taken over the batch"
            raise ValueError(f"{type(self).__name__}: x must be {expected}; got {len(x)}")
        return self.scaled(x), self._check_labels(labels, len(x))

    def _check_latents(self, z):
        kind, latent = type(self).__name__, self.config.latent
        if not isinstance(z, torch.Tensor) or not z.is_floating_point():
            raise TypeError(f"{kind}: z must be a float tensor; got {kind_of(z)}")
        if z.dim() != 2 or z.shape[1] != latent:
            raise ValueError(f"{kind}: z must have shape [B, {latent}]; got {tuple(z.shape)}")
        return z.to(self._dtype)


def couples_batch(network):
    """Whether what a network says of an image depends on the other images of the batch."""
    layers = MinibatchDiscrimination, MinibatchStddev
    return bool(_batch_norms(network)) or any(isinstance(module, layers) for module in network.modules())


def _batch_norms(network):
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
