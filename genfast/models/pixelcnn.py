"""PixelCNN: an autoregressive model of masked convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.nn import MaskedConv2d, ResidualConvBlock


@dataclass
class PixelCNNConfig(AutoregressiveConfig):
    """Settings of a `PixelCNN`."""

    hidden: int = option(
        32,
        "features (channels) h inside a residual block, 2h outside (paper: 128 for CIFAR-10)",
        ge="channels",
        le=2**16,
    )
    layers: int = option(15, "number of residual blocks", ge=0, le=1000)
    head: int = option(64, "features of the two hidden 1x1 layers before the output", ge="channels", le=2**16)
    dropout: float = option(
        0.0, "probability that a feature map of a residual branch is dropped in training", ge=0, lt=1
    )


@register_model
class PixelCNN(Autoregressive):
    """An autoregressive model of residual blocks of masked convolutions.

    A 7x7 convolution (mask A), `layers` residual blocks around a 3x3 convolution (mask B), then three times ReLU and a
    1x1 convolution (mask B). Levels are scaled to [-1, 1]; the image is padded by 0.

    Blind spot: each masked convolution reaches at most one column further right per row upwards (the first one three).
    So `a` rows above its own row, a pixel cannot depend on pixels more than `a + 2` columns to its right. A
    `GatedPixelCNN` has no blind spot. Otherwise a pixel depends on `layers + 3` rows above and columns at the left.

    Paper: Pixel Recurrent Neural Networks, table 1 and figure 5, arXiv 1601.06759.
    Example: `PixelCNN(PixelCNNConfig(levels=2)).log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "pixelcnn"
    config_type = PixelCNNConfig
    config: PixelCNNConfig

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__(config)
        colors, features = config.channels, 2 * config.hidden
        self.input = MaskedConv2d(colors, features, 7, "A", colors)
        self.blocks = nn.ModuleList(
            ResidualConvBlock(config.hidden, colors, dropout=config.dropout) for _ in range(config.layers)
        )
        self.head = output_layers(features, config.head, config)

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        for layer in self.head:
            x = layer(F.relu(x))
        return x
