"""PixelCNN: an image as a product of conditionals, by masked convolutions."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.nn import MaskedConv2d, ResidualConvBlock


@dataclass
class PixelCNNConfig(AutoregressiveConfig):
    """Sizes of a `PixelCNN`."""

    hidden: int = option(
        32, "features h inside a residual block; 2h outside (the paper's CIFAR-10 model has 128)", ge="channels"
    )
    layers: int = option(15, "residual blocks", ge=0)
    head: int = option(64, "features of the two 1x1 layers before the output", ge="channels")
    dropout: float = option(0.0, "probability that a feature map leaves a residual branch in training", ge=0, lt=1)


@register_model
class PixelCNN(Autoregressive):
    """`p(x) = prod_i p(x_i | x_<i)`, raster order, R -> G -> B inside a pixel, by masked convolutions.

    7x7 convolution (mask A), `layers` residual blocks around a 3x3 convolution (mask B), two layers of ReLU
    and 1x1 convolution (mask B), and ReLU and 1x1 convolution to the logits. Levels are scaled to [-1, 1];
    what lies outside the image is 0.

    Blind spot: a stack of masked convolutions climbs at most one column to the right with every row upwards
    (three with the first), so a pixel never sees, `a` rows above its own, what lies more than `a + 2` columns
    to its right. `GatedPixelCNN` has none. Beyond that the view ends `layers + 3` rows above and columns to
    the left.

    Paper: Pixel Recurrent Neural Networks, table 1 and figure 5, arXiv 1601.06759.
    Example: `PixelCNN(PixelCNNConfig(levels=2)).log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "pixelcnn"
    config_type = PixelCNNConfig

    def __init__(self, config):
        super().__init__(config)
        colors, features = config.channels, 2 * config.hidden
        self.input = MaskedConv2d(colors, features, 7, "A", colors)
        self.blocks = nn.ModuleList(
            ResidualConvBlock(config.hidden, colors, dropout=config.dropout) for _ in range(config.layers)
        )
        self.head = output_layers(features, config)

    def network(self, x, labels):
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        for layer in self.head:
            x = layer(F.relu(x))
        return x
