"""WaveNet: gated dilated causal convolutions over the symbols of a sequence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import output_features
from genfast.models.base import register_model
from genfast.models.sequence import SequenceConfig, SequenceModel


@dataclass
class WaveNetConfig(SequenceConfig):
    """Settings of a `WaveNet`."""

    hidden: int = option(32, "features of a layer", ge=1, le=2**14)
    layers: int = option(20, "number of layers", ge=1, le=1000)
    cycle: int = option(10, "layers after which the dilation, 1, 2, 4, .., begins again at 1", ge=1, le=16)
    head: int = option(128, "features of the sum over the layers, and of the hidden layer after it", ge=1, le=2**14)
    dropout: float = option(0.0, "probability that a feature is dropped in training", ge=0, lt=1)
    classes: int = option(0, "number of labels; 0: unconditional", ge=0, le=2**20, from_data=True)


class GatedLayer(nn.Module):
    """`z = tanh(a) sigmoid(b)` of a causal convolution with kernel 2; returns (x + its part, its part of the head)."""

    def __init__(self, config: WaveNetConfig, dilation: int) -> None:
        super().__init__()
        self.dilation, hidden = dilation, config.hidden
        self.conv = nn.Conv1d(hidden, 2 * hidden, 2, dilation=dilation)
        self.label = nn.Embedding(config.classes, 2 * hidden) if config.classes else None
        self.residual = nn.Conv1d(hidden, hidden, 1)
        self.skip = nn.Conv1d(hidden, config.head, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        gates = self.conv(F.pad(x, (self.dilation, 0)))
        if self.label is not None:
            gates = gates + self.label(labels)[:, :, None]
        a, b = gates.chunk(2, 1)
        z = a.tanh() * b.sigmoid()
        return x + self.residual(z), self.skip(z)


@register_model
class WaveNet(SequenceModel):
    """Gated dilated causal convolutions over a sequence of symbols, such as the mu-law samples of a sound.

    An embedding of the symbol before each, `layers` residual layers of a convolution over two symbols 1, 2, 4, ..
    apart, `2^cycle` at most, and two 1x1 convolutions over the sum of what they give. A symbol depends on the
    `1 + layers / cycle (2^cycle - 1)` before it. A label is added to the gates.

    Paper: WaveNet: A Generative Model for Raw Audio, sections 2.1 to 2.5, arXiv 1609.03499.
    Example: `genfast.sample(WaveNet(WaveNetConfig(levels=256)), 1, length=8000)`
    """

    name = "wavenet"
    config_type = WaveNetConfig
    config: WaveNetConfig

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.levels + 1, config.hidden)
        self.layers = nn.ModuleList(GatedLayer(config, 2 ** (i % config.cycle)) for i in range(config.layers))
        self.hidden = nn.Conv1d(config.head, config.head, 1)
        self.output = nn.Conv1d(config.head, output_features(config), 1)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)

    def symbol_network(self, before: Tensor, labels: Tensor | None) -> Tensor:
        x, skips = self.embedding(before).transpose(1, 2), []
        for layer in self.layers:
            x, skip = layer(F.dropout(x, self.config.dropout, self.training), labels)
            skips.append(skip)
        return self.output(F.relu(self.hidden(F.relu(sum(skips[1:], skips[0])))))
