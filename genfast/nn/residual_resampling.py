"""Residual generators and discriminators that halve or double the resolution within their blocks."""

import torch
from torch import nn
from torch.nn import functional as F

from genfast.nn.class_batch_norm import ClassBatchNorm2d


class UpResidualBlock(nn.Module):
    """`up(x)` through a 1x1 convolution, plus norm, ReLU, up, 3x3, norm, ReLU, 3x3: twice the resolution.

    Args:
        inputs, outputs: features.
        classes: labels that the batch norms are conditional on, 0 for none.
    Shape: x [B, inputs, H, W], labels int64 [B] or None -> [B, outputs, 2 H, 2 W].
    Paper: Spectral Normalization for GANs, figure 8, arXiv 1802.05957.
    Example: `UpResidualBlock(16, 8)(torch.randn(2, 16, 7, 7))`
    """

    def __init__(self, inputs, outputs, classes=0):
        super().__init__()
        self.norms = nn.ModuleList([ClassBatchNorm2d(inputs, classes), ClassBatchNorm2d(outputs, classes)])
        self.input = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.output = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x, labels=None):
        y = self.input(_doubled(F.relu(self.norms[0](x, labels))))
        # The 1x1 convolution and the copying of pixels commute: at a quarter of the cost before it.
        return _doubled(self.skip(x)) + self.output(F.relu(self.norms[1](y, labels)))

    def extra_repr(self):
        return f"{self.skip.in_channels}, {self.skip.out_channels}"


class DownResidualBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, averages of 2x2 pixels, plus the averages through a 1x1 convolution: half the resolution.

    Args:
        inputs, outputs: features.
        first: whether x is an image, which no ReLU comes before.
        down: whether the resolution is halved.
    Shape: [B, inputs, H, W] -> [B, outputs, H / 2, W / 2], or [B, outputs, H, W] without `down`.
    Paper: Spectral Normalization for GANs, figure 8, arXiv 1802.05957.
    Example: `DownResidualBlock(1, 16, first=True)(torch.randn(2, 1, 28, 28))`
    """

    def __init__(self, inputs, outputs, first=False, down=True):
        super().__init__()
        self.first, self.down = first, down
        self.input = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.output = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else nn.Identity()

    def forward(self, x):
        y = self.output(F.relu(self.input(x if self.first else F.relu(x))))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return self.skip(x) + y

    def extra_repr(self):
        return f"{self.input.in_channels}, {self.input.out_channels}, first={self.first}, down={self.down}"


class ResidualGenerator(nn.Module):
    """Vectors to images in (-1, 1): a dense layer, `UpResidualBlock`s, norm, ReLU and a 3x3 convolution.

    Args:
        inputs: size of the vectors.
        channels, height, width: of the images; the sizes are multiples of 2**stages.
        features: F of all feature maps.
        stages: blocks, at least 1.
        classes: labels, 0 for none: the batch norms are conditional on them, and each has a bias of the first map.
    Shape: z [B, inputs], labels int64 [B] or None -> [B, channels, H, W].
    Paper: Spectral Normalization for GANs, table 4, arXiv 1802.05957.
    Example: `ResidualGenerator(64, 1, 28, 28)(torch.randn(4, 64))`
    """

    def __init__(self, inputs, channels, height, width, features=64, stages=2, classes=0):
        super().__init__()
        self.small = features, height >> stages, width >> stages
        self.input = nn.Linear(inputs, features * self.small[1] * self.small[2])
        self.label = nn.Embedding(classes, self.input.out_features) if classes else None
        self.blocks = nn.ModuleList(UpResidualBlock(features, features, classes) for _ in range(stages))
        self.norm = ClassBatchNorm2d(features)
        self.output = nn.Conv2d(features, channels, 3, padding=1)
        xavier_weights(self)

    def forward(self, z, labels=None):
        h = self.input(z)
        if self.label is not None:
            h = h + self.label(labels).to(h.dtype)
        h = h.unflatten(1, self.small).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, labels)
        return self.output(F.relu(self.norm(h))).tanh()

    def extra_repr(self):
        return f"{self.input.in_features}, small={self.small}"


class ResidualTrunk(nn.Module):
    """Images to feature vectors: `DownResidualBlock`s, one more at the last resolution, ReLU, sums over the pixels.

    Args:
        channels: of the images.
        features: F of all feature maps.
        stages: blocks that halve the resolution, at least 1.
    Shape: x [B, channels, H, W] -> [B, F].
    Paper: Spectral Normalization for GANs, table 4, arXiv 1802.05957.
    Example: `ResidualTrunk(1)(torch.randn(4, 1, 28, 28))`
    """

    def __init__(self, channels, features=64, stages=2):
        super().__init__()
        blocks = [DownResidualBlock(channels, features, first=True)]
        blocks += [DownResidualBlock(features, features) for _ in range(stages - 1)]
        self.blocks = nn.Sequential(*blocks, DownResidualBlock(features, features, down=False))
        self.outputs = features
        xavier_weights(self)

    def forward(self, x):
        return F.relu(self.blocks(x.contiguous(memory_format=torch.channels_last))).sum((2, 3))

    def extra_repr(self):
        return f"outputs={self.outputs}"


def xavier_weights(network):
    """Weights uniform after Glorot and Bengio, those of 3x3 convolutions in the branches times the root of 2."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = 2**0.5 if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) else 1.0
            nn.init.xavier_uniform_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _doubled(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")
