"""Pix2Pix: image-to-image translation, learned from pairs of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import inherited, option
from genfast._native.checks import check_range
from genfast.engine.decoder import BLOCK
from genfast.engine.protocols import ImageSpec
from genfast.losses import non_saturating_discriminator, non_saturating_generator
from genfast.models.base import ImageConfig, ImageModel, register_model
from genfast.models.gan import LossAndReport
from genfast.nn import BiasAct
from genfast.random.philox import uniform

MOST_HALVINGS = 8
# Standard deviation of the initial weights, as in the paper.
DEVIATION = 0.02


@dataclass
class Pix2PixConfig(ImageConfig):
    """Settings of a `Pix2Pix`."""

    height: int = inherited(ImageConfig, "height", 64)
    width: int = inherited(ImageConfig, "width", 64)
    levels: int = inherited(ImageConfig, "levels", 256)
    source_channels: int = option(1, "channels of a source image", ge=1, from_data=True)
    features: int = option(
        32,
        "features (channels) of the first layer of both networks; doubled in each further layer, up to eightfold",
        ge=1,
    )
    halvings: int = option(
        0, "number of layers of the U-Net that halve the resolution; 0: as many as the image allows, at most 8", ge=0
    )
    patch: int = option(
        2,
        "number of layers of the discriminator that halve the resolution; side of its patches: 16 (1), 34 (2), 70 (3)",
        ge=1,
    )
    dropout: float = option(
        0.5,
        "dropout of the inner layers of the U-Net, also in translation, where it is the source of noise",
        ge=0,
        lt=1,
    )
    l1_weight: float = option(100.0, "weight of the L1 loss, relative to the adversarial loss", ge=0)
    discriminator_steps: int = option(1, "updates of the discriminator before each update of the generator", ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        side, got = min(self.height, self.width), f"{self.height}x{self.width}"
        if side < 2 or side < 2**self.halvings:
            least = 2 ** max(1, self.halvings)
            raise ValueError(
                f"Pix2PixConfig: height and width must be at least {least}, the stride of the U-Net; got {got}"
            )
        # Two 4x4 convolutions follow the strides, and instance norm needs at least two values in a channel.
        if side < 3 * 2**self.patch:
            least = f"{3 * 2**self.patch} for patch={self.patch}, the discriminator's strides"
            raise ValueError(f"Pix2PixConfig: height and width must be at least {least}; got {got}")

    @classmethod
    def fixed_by(cls, data: Any) -> dict[str, Any]:
        return super().fixed_by(data) | {"source_channels": data.source.shape[1]}

    @property
    def depth(self) -> int:
        """Number of layers of the U-Net that halve the resolution."""
        return self.halvings or min(MOST_HALVINGS, min(self.height, self.width).bit_length() - 1)


@register_model
class Pix2Pix(ImageModel):
    """A U-Net that generates the target image of a source image, and a discriminator of patches of (source, target).

    The generator minimises `-log D(source, G(source)) + l1_weight |target - G(source)|_1`, means over patches and
    values; the discriminator minimises half its cross-entropy. Dropout is the source of noise. Both networks work on
    values in [-1, 1].

    Training takes batches `(source, target)`, levels uint8 [B, S, H, W] and [B, C, H, W], of the size in the config.
    Translation takes images of any size that is at least the stride, 2**depth: see `genfast.translate`.

    Paper: Image-to-Image Translation with Conditional Adversarial Networks, arXiv 1611.07004.
    Example: `genfast.translate(Pix2Pix(Pix2PixConfig()), torch.zeros(1, 1, 64, 64, dtype=torch.uint8))`
    """

    name = "pix2pix"
    config_type = Pix2PixConfig
    config: Pix2PixConfig
    adversarial_loss = "non-saturating"
    takes_pairs = True
    least_batch = 1

    def __init__(self, config: Pix2PixConfig) -> None:
        super().__init__(config)
        c = config
        self.generator = UNet(c.source_channels, c.channels, c.features, c.depth, c.dropout)
        self.discriminator = PatchDiscriminator(c.source_channels + c.channels, c.features, c.patch)

    @property
    def source(self) -> ImageSpec:
        """The format of source images in training."""
        return replace(self.spec, channels=self.config.source_channels)

    @property
    def stride(self) -> int:
        """The smallest height and width of an image to translate."""
        return 2**self.config.depth

    @property
    def discriminator_steps(self) -> int:
        """Updates of the discriminator before each update of the generator."""
        return self.config.discriminator_steps

    def discriminator_loss(self, source: Tensor, target: Tensor) -> LossAndReport:
        """The loss of the discriminator, [], and a report with real_logits and fake_logits, each [B * patches].

        Args: source, target: levels, uint8 [B, S, H, W] and [B, C, H, W].
        Raises: TypeError for another dtype; ValueError for another shape, or a level out of range.
        """
        source, target = self._pair(source, target)
        with torch.no_grad():
            fake = self.generator(source)
        real_logits, fake_logits = self.discriminator(source, target), self.discriminator(source, fake)
        # Halved to slow the discriminator down relative to the generator (section 3.3 of the paper).
        loss = non_saturating_discriminator(real_logits, fake_logits) / 2
        return loss, {"real_logits": real_logits.detach().flatten(), "fake_logits": fake_logits.detach().flatten()}

    def generator_loss(self, source: Tensor, target: Tensor) -> LossAndReport:
        """The loss of the generator, [], and a report with adversarial [], l1 [] and fake_logits [B * patches].

        Arguments and errors as `discriminator_loss`. l1 is of values in [-1, 1].
        """
        source, target = self._pair(source, target)
        fake = self.generator(source)
        fake_logits = self.discriminator(source, fake)
        adversarial, l1 = non_saturating_generator(fake_logits), (fake - target).abs().float().mean()
        report = {"adversarial": adversarial.detach(), "l1": l1.detach(), "fake_logits": fake_logits.detach().flatten()}
        return adversarial + self.config.l1_weight * l1, report

    def settle(self) -> None:
        """No effect: instance norms have no running statistics."""

    def preview(self, source: Tensor, target: Tensor) -> Tensor:
        """Source, translation and target of each pair side by side: levels, uint8 [B, C, H, 3 W].

        C is the larger number of channels. The noise is that of `genfast.translate` with seed 0.
        """
        self._pair(source, target)
        parts = (source, self.translated(source), target)
        channels = max(part.shape[1] for part in parts)
        return torch.cat([part.expand(-1, channels, -1, -1) for part in parts], 3)

    @torch.no_grad()
    def translated(self, source: Tensor, seed: int = 0, first: int = 0, noise: bool = True) -> Tensor:
        """Translate images for `genfast.translate`, which has checked them: uint8 [B, S, h, w] -> uint8 [B, C, h, w].

        The result is the same in training and in evaluation mode. Images are translated in blocks whose size depends on
        h and w only, and image i has a fixed place in its block, because the rounding of matrix products depends on
        their size. The dropout mask is drawn by Philox for (seed, first + i, unit, layer).
        """
        size, p = source.shape[2:], self.config.dropout if noise else 0.0
        # 64 images of 32x32 and fewer of larger ones, a power of two.
        block = max(1, min(BLOCK, 2**16 // (size[0] * size[1])))
        block = 1 << block.bit_length() - 1
        ahead = first % block
        padded = F.pad(source, (0, 0, 0, 0, 0, 0, ahead, -(ahead + len(source)) % block))
        images = [source.new_empty(0, self.config.channels, *size)]
        for start in range(0, len(padded), block):
            drop = PhiloxDropout(p, seed, first - ahead + start)
            images.append(self.quantised(self.generator(self.scaled(padded[start : start + block]), drop)))
        return torch.cat(images)[ahead : ahead + len(source)]

    def _pair(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The checked images of a batch, scaled to [-1, 1]."""
        c = self.config
        for name, images, channels in (("source", source, c.source_channels), ("target", target, c.channels)):
            if not isinstance(images, Tensor) or images.dtype != torch.uint8:
                got = images.dtype if isinstance(images, Tensor) else type(images).__name__
                raise TypeError(f"Pix2Pix: {name} must hold levels as torch.uint8; got {got}")
            if images.dim() != 4 or images.shape[1:] != (channels, c.height, c.width) or len(images) != len(source):
                expected = f"[B, C, H, W] with B={len(source)}, C={channels}, H={c.height}, W={c.width}"
                raise ValueError(f"Pix2Pix: {name} must have shape {expected}; got {tuple(images.shape)}")
            if c.levels < 256:
                check_range("Pix2Pix", name, images, 0, c.levels - 1, f"lie in 0..{c.levels - 1}")
        return self.scaled(source), self.scaled(target)


class UNet(nn.Module):
    """A U-Net [B, S, H, W] -> [B, C, H, W] in (-1, 1), with `depth` layers down and as many up.

    Each layer is a 4x4 convolution of stride 2, down with leaky ReLU, up with ReLU and a skip connection from the layer
    of the same resolution. All layers have instance norm, except the first, the last, and the last layer down. If the
    stride does not divide the size, the image is padded by reflection at the bottom and at the right, and the output is
    cropped.
    """

    def __init__(self, inputs: int, outputs: int, features: int, depth: int, dropout: float) -> None:
        super().__init__()
        widths = [features * min(2**i, 8) for i in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            conv = nn.Conv2d(widths[i - 1] if i else inputs, width, 4, stride=2, padding=1, bias=False)
            # The innermost layer may have one value in a channel, which instance norm would map to zero.
            self.down.append(ConvLayer(conv, "leaky_relu", normalised=0 < i < depth - 1))
        for i in reversed(range(depth)):
            width = widths[i] if i == depth - 1 else 2 * widths[i]
            up = nn.ConvTranspose2d(width, widths[i - 1] if i else outputs, 4, stride=2, padding=1, bias=False)
            self.up.append(ConvLayer(up, "relu" if i else "tanh", normalised=i > 0))
        self.dropout, self.dropped = dropout, min(3, depth - 1)

    def forward(self, x: Tensor, drop: Callable[[Tensor, int], Tensor] | None = None) -> Tensor:
        """`drop(h, layer)`: dropout of the inner layers; None: `torch.nn.functional.dropout`, in training mode only."""
        height, width = x.shape[2:]
        stride = 2 ** len(self.down)
        h = F.pad(x, (0, -width % stride, 0, -height % stride), mode="reflect")
        skips = []
        for layer in self.down:
            h = layer(h)
            skips.append(h)
        for i, layer in enumerate(self.up):
            h = layer(torch.cat((h, skips[-1 - i]), 1) if i else h)
            if i < self.dropped:
                h = drop(h, i) if drop else F.dropout(h, self.dropout, self.training)
        return h[:, :, :height, :width]


class PatchDiscriminator(nn.Module):
    """Logits of patches, [B, 1, h, w], of a source and a target image in [-1, 1].

    4x4 convolutions with leaky ReLU, `halvings` of stride 2 and two of stride 1. All but the first and the last have
    instance norm.
    """

    def __init__(self, channels: int, features: int, halvings: int) -> None:
        super().__init__()
        layers, widths = [], [features * min(2**i, 8) for i in range(halvings + 1)]
        for i in range(halvings + 1):
            conv = nn.Conv2d(
                widths[i - 1] if i else channels, widths[i], 4, stride=2 if i < halvings else 1, padding=1, bias=False
            )
            layers.append(ConvLayer(conv, "leaky_relu", normalised=i > 0))
        layers.append(ConvLayer(nn.Conv2d(widths[-1], 1, 4, padding=1, bias=False), "linear", normalised=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.layers(torch.cat((source, target), 1))


class ConvLayer(nn.Module):
    """A convolution, instance norm if `normalised`, a bias and an activation."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, activation: str, normalised: bool) -> None:
        super().__init__()
        nn.init.normal_(conv.weight, std=DEVIATION)
        self.conv, self.normalised = conv, normalised
        self.act = BiasAct(conv.out_channels, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.act(F.instance_norm(x) if self.normalised else x)


class PhiloxDropout:
    """Dropout by (seed, index of the image, unit, layer) alone; image b of a batch has the index first + b."""

    def __init__(self, p: float, seed: int, first: int) -> None:
        self.p, self.seed, self.first = p, seed, first

    def __call__(self, h: Tensor, layer: int) -> Tensor:
        if not self.p:
            return h
        index = self.first + torch.arange(len(h), device=h.device)[:, None]
        unit = torch.arange(h[0].numel(), device=h.device)
        mask = uniform(self.seed, index, unit, torch.tensor(layer, device=h.device)) >= self.p
        return h * mask.view(h.shape) / (1 - self.p)
