"""Residual generators and discriminators whose blocks double or halve the resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast.nn.class_batch_norm import ClassBatchNorm2d


class UpResidualBlock(nn.Module):
    """Doubles the resolution: `conv1x1(up(x)) + conv3x3(relu(norm(conv3x3(up(relu(norm(x)))))))`.

    Args:
        inputs, outputs: features of the input and of the output.
        classes: number of labels that the batch norms are conditional on; 0: unconditional.
    Shape: x [B, inputs, H, W], labels int64 [B] or None -> [B, outputs, 2 H, 2 W].
    Paper: Spectral Normalization for GANs, figure 8, arXiv 1802.05957.
    Example: `UpResidualBlock(16, 8)(torch.randn(2, 16, 7, 7))`
    """

    def __init__(self, inputs: int, outputs: int, classes: int = 0) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ClassBatchNorm2d(inputs, classes), ClassBatchNorm2d(outputs, classes)])
        self.input = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.output = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        y = self.input(_doubled(F.relu(self.norms[0](x, labels))))
        # A 1x1 convolution commutes with nearest-neighbour upsampling; before it, it costs a quarter.
        return _doubled(self.skip(x)) + self.output(F.relu(self.norms[1](y, labels)))

    def extra_repr(self) -> str:
        return f"{self.skip.in_channels}, {self.skip.out_channels}"


class DownResidualBlock(nn.Module):
    """Halves the resolution: `conv1x1(pool(x)) + pool(conv3x3(relu(conv3x3(relu(x)))))` with 2x2 average pooling.

    Args:
        inputs, outputs: features of the input and of the output.
        first: whether x is an image; the first ReLU is then left out.
        down: whether to halve the resolution.
    Shape: [B, inputs, H, W] -> [B, outputs, H / 2, W / 2], or [B, outputs, H, W] without `down`.
    Paper: Spectral Normalization for GANs, figure 8, arXiv 1802.05957.
    Example: `DownResidualBlock(1, 16, first=True)(torch.randn(2, 1, 28, 28))`
    """

    def __init__(self, inputs: int, outputs: int, first: bool = False, down: bool = True) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.input = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.output = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.output(F.relu(self.input(x if self.first else F.relu(x))))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return self.skip(x) + y

    def extra_repr(self) -> str:
        return f"{self.input.in_channels}, {self.input.out_channels}, first={self.first}, down={self.down}"


class ResidualGenerator(nn.Module):
    """Generates images in (-1, 1) from vectors: a dense layer, `UpResidualBlock`s, norm, ReLU and a 3x3 convolution.

    Args:
        inputs: size of the vectors.
        channels, height, width: size of the images; height and width are multiples of 2**stages.
        features: F of all feature maps.
        stages: number of blocks, at least 1.
        classes: number of labels: the batch norms of the blocks are conditional on them, and each has a bias on the
            first feature map. 0: unconditional.
    Shape: z [B, inputs], labels int64 [B] or None -> [B, channels, H, W].
    Paper: Spectral Normalization for GANs, table 4, arXiv 1802.05957.
    Example: `ResidualGenerator(64, 1, 28, 28)(torch.randn(4, 64))`
    """

    def __init__(
        self, inputs: int, channels: int, height: int, width: int, features: int = 64, stages: int = 2, classes: int = 0
    ) -> None:
        super().__init__()
        self.small = features, height >> stages, width >> stages
        self.input = nn.Linear(inputs, features * self.small[1] * self.small[2])
        self.label = nn.Embedding(classes, self.input.out_features) if classes else None
        self.blocks = nn.ModuleList(UpResidualBlock(features, features, classes) for _ in range(stages))
        self.norm = ClassBatchNorm2d(features)
        self.output = nn.Conv2d(features, channels, 3, padding=1)
        xavier_weights(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.input(z)
        if self.label is not None:
            h = h + self.label(labels).to(h.dtype)
        h = h.unflatten(1, self.small).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, labels)
        return self.output(F.relu(self.norm(h))).tanh()

    def extra_repr(self) -> str:
        return f"{self.input.in_features}, small={self.small}"


class ResidualTrunk(nn.Module):
    """Maps images to feature vectors: `DownResidualBlock`s (the last keeps the resolution), ReLU, sum over pixels.

    Args:
        channels: channels of the images.
        features: F of all feature maps.
        stages: number of blocks that halve the resolution, at least 1.
    Shape: x [B, channels, H, W] -> [B, F].
    Paper: Spectral Normalization for GANs, table 4, arXiv 1802.05957.
    Example: `ResidualTrunk(1)(torch.randn(4, 1, 28, 28))`
    """

    def __init__(self, channels: int, features: int = 64, stages: int = 2) -> None:
        super().__init__()
        blocks = [DownResidualBlock(channels, features, first=True)]
        blocks += [DownResidualBlock(features, features) for _ in range(stages - 1)]
        self.blocks = nn.Sequential(*blocks, DownResidualBlock(features, features, down=False))
        self.outputs = features
        xavier_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.blocks(x.contiguous(memory_format=torch.channels_last))).sum((2, 3))

    def extra_repr(self) -> str:
        return f"outputs={self.outputs}"


def xavier_weights(network: nn.Module) -> None:
    """Initialise weights by Glorot and Bengio's uniform scheme, those of 3x3 convolutions with gain sqrt(2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = 2**0.5 if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) else 1.0
            nn.init.xavier_uniform_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
