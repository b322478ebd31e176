"""PixelRNN: an autoregressive model of LSTMs over the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig, output_layers
from genfast.models.base import register_model
from genfast.nn import MaskedConv2d, ResidualDiagonalBlock, ResidualRowBlock

BLOCKS = {"diagonal": ResidualDiagonalBlock, "row": ResidualRowBlock}


@dataclass
class PixelRNNConfig(AutoregressiveConfig):
    """Settings of a `PixelRNN`."""

    hidden: int = option(
        16,
        "hidden units h of a Row LSTM, or of each direction of a Diagonal BiLSTM; a block has 2h features",
        ge="channels",
        le=2**16,
    )
    layers: int = option(7, "number of residual LSTM blocks", ge=0, le=1000)
    head: int = option(32, "features of the two hidden 1x1 layers before the output", ge="channels", le=2**16)
    virtual_column: bool = option(
        False,
        'pad the image by a column at the right, which removes the blind spot of the last column (kind "diagonal")',
    )
    dropout: float = option(
        0.0, "probability that a feature map of a residual branch is dropped in training", ge=0, lt=1
    )
    kind: Literal["diagonal", "row"] = option(
        "diagonal",
        'kind of LSTM: "diagonal" (Diagonal BiLSTM), or "row" (Row LSTM), half the work but with a blind spot',
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.virtual_column and self.kind != "diagonal":
            raise ValueError(
                "PixelRNNConfig: virtual_column must be False unless kind is 'diagonal', whose blind spot it mends; "
                f"got True with kind={self.kind!r}"
            )


@register_model
class PixelRNN(Autoregressive):
    """An autoregressive model of residual blocks of Diagonal BiLSTMs or Row LSTMs.

    A 7x7 convolution (mask A), `layers` residual blocks, then three times ReLU and a 1x1 convolution (mask B). Levels
    are scaled to [-1, 1]. The convolution pads the image by 0; the LSTMs have a learned state outside the image.

    Blind spot of Diagonal BiLSTMs, as in the paper: the last pixel of a row (its last colour in a colour image) is
    hidden from the next row, except from its last four columns, by the 7x7 convolution. Only a feature past the right
    edge could pass it to the right-to-left LSTM; `virtual_column=True` adds that feature.

    Row LSTMs (`kind="row"`) depend on a triangle: with N >= 1 layers, on the columns from N + k + 3 at the left to k +
    2 at the right in the row k >= 1 above, and on N + 3 columns at the left in the same row. All else is hidden.

    Paper: Pixel Recurrent Neural Networks, table 1, arXiv 1601.06759.
    Example: `PixelRNN(PixelRNNConfig(levels=2)).log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))`
    """

    name = "pixelrnn"
    config_type = PixelRNNConfig
    config: PixelRNNConfig

    def __init__(self, config: PixelRNNConfig) -> None:
        super().__init__(config)
        colors, features = config.channels, 2 * config.hidden
        self.input = MaskedConv2d(colors, features, 7, "A", colors)
        block = BLOCKS[config.kind]
        self.blocks = nn.ModuleList(block(config.hidden, colors, config.dropout) for _ in range(config.layers))
        self.head = output_layers(features, config.head, config)

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        width = x.shape[3]
        if self.config.virtual_column:
            x = F.pad(x, (0, 1))
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        for layer in self.head:
            x = layer(F.relu(x))
        return x[..., :width]
