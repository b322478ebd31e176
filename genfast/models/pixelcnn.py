"""PixelCNN: an image as a product of conditionals, by masked convolutions."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.nn import MaskedConv2d, ResidualConvBlock


@dataclass
class PixelCNNConfig(AutoregressiveConfig):
    """Sizes of a `PixelCNN`.

    Attributes:
        channels: 1 for grey, 3 for R -> G -> B.
        height, width: of the images, in pixels.
        levels: values of a channel, 2 to 256.
        hidden: features h inside a residual block; 2h outside (the paper's CIFAR-10 model has 128).
        layers: residual blocks.
        head: features of the two 1x1 layers before the output.
        dropout: probability that a feature map leaves a residual branch in training.
    """

    hidden: int = 32
    layers: int = 15
    head: int = 64
    dropout: float = 0.0

    def least(self):
        return super().least() | {"layers": 0, "hidden": self.channels, "head": self.channels}


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
