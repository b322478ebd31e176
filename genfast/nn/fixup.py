"""Residual networks without normalisation layers, by Fixup initialisation."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._native.checks import wide
from genfast.nn.bias_act import BiasAct
from genfast.nn.resampling import Downsample2d, Upsample2d

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

SLOPE = 0.2
# Weights of variance GAIN^2 / fan-in preserve the variance through a leaky ReLU.
GAIN = math.sqrt(2 / (1 + SLOPE**2))


class FixupBlock(nn.Module):
    """`x + 1x1(act(grouped 3x3(act(1x1(x)))))`: an inverted bottleneck with biased leaky ReLUs.

    The last convolution is initialised to zero, the others with gain GAIN depth^(-1/4). An update then changes a
    network of `depth` such branches by as much as a network of one.

    Args:
        features: F.
        expansion: the branch has F * expansion features.
        group: features in a group of the 3x3 convolution; one group if F * expansion is not a multiple.
        depth: number of blocks of the network.
    Shape: [B, F, H, W] -> [B, F, H, W], channels last in memory.
    Paper: The GAN is dead; long live the GAN!, sections 3.2 and 3.3, arXiv 2501.05441; Fixup Initialization,
        arXiv 1901.09321.
    Example: `FixupBlock(32)(torch.randn(2, 32, 7, 7))`
    """

    def __init__(self, features: int, expansion: int = 2, group: int = 16, depth: int = 1) -> None:
        super().__init__()
        inside = features * expansion
        groups = inside // group if inside % group == 0 else 1
        scale = GAIN * depth**-0.25
        self.expand = initialised(nn.Conv2d(features, inside, 1, bias=False), scale)
        self.spatial = initialised(nn.Conv2d(inside, inside, 3, padding=1, groups=groups, bias=False), scale)
        self.reduce = initialised(nn.Conv2d(inside, features, 1, bias=False), 0.0)
        self.first, self.second = (BiasAct(inside, "leaky_relu", slope=SLOPE) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(self.second(self.spatial(self.first(self.expand(x)))))

    def extra_repr(self) -> str:
        return f"{self.expand.in_channels}"


class FixupGenerator(nn.Module):
    """Generates images from vectors: a learned feature map scaled by a dense layer, then `FixupBlock`s and upsampling.

    Args:
        inputs: size of the vectors.
        channels, height, width: size of the images; height and width are multiples of patch * 2**stages.
        features: F at the finest resolution, doubled at each coarser resolution.
        stages: number of upsamplings by 2, at least 0.
        blocks: `FixupBlock`s at each resolution.
        expansion, group: arguments of the blocks.
        patch: each output of the last convolution is a square of patch x patch pixels; 1 in the paper.
        classes: number of labels; the embedding of the label is concatenated to z. 0: unconditional.
    Shape: z [B, inputs], labels int64 [B] or None -> [B, channels, H, W].
    Paper: The GAN is dead; long live the GAN!, figure 4 and appendix, arXiv 2501.05441.
    Example: `FixupGenerator(64, 1, 28, 28)(torch.randn(4, 64))`
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        height: int,
        width: int,
        features: int = 32,
        stages: int = 2,
        blocks: int = 1,
        expansion: int = 2,
        group: int = 16,
        patch: int = 1,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.patch = patch
        small = height // (patch << stages), width // (patch << stages)
        sizes = [features * 2 ** (stages - stage) for stage in range(stages + 1)]
        self.basis = nn.Parameter(torch.randn(sizes[0], *small))
        self.label = nn.Embedding(classes, inputs) if classes else None
        self.input = initialised(nn.Linear(inputs * (2 if classes else 1), sizes[0], bias=False), 1.0)
        depth = blocks * len(sizes)
        self.stages = nn.ModuleList(
            nn.Sequential(*(FixupBlock(size, expansion, group, depth) for _ in range(blocks))) for size in sizes
        )
        self.mix = nn.ModuleList(initialised(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in zip(sizes, sizes[1:]))
        self.up = Upsample2d()
        self.output = initialised(nn.Conv2d(sizes[-1], channels * patch**2, 1), 1.0)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.label is not None:
            z = torch.cat((z, self.label(labels).to(z.dtype)), 1)
        h = self.input(z)[:, :, None, None] * self.basis
        h = self.stages[0](h.contiguous(memory_format=torch.channels_last))
        for mix, blocks in zip(self.mix, self.stages[1:], strict=True):
            h = blocks(self.up(mix(h)))
        return F.pixel_shuffle(self.output(h), self.patch)

    def extra_repr(self) -> str:
        return f"basis={tuple(self.basis.shape)}, patch={self.patch}"


class FixupDiscriminator(nn.Module):
    """A discriminator: `FixupBlock`s and downsampling, a learned weighted sum over the pixels, a dense layer.

    Args: as `FixupGenerator`, whose mirror it is. With classes the dense layer has `inputs` outputs, and the logit is
        their inner product with the embedding of the label.
    Shape: x [B, channels, H, W], labels int64 [B] or None -> [B], float32 or wider.
    Paper: The GAN is dead; long live the GAN!, figure 4 and appendix, arXiv 2501.05441.
    Example: `FixupDiscriminator(64, 1, 28, 28)(torch.randn(4, 1, 28, 28))`
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        height: int,
        width: int,
        features: int = 32,
        stages: int = 2,
        blocks: int = 1,
        expansion: int = 2,
        group: int = 16,
        patch: int = 1,
        classes: int = 0,
    ) -> None:
        super().__init__()
        small = height // (patch << stages), width // (patch << stages)
        sizes = [features * 2**stage for stage in range(stages + 1)]
        self.input = initialised(nn.Conv2d(channels, sizes[0], patch, stride=patch), 1.0)
        depth = blocks * len(sizes)
        self.stages = nn.ModuleList(
            nn.Sequential(*(FixupBlock(size, expansion, group, depth) for _ in range(blocks))) for size in sizes
        )
        self.mix = nn.ModuleList(initialised(nn.Conv2d(a, b, 1, bias=False), 1.0) for a, b in zip(sizes, sizes[1:]))
        self.down = Downsample2d()
        self.gather = nn.Parameter(torch.randn(sizes[-1], *small) / math.sqrt(small[0] * small[1]))
        self.output = initialised(nn.Linear(sizes[-1], inputs if classes else 1, bias=False), 1.0)
        self.label = nn.Embedding(classes, inputs) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.stages[0](self.input(x.contiguous(memory_format=torch.channels_last)))
        for mix, blocks in zip(self.mix, self.stages[1:], strict=True):
            h = blocks(mix(self.down(h)))
        y = self.output((h * self.gather).sum((2, 3)))
        y = y.to(wide(y.dtype))
        if self.label is None:
            return y[:, 0]
        return (y * self.label(labels)).sum(1) / math.sqrt(y.shape[1])

    def extra_repr(self) -> str:
        return f"gather={tuple(self.gather.shape)}"


@torch.no_grad()
def initialised(layer: Layer, gain: float) -> Layer:
    """The layer with weights N(0, gain^2 / fan-in) and a bias of zero."""
    fan_in = layer.weight[0].numel()
    layer.weight.normal_(0, gain / math.sqrt(fan_in)) if gain else layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    return layer
