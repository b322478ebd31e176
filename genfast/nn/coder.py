"""Encoders of images into vectors, and decoders of vectors into images, of any height and width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._native.layout import channels_last


class PlainResidualBlock(nn.Module):
    """`x + conv(relu(conv(relu(x))))` with two unmasked 3x3 convolutions; the second is initialised to zero.

    Args:
        features: F.
        dropout: probability that a feature map of the residual branch is dropped in training.
    Shape: [B, F, H, W] -> [B, F, H, W], channels last in memory.
    Paper: Identity Mappings in Deep Residual Networks, figure 1b, arXiv 1603.05027.
    Example: `PlainResidualBlock(32)(torch.randn(2, 32, 14, 14))`
    """

    def __init__(self, features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features, self.dropout = features, dropout
        self.input = nn.Conv2d(features, features, 3, padding=1)
        self.output = nn.Conv2d(features, features, 3, padding=1)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        y = self.output(F.relu(self.input(F.relu(x))))
        return x + F.dropout2d(y, self.dropout, self.training)

    def extra_repr(self) -> str:
        return f"{self.features}, dropout={self.dropout}"


class ConvEncoder(nn.Module):
    """Encodes images as vectors: a 5x5 and a 3x3 convolution of stride 2, each followed by residual blocks.

    Args:
        channels, height, width: size of the images.
        outputs: size of the vectors; the last layer has small initial weights, so that a posterior starts near N(0, I).
        features: F at half the resolution, 2F at a quarter.
        blocks: residual blocks at each of the two resolutions.
        dropout: dropout of the residual blocks; see `PlainResidualBlock`.
        classes: number of labels, each with a bias on the first features; 0: unconditional.
    Shape: x [B, C, H, W], labels int64 [B] -> [B, outputs].
    Paper: Auto-Encoding Variational Bayes, section 3, arXiv 1312.6114; residual blocks: arXiv 1603.05027.
    Example: `ConvEncoder(1, 28, 28, 64)(torch.randn(2, 1, 28, 28))`
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        outputs: int,
        features: int = 32,
        blocks: int = 1,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.input = nn.Conv2d(channels, features, 5, stride=2, padding=2)
        self.fine = nn.Sequential(*(PlainResidualBlock(features, dropout) for _ in range(blocks)))
        self.down = nn.Conv2d(features, 2 * features, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*(PlainResidualBlock(2 * features, dropout) for _ in range(blocks)))
        self.output = nn.Linear(2 * features * (-(-height // 4)) * (-(-width // 4)), outputs)
        self.label = _label_bias(classes, features)
        nn.init.normal_(self.output.weight, std=0.01)
        nn.init.zeros_(self.output.bias)

    @property
    def weight(self) -> Tensor:
        """The weight of the first convolution, for initialisers that go by the name of a class."""
        return self.input.weight

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.input(channels_last(x))
        if self.label is not None:
            h = h + self.label(labels)[:, :, None, None]
        h = self.coarse(self.down(F.relu(self.fine(h))))
        return self.output(F.relu(h).flatten(1))

    def extra_repr(self) -> str:
        return f"{self.input.in_channels}, outputs={self.output.out_features}"


class ConvDecoder(nn.Module):
    """Decodes vectors into images: residual blocks and sub-pixel convolution, at a quarter and at half the resolution.

    Args:
        inputs: size of the vectors.
        channels, height, width: size of the output; the last layer is initialised to zero.
        features: F at half the resolution, 2F at a quarter.
        blocks: residual blocks at each of the two resolutions.
        dropout: dropout of the residual blocks; see `PlainResidualBlock`.
        classes: number of labels, each with a bias on the first features; 0: unconditional.
    Shape: z [B, inputs], labels int64 [B] -> [B, channels, H, W].
    Paper: Real-Time Single Image and Video Super-Resolution (sub-pixel convolution), arXiv 1609.05158.
    Example: `ConvDecoder(32, 1, 28, 28)(torch.randn(2, 32))`
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        height: int,
        width: int,
        features: int = 32,
        blocks: int = 1,
        dropout: float = 0.0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.size = height, width
        self.small = 2 * features, -(-height // 4), -(-width // 4)
        self.input = nn.Linear(inputs, self.small[0] * self.small[1] * self.small[2])
        self.coarse = nn.Sequential(*(PlainResidualBlock(2 * features, dropout) for _ in range(blocks)))
        self.up = nn.Conv2d(2 * features, 4 * features, 1)
        self.fine = nn.Sequential(*(PlainResidualBlock(features, dropout) for _ in range(blocks)))
        self.output = nn.Conv2d(features, 4 * channels, 3, padding=1)
        self.label = _label_bias(classes, self.small[0])
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    @property
    def weight(self) -> Tensor:
        """The weight of the last convolution, for initialisers that go by the name of a class."""
        return self.output.weight

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.input(z).unflatten(1, self.small)
        if self.label is not None:
            h = h + self.label(labels)[:, :, None, None]
        h = F.pixel_shuffle(self.up(F.relu(self.coarse(channels_last(h)))), 2)
        y = F.pixel_shuffle(self.output(F.relu(self.fine(channels_last(h)))), 2)
        return y[:, :, : self.size[0], : self.size[1]]

    def extra_repr(self) -> str:
        return f"{self.input.in_features}, channels={self.output.out_channels // 4}, size={self.size}"


class DenseCoder(nn.Module):
    """A multilayer perceptron with residual hidden layers `h + relu(linear(dropout(h)))`.

    It serves as an encoder of flattened images and as a decoder.

    Args:
        inputs, outputs: sizes of the input and output vectors.
        hidden: units of each hidden layer.
        layers: number of hidden layers, at least 1; all but the first are residual.
        dropout: probability that a hidden unit is dropped in training.
        classes: number of labels, each with a bias on the first hidden layer; 0: unconditional.
    Shape: x [B, inputs], labels int64 [B] -> [B, outputs].
    Paper: Auto-Encoding Variational Bayes, appendix C, arXiv 1312.6114.
    Example: `DenseCoder(784, 64, hidden=500)(torch.randn(2, 784))`
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: int = 500, layers: int = 2, dropout: float = 0.0, classes: int = 0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.input = nn.Linear(inputs, hidden)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.output = nn.Linear(hidden, outputs)
        self.label = _label_bias(classes, hidden)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.input(x)
        if self.label is not None:
            h = h + self.label(labels)
        h = F.relu(h)
        for layer in self.layers:
            h = h + F.relu(layer(F.dropout(h, self.dropout, self.training)))
        return self.output(F.dropout(h, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"{self.input.in_features}, {self.output.out_features}, dropout={self.dropout}"


def _label_bias(classes: int, features: int) -> nn.Embedding | None:
    if not classes:
        return None
    bias = nn.Embedding(classes, features)
    nn.init.zeros_(bias.weight)
    return bias
