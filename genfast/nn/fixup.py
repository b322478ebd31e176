"""Residual networks without normalisation, whose weights start at a scale that keeps them trainable."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from genfast._native.checks import wide
from genfast.nn.bias_act import BiasAct
from genfast.nn.resampling import Downsample2d, Upsample2d

SLOPE = 0.2
# Of a leaky ReLU: weights of variance GAIN^2 / fan-in keep the variance of what goes through them.
GAIN = math.sqrt(2 / (1 + SLOPE**2))


class FixupBlock(nn.Module):
    """`x + 1x1(act(grouped 3x3(act(1x1(x)))))`: an inverted bottleneck with biased leaky ReLUs.

    The last convolution starts at zero, the others at GAIN depth^(-1/4): `depth` such branches of three convolutions
    together then change by as much in an update as one would.

    Args:
        features: F.
        expansion: the branch has F * expansion features.
        group: features of a group of the 3x3 convolution; the branch has one group if it is no multiple.
        depth: blocks of the network.
    Shape: [B, F, H, W] -> [B, F, H, W], channels last in memory.
    Paper: The GAN is dead; long live the GAN!, sections 3.2 and 3.3, arXiv 2501.05441; Fixup Initialization,
        arXiv 1901.09321.
    Example: `FixupBlock(32)(torch.randn(2, 32, 7, 7))`
    """

    def __init__(self, features, expansion=2, group=16, depth=1):
        super().__init__()
        inside = features * expansion
        groups = inside // group if inside % group == 0 else 1
        scale = GAIN * depth**-0.25
        self.expand = scaled(nn.Conv2d(features, inside, 1, bias=False), scale)
        self.spatial = scaled(nn.Conv2d(inside, inside, 3, padding=1, groups=groups, bias=False), scale)
        self.reduce = scaled(nn.Conv2d(inside, features, 1, bias=False), 0.0)
        self.first, self.second = (BiasAct(inside, "leaky_relu", slope=SLOPE) for _ in range(2))

    def forward(self, x):
        return x + self.reduce(self.second(self.spatial(self.first(self.expand(x)))))

    def extra_repr(self):
        return f"{self.expand.in_channels}"


class FixupGenerator(nn.Module):
    """Vectors to images: a learnt feature map scaled by a dense layer, then stages of blocks and bilinear doubling.

    Args:
        inputs: size of the vectors.
        channels, height, width: of the images; the sizes are multiples of patch * 2**stages.
        features: F at the finest resolution of features, twice as many at each coarser one.
        stages: doublings of the resolution, at least 0.
        blocks: `FixupBlock`s at each resolution.
        expansion, group: of the blocks.
        patch: side of the squares of pixels that the last convolution writes at once: 1 in the paper.
        classes: labels, 0 for none: each one's vector is given to the dense layer beside z.
    Shape: z [B, inputs], labels int64 [B] or None -> [B, channels, H, W].
    Paper: The GAN is dead; long live the GAN!, figure 4 and appendix, arXiv 2501.05441.
    Example: `FixupGenerator(64, 1, 28, 28)(torch.randn(4, 64))`
    """

    def __init__(
        self, inputs, channels, height, width, features=32, stages=2, blocks=1, expansion=2, group=16, patch=1,
        classes=0,
    ):  # fmt: skip
        super().__init__()
        self.patch = patch
        small = height // (patch << stages), width // (patch << stages)
        sizes = [features * 2 ** (stages - stage) for stage in range(stages + 1)]
        self.basis = nn.Parameter(torch.randn(sizes[0], *small))
        self.label = nn.Embedding(classes, inputs) if classes else None
        self.input = scaled(nn.Linear(inputs * (2 if classes else 1), sizes[0], bias=False), 1.0)
        depth = blocks * len(sizes)
        self.stages = nn.ModuleList(
            nn.Sequential(*(FixupBlock(size, expansion, group, depth) for _ in range(blocks))) for size in sizes
        )
        self.mix = nn.ModuleList(scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in zip(sizes, sizes[1:]))
        self.up = Upsample2d()
        self.output = scaled(nn.Conv2d(sizes[-1], channels * patch**2, 1), 1.0)

    def forward(self, z, labels=None):
        if self.label is not None:
            z = torch.cat((z, self.label(labels).to(z.dtype)), 1)
        h = self.input(z)[:, :, None, None] * self.basis
        h = self.stages[0](h.contiguous(memory_format=torch.channels_last))
        for mix, blocks in zip(self.mix, self.stages[1:], strict=True):
            h = blocks(self.up(mix(h)))
        return F.pixel_shuffle(self.output(h), self.patch)

    def extra_repr(self):
        return f"basis={tuple(self.basis.shape)}, patch={self.patch}"


class FixupDiscriminator(nn.Module):
    """Images to logits: stages of blocks and bilinear halving, a weight for each value of the last map, a dense layer.

    Args: as of `FixupGenerator`, whose mirror it is; with classes the dense layer gives a vector of `inputs` values,
        and the logit is its inner product with the label's own.
    Shape: x [B, channels, H, W], labels int64 [B] or None -> [B], float32 or wider.
    Paper: The GAN is dead; long live the GAN!, figure 4 and appendix, arXiv 2501.05441.
    Example: `FixupDiscriminator(64, 1, 28, 28)(torch.randn(4, 1, 28, 28))`
    """

    def __init__(
        self, inputs, channels, height, width, features=32, stages=2, blocks=1, expansion=2, group=16, patch=1,
        classes=0,
    ):  # fmt: skip
        super().__init__()
        small = height // (patch << stages), width // (patch << stages)
        sizes = [features * 2**stage for stage in range(stages + 1)]
        self.input = scaled(nn.Conv2d(channels, sizes[0], patch, stride=patch), 1.0)
        depth = blocks * len(sizes)
        self.stages = nn.ModuleList(
            nn.Sequential(*(FixupBlock(size, expansion, group, depth) for _ in range(blocks))) for size in sizes
        )
        self.mix = nn.ModuleList(scaled(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in zip(sizes, sizes[1:]))
        self.down = Downsample2d()
        self.gather = nn.Parameter(torch.randn(sizes[-1], *small) / math.sqrt(small[0] * small[1]))
        self.output = scaled(nn.Linear(sizes[-1], inputs if classes else 1, bias=False), 1.0)
        self.label = nn.Embedding(classes, inputs) if classes else None

    def forward(self, x, labels=None):
        h = self.stages[0](self.input(x.contiguous(memory_format=torch.channels_last)))
        for mix, blocks in zip(self.mix, self.stages[1:], strict=True):
            h = blocks(mix(self.down(h)))
        y = self.output((h * self.gather).sum((2, 3)))
        y = y.to(wide(y.dtype))
        if self.label is None:
            return y[:, 0]
        return (y * self.label(labels)).sum(1) / math.sqrt(y.shape[1])

    def extra_repr(self):
        return f"gather={tuple(self.gather.shape)}"


@torch.no_grad()
def scaled(layer, gain):
    """The layer, its weights N(0, gain^2 / fan-in), its bias zero."""
    fan_in = layer.weight[0].numel()
    layer.weight.normal_(0, gain / math.sqrt(fan_in)) if gain else layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    return layer
