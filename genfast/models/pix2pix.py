"""Pix2Pix: images of one domain translated to another, learned from pairs."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from genfast._config import inherited, option
from genfast.engine.decoder import BLOCK
from genfast.engine.protocols import ImageSpec
from genfast.losses import non_saturating_discriminator, non_saturating_generator
from genfast.models.base import ImageConfig, ImageModel, register_model
from genfast.nn import BiasAct
from genfast.random.philox import uniform

MOST_HALVINGS = 8
SPREAD = 0.02  # standard deviation of the weights at first, as in the paper


@dataclass
class Pix2PixConfig(ImageConfig):
    """Sizes of a `Pix2Pix`."""

    height: int = inherited(ImageConfig, "height", 64)
    width: int = inherited(ImageConfig, "width", 64)
    levels: int = inherited(ImageConfig, "levels", 256)
    source_channels: int = option(1, "channels of the source", ge=1, from_data=True)
    features: int = option(
        32, "of the first layer of both networks; each further one has twice as many, up to eight times", ge=1
    )
    halvings: int = option(0, "strides of 2 of the U-Net; 0: as many as the size allows, at most 8", ge=0)
    patch: int = option(
        2, "strides of 2 of the discriminator; it judges patches of 16 (for 1), 34 (2) or 70 (3) pixels", ge=1
    )
    dropout: float = option(
        0.5,
        "probability that a unit of the U-Net's inner layers is dropped, in translation too: it is the noise",
        ge=0,
        lt=1,
    )
    l1_weight: float = option(100.0, "weight of the mean absolute error in [-1, 1], beside the adversarial loss", ge=0)
    discriminator_steps: int = option(1, "updates of the discriminator for one of the generator", ge=1)

    def __post_init__(self):
        super().__post_init__()
        side, got = min(self.height, self.width), f"{self.height}x{self.width}"
        if side < 2 or side < 2**self.halvings:
            least = 2 ** max(1, self.halvings)
            raise ValueError(
                f"Pix2PixConfig: height and width must be at least {least}, the stride of the U-Net; got {got}"
            )
        # Two convolutions 4x4 follow the strides; normalisation needs two values of a channel.
        if side < 3 * 2**self.patch:
            least = f"{3 * 2**self.patch} for patch={self.patch}, the discriminator's strides"
            raise ValueError(f"Pix2PixConfig: height and width must be at least {least}; got {got}")

    @classmethod
    def fixed_by(cls, data):
        return super().fixed_by(data) | {"source_channels": data.source.shape[1]}

    @property
    def depth(self):
        """Strides of 2 of the U-Net."""
        return self.halvings or min(MOST_HALVINGS, min(self.height, self.width).bit_length() - 1)


@register_model
class Pix2Pix(ImageModel):
    """A U-Net that draws the target of a source, and a discriminator of patches of (source, target).

    The generator minimises `-log D(source, G(source)) + l1_weight |target - G(source)|_1`, means over patches and
    values; the discriminator half its cross-entropy. Its noise is dropout. Both see values in [-1, 1].

    Training takes batches `(source, target)`, uint8 levels [B, S, H, W] and [B, C, H, W], of the sizes in the config;
    what is translated may have any size of at least the stride, 2**depth: see `genfast.translate`.

    Paper: Image-to-Image Translation with Conditional Adversarial Networks, arXiv 1611.07004.
    Example: `genfast.translate(Pix2Pix(Pix2PixConfig()), torch.zeros(1, 1, 64, 64, dtype=torch.uint8))`
    """

    name = "pix2pix"
    config_type = Pix2PixConfig
    adversarial_loss = "non-saturating"
    takes_pairs = True
    least_batch = 1

    def __init__(self, config):
        super().__init__(config)
        c = config
        self.generator = UNet(c.source_channels, c.channels, c.features, c.depth, c.dropout)
        self.discriminator = PatchDiscriminator(c.source_channels + c.channels, c.features, c.patch)

    @property
    def source(self) -> ImageSpec:
        """The images that it takes, in training of the sizes in the config."""
        return replace(self.spec, channels=self.config.source_channels)

    @property
    def stride(self) -> int:
        """The least height and width that it translates."""
        return 2**self.config.depth

    @property
    def discriminator_steps(self):
        return self.config.discriminator_steps

    def discriminator_loss(self, source, target):
        """What the discriminator minimises, [], and a report: its logits, each [B * patches]."""
        source, target = self._pair(source, target)
        with torch.no_grad():
            fake = self.generator(source)
        real_logits, fake_logits = self.discriminator(source, target), self.discriminator(source, fake)
        # Halved, so that the discriminator learns slower than the generator (the paper's section 3.3).
        loss = non_saturating_discriminator(real_logits, fake_logits) / 2
        return loss, {"real_logits": real_logits.detach().flatten(), "fake_logits": fake_logits.detach().flatten()}

    def generator_loss(self, source, target):
        """What the generator minimises, [], and a report of its parts: `adversarial`, and `l1` in [-1, 1]."""
        source, target = self._pair(source, target)
        fake = self.generator(source)
        fake_logits = self.discriminator(source, fake)
        adversarial, l1 = non_saturating_generator(fake_logits), (fake - target).abs().float().mean()
        report = {"adversarial": adversarial.detach(), "l1": l1.detach(), "fake_logits": fake_logits.detach().flatten()}
        return adversarial + self.config.l1_weight * l1, report

    def settle(self) -> None:
        """Nothing: instance norms have no statistics to settle."""

    def preview(self, source, target):
        """Source, translation and target of each pair side by side: uint8 levels [B, C, H, 3 W], C the larger of both.

        The noise is that of `genfast.translate` with seed 0.
        """
        self._pair(source, target)
        parts = source, self.translated(source), target
        channels = max(part.shape[1] for part in parts)
        return torch.cat([part.expand(-1, channels, -1, -1) for part in parts], 3)

    @torch.no_grad()
    def translated(self, source, seed=0, first=0, noise=True):
        """What `genfast.translate` calls: uint8 levels [B, S, h, w] -> uint8 [B, C, h, w], the same in training mode.

        In blocks of a size that h and w decide, each image at the place of its number: products of other sizes round
        otherwise. Dropout's mask is that of Philox for (seed, first + i, unit, layer).
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
            values = self.generator(self._scaled(padded[start : start + block]), drop)
            top = self.config.levels - 1
            images.append(((values.float() + 1) * (top / 2)).round().clamp(0, top).to(torch.uint8))
        return torch.cat(images)[ahead : ahead + len(source)]

    def _pair(self, source, target):
        """The tensors of a batch in [-1, 1], checked."""
        c = self.config
        for what, images, channels in (("source", source, c.source_channels), ("target", target, c.channels)):
            if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8:
                got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
                raise TypeError(f"Pix2Pix: {what} must hold levels as torch.uint8; got {got}")
            if images.dim() != 4 or images.shape[1:] != (channels, c.height, c.width) or len(images) != len(source):
                expected = f"[B, C, H, W] with B={len(source)}, C={channels}, H={c.height}, W={c.width}"
                raise ValueError(f"Pix2Pix: {what} must have shape {expected}; got {tuple(images.shape)}")
            compiling = torch.compiler.is_compiling()  # reading a value would break the graph in two
            if c.levels < 256 and not compiling and images.numel() and (top := int(images.max())) >= c.levels:
                raise ValueError(f"Pix2Pix: {what} must lie in 0..{c.levels - 1}; got {top}")
        return self._scaled(source), self._scaled(target)

    def _scaled(self, images):
        return images.to(next(self.parameters()).dtype) * (2 / (self.config.levels - 1)) - 1


class UNet(nn.Module):
    """[B, S, H, W] -> [B, C, H, W] in (-1, 1): halvings down, doublings up, each of which also sees the layer of its
    size on the way down.

    4x4 convolutions, instance norm but at both ends, leaky ReLU down and ReLU up. A size that the strides do not divide
    is padded by reflection at the bottom and at the right, and cropped.
    """

    def __init__(self, inputs, outputs, features, depth, dropout):
        super().__init__()
        widths = [features * min(2**i, 8) for i in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            conv = nn.Conv2d(widths[i - 1] if i else inputs, width, 4, stride=2, padding=1, bias=False)
            # A channel of one value, as the innermost layer may have, would be normalised to nothing.
            self.down.append(ConvLayer(conv, "leaky_relu", normalised=0 < i < depth - 1))
        for i in reversed(range(depth)):
            taken = widths[i] if i == depth - 1 else 2 * widths[i]
            conv = nn.ConvTranspose2d(taken, widths[i - 1] if i else outputs, 4, stride=2, padding=1, bias=False)
            self.up.append(ConvLayer(conv, "relu" if i else "tanh", normalised=i > 0))
        self.dropout, self.dropped = dropout, min(3, depth - 1)

    def forward(self, x, drop=None):
        """`drop(h, layer)` drops units of the inner layers; None: dropout in training mode, nothing otherwise."""
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
    """Logits of patches, [B, 1, h, w], of a source and a target in [-1, 1].

    4x4 convolutions, `halvings` of stride 2 and two of stride 1, with leaky ReLU and, but for the first and the last,
    instance norm.
    """

    def __init__(self, channels, features, halvings):
        super().__init__()
        layers, widths = [], [features * min(2**i, 8) for i in range(halvings + 1)]
        for i in range(halvings + 1):
            conv = nn.Conv2d(
                widths[i - 1] if i else channels, widths[i], 4, stride=2 if i < halvings else 1, padding=1, bias=False
            )
            layers.append(ConvLayer(conv, "leaky_relu", normalised=i > 0))
        layers.append(ConvLayer(nn.Conv2d(widths[-1], 1, 4, padding=1, bias=False), "linear", normalised=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, source, target):
        return self.layers(torch.cat((source, target), 1))


class ConvLayer(nn.Module):
    """A convolution without bias, instance norm of its channels if `normalised`, a bias and an activation."""

    def __init__(self, conv, activation, normalised):
        super().__init__()
        nn.init.normal_(conv.weight, std=SPREAD)
        self.conv, self.normalised = conv, normalised
        self.act = BiasAct(conv.out_channels, activation)

    def forward(self, x):
        x = self.conv(x)
        return self.act(F.instance_norm(x) if self.normalised else x)


class PhiloxDropout:
    """Dropout of which the mask of image b of a batch is that of the number first + b: `drop(h, layer)`."""

    def __init__(self, p, seed, first):
        self.p, self.seed, self.first = p, seed, first

    def __call__(self, h, layer):
        if not self.p:
            return h
        number = self.first + torch.arange(len(h), device=h.device)[:, None]
        unit = torch.arange(h[0].numel(), device=h.device)
        kept = uniform(self.seed, number, unit, torch.tensor(layer, device=h.device)) >= self.p
        return h * kept.view(h.shape) / (1 - self.p)
