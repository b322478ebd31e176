"""PixelRNN: an image as a product of conditionals, pixel by pixel, by LSTMs over the image."""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.nn import MaskedConv2d, ResidualDiagonalBlock, ResidualRowBlock

BLOCKS = {"diagonal": ResidualDiagonalBlock, "row": ResidualRowBlock}


@dataclass
class PixelRNNConfig(AutoregressiveConfig):
    """Sizes of a `PixelRNN`."""

    hidden: int = option(
        16, "units h of a Row LSTM, or of each direction of a Diagonal BiLSTM; the features are 2h", ge="channels"
    )
    layers: int = option(7, "residual LSTM blocks", ge=0)
    head: int = option(32, "features of the two 1x1 layers before the output", ge="channels")
    virtual_column: bool = option(
        False, 'run on one more column past the right edge, which shows the next row the last pixel (kind "diagonal")'
    )
    dropout: float = option(0.0, "probability that a feature map leaves a residual branch in training", ge=0, lt=1)
    kind: Literal["diagonal", "row"] = option(
        "diagonal", '"diagonal" for Diagonal BiLSTMs, "row" for Row LSTMs, half the work but with blind spots'
    )

    def __post_init__(self):
        super().__post_init__()
        if self.virtual_column and self.kind != "diagonal":
            raise ValueError(
                "PixelRNNConfig: virtual_column must be False unless kind is 'diagonal', whose blind spot it mends; "
                f"got True with kind={self.kind!r}"
            )


@register_model
class PixelRNN(Autoregressive):
    """`p(x) = prod_i p(x_i | x_<i)`, raster order, R -> G -> B inside a pixel, by Diagonal BiLSTMs or Row LSTMs.

    7x7 convolution (mask A), `layers` residual blocks, two layers of ReLU and 1x1 convolution (mask B), and
    ReLU and 1x1 convolution to the logits. Levels are scaled to [-1, 1]; what lies outside the image is 0 to
    the convolution and learned to the LSTMs.

    Diagonal BiLSTMs have the paper's blind spot: the last pixel of a row (of a colour image: its last colour) is
    invisible to the next row, but for the last four columns, which the 7x7 convolution serves. Only a feature past
    the right edge could hand it to the right-to-left map. `virtual_column=True` adds that feature.

    Row LSTMs (`kind="row"`) read a triangle: with N >= 1 layers, of the row k >= 1 above, the columns from N + k + 3
    at the left to k + 2 at the right, and N + 3 at the left of the own row. All else above is invisible.

    Paper: Pixel Recurrent Neural Networks, table 1, arXiv 1601.06759.
    Example: `PixelRNN(PixelRNNConfig(levels=2)).log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "pixelrnn"
    config_type = PixelRNNConfig

    def __init__(self, config):
        super().__init__(config)
        colors, features = config.channels, 2 * config.hidden
        self.input = MaskedConv2d(colors, features, 7, "A", colors)
        block = BLOCKS[config.kind]
        self.blocks = nn.ModuleList(block(config.hidden, colors, config.dropout) for _ in range(config.layers))
        self.head = output_layers(features, config)

    def network(self, x, labels):
        width = x.shape[3]
        if self.config.virtual_column:
            x = F.pad(x, (0, 1))
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        for layer in self.head:
            x = layer(F.relu(x))
        return x[..., :width]
