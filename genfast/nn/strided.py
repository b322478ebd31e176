"""Generators and discriminators of strided convolutions."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._native.layout import channels_last
from genfast.nn.class_batch_norm import ClassBatchNorm2d
from genfast.nn.virtual_batch_norm import VirtualBatchNorm2d


class StridedGenerator(nn.Module):
    """Generates images in (-1, 1) from vectors: a dense layer, then 4x4 transposed convolutions with batch norms.

    Args:
        inputs: size of the vectors.
        channels, height, width: size of the images; height and width are multiples of 2**stages.
        features: F of the last feature map; each earlier one has twice as many.
        stages: number of transposed convolutions, each of stride 2, at least 1.
        layers: number of 3x3 convolutions, each with its norm, before every transposed convolution.
        classes: number of labels; 0: unconditional. The batch norms are conditional on the label. A norm cannot encode
            position, so each label also has a bias on the first feature map.
        virtual: whether to use virtual batch norms. The generator must then be wrapped in a `ReferenceBatch`, and must
            be unconditional.
    Shape: z [B, inputs], labels int64 [B] -> [B, channels, H, W].
    Paper: Unsupervised Representation Learning with DCGANs, section 3, arXiv 1511.06434; weights N(0, 0.02^2).
    Example: `StridedGenerator(64, 1, 28, 28)(torch.randn(4, 64))`
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        height: int,
        width: int,
        features: int = 64,
        stages: int = 2,
        layers: int = 0,
        classes: int = 0,
        virtual: bool = False,
    ) -> None:
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
            outputs = channels if last else size // 2
            self.convolutions.append(nn.ConvTranspose2d(size, outputs, 4, stride=2, padding=1, bias=last))
            if not last:
                self.norms.append(norm(outputs))
        normal_weights(self)
        if self.label is not None:
            # The standard deviation that z gives the first feature map.
            nn.init.normal_(self.label.weight, std=0.02 * inputs**0.5)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.input(z)
        if self.label is not None:
            h = h + self.label(labels).to(h.dtype)
        h = channels_last(h.unflatten(1, self.small))
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(F.relu(norm(h) if labels is None else norm(h, labels)))
        return h.tanh()

    def extra_repr(self) -> str:
        return f"{self.input.in_features}, small={self.small}"


class StridedTrunk(nn.Module):
    """Maps images to feature vectors: 4x4 convolutions of stride 2 with leaky ReLUs, the mirror of `StridedGenerator`.

    Args:
        channels, height, width: size of the images; height and width are multiples of 2**stages.
        features: F of the first feature map; each later one has twice as many.
        stages: number of convolutions of stride 2, at least 1.
        layers: number of 3x3 convolutions after every convolution of stride 2.
        batch_norm: whether a batch norm precedes every leaky ReLU except the first, as in the paper.
        slope: slope of the leaky ReLUs for negative values.
    Shape: x [B, channels, H, W] -> [B, `outputs`].
    Paper: Unsupervised Representation Learning with DCGANs, section 3, arXiv 1511.06434.
    Example: `StridedTrunk(1, 28, 28)(torch.randn(4, 1, 28, 28))`
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        features: int = 64,
        stages: int = 2,
        layers: int = 0,
        batch_norm: bool = False,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.slope, self.convolutions, self.norms = slope, nn.ModuleList(), nn.ModuleList()
        size = channels
        for stage in range(stages):
            outputs = features * 2**stage
            self.convolutions.append(nn.Conv2d(size, outputs, 4, stride=2, padding=1))
            self.convolutions.extend(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in range(layers))
            self.norms.extend(
                ClassBatchNorm2d(outputs) if batch_norm and (stage or place) else nn.Identity()
                for place in range(layers + 1)
            )
            size = outputs
        self.outputs = size * (height >> stages) * (width >> stages)
        normal_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        h = channels_last(x)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = F.leaky_relu(norm(convolution(h)), self.slope)
        return h.flatten(1)

    def extra_repr(self) -> str:
        return f"outputs={self.outputs}"


def normal_weights(network: nn.Module, deviation: float = 0.02) -> None:
    """Initialise the weights of convolutions and dense layers by N(0, deviation^2), the biases by zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
