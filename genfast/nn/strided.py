"""Generators and discriminators of strided convolutions."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from genfast.nn.class_batch_norm import ClassBatchNorm2d
from genfast.nn.virtual_batch_norm import VirtualBatchNorm2d


class StridedGenerator(nn.Module):
    """Vectors to images in (-1, 1): a dense layer, then transposed 4x4 convolutions of stride 2 between batch norms.

    Args:
        inputs: size of the vectors.
        channels, height, width: of the images; the sizes are multiples of 2**stages.
        features: F of the last feature map; each one before has twice as many.
        stages: transposed convolutions, at least 1.
        layers: 3x3 convolutions, each with its norm, before every transposed one.
        classes: labels, 0 for none. The batch norms are conditional on them; that alone would say nothing of where, so
            that each label also has a bias of the first feature map.
        virtual: virtual batch norms instead: a `ReferenceBatch` goes around the generator; without labels.
    Shape: z [B, inputs], labels int64 [B] -> [B, channels, H, W].
    Paper: Unsupervised Representation Learning with DCGANs, section 3, arXiv 1511.06434; weights N(0, 0.02^2).
    Example: `StridedGenerator(64, 1, 28, 28)(torch.randn(4, 64))`
    """

    def __init__(self, inputs, channels, height, width, features=64, stages=2, layers=0, classes=0, virtual=False):
        super().__init__()
        step, first = 2**stages, features * 2 ** (stages - 1)
        norm = VirtualBatchNorm2d if virtual else partial(ClassBatchNorm2d, classes=classes)
        self.small = first, height // step, width // step
        self.input = nn.Linear(inputs, first * self.small[1] * self.small[2], bias=False)
        self.label = nn.Embedding(classes, self.input.out_features) if classes else None
        self.norms, self.convolutions = nn.ModuleList([norm(first)]), nn.ModuleList()
        for stage in range(stages):
            size = first // 2**stage
            for _ in range(layers):
                self.convolutions.append(nn.Conv2d(size, size, 3, padding=1, bias=False))
                self.norms.append(norm(size))
            last = stage == stages - 1
            made = channels if last else size // 2
            self.convolutions.append(nn.ConvTranspose2d(size, made, 4, stride=2, padding=1, bias=last))
            if not last:
                self.norms.append(norm(made))
        normal_weights(self)
        if classes:
            nn.init.normal_(self.label.weight, std=0.02 * inputs**0.5)  # as much as z makes

    def forward(self, z, labels=None):
        h = self.input(z)
        if self.label is not None:
            h = h + self.label(labels).to(h.dtype)
        h = channels_last(h.unflatten(1, self.small))
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(F.relu(norm(h) if labels is None else norm(h, labels)))
        return h.tanh()

    def extra_repr(self):
        return f"{self.input.in_features}, small={self.small}"


class StridedTrunk(nn.Module):
    """Images to feature vectors: 4x4 convolutions of stride 2 with leaky ReLUs, the mirror of `StridedGenerator`.

    Args:
        channels, height, width: of the images; the sizes are multiples of 2**stages.
        features: of the first feature map; each one after has twice as many.
        stages: convolutions of stride 2, at least 1.
        layers: 3x3 convolutions after every one of them.
        batch_norm: whether batch norms come before all leaky ReLUs but the first, as in the paper.
        slope: of the leaky ReLUs.
    Shape: x [B, channels, H, W] -> [B, `outputs`].
    Paper: Unsupervised Representation Learning with DCGANs, section 3, arXiv 1511.06434.
    Example: `StridedTrunk(1, 28, 28)(torch.randn(4, 1, 28, 28))`
    """

    def __init__(self, channels, height, width, features=64, stages=2, layers=0, batch_norm=False, slope=0.2):
        super().__init__()
        self.slope, self.convolutions, self.norms = slope, nn.ModuleList(), nn.ModuleList()
        size = channels
        for stage in range(stages):
            made = features * 2**stage
            self.convolutions.append(nn.Conv2d(size, made, 4, stride=2, padding=1))
            self.convolutions.extend(nn.Conv2d(made, made, 3, padding=1) for _ in range(layers))
            self.norms.extend(
                nn.BatchNorm2d(made) if batch_norm and (stage or place) else nn.Identity()
                for place in range(layers + 1)
            )
            size = made
        self.outputs = size * (height >> stages) * (width >> stages)
        normal_weights(self)

    def forward(self, x):
        h = channels_last(x)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = F.leaky_relu(norm(convolution(h)), self.slope)
        return h.flatten(1)

    def extra_repr(self):
        return f"outputs={self.outputs}"


def normal_weights(network, deviation=0.02):
    """Weights of convolutions and dense layers N(0, deviation^2), biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)
