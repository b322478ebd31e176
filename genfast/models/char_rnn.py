"""CharRNN: recurrent layers over the symbols of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from genfast._config import option
from genfast.models.autoregressive import output_features
from genfast.models.base import register_model
from genfast.models.sequence import SequenceConfig, SequenceModel

UNITS = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass
class CharRNNConfig(SequenceConfig):
    """Settings of a `CharRNN`."""

    hidden: int = option(256, "units of a layer, and features of the embedding", ge=1, le=2**14)
    layers: int = option(2, "number of recurrent layers", ge=1, le=100)
    unit: Literal["lstm", "gru"] = option("lstm", "lstm or gru")
    dropout: float = option(0.0, "probability that a unit between layers is dropped in training", ge=0, lt=1)


@register_model
class CharRNN(SequenceModel):
    """Recurrent layers over a sequence of symbols, such as the characters of a text.

    `h_t = RNN(embedding(x_{t-1}), h_{t-1})`, and the logits of x_t are a linear function of h_t. What stands before the
    first symbol has an embedding of its own; the first state is zero.

    Paper: Generating Sequences With Recurrent Neural Networks, section 2, arXiv 1308.0850.
    Example: `genfast.sample(CharRNN(CharRNNConfig(levels=65)), 4, length=100)`
    """

    name = "char-rnn"
    config_type = CharRNNConfig
    config: CharRNNConfig

    def __init__(self, config: CharRNNConfig) -> None:
        super().__init__(config)
        hidden = config.hidden
        self.embedding = nn.Embedding(config.levels + 1, hidden)
        between = config.dropout if config.layers > 1 else 0.0
        self.layers = UNITS[config.unit](hidden, hidden, config.layers, batch_first=True, dropout=between)
        self.output = nn.Linear(hidden, output_features(config))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def symbol_network(self, before: Tensor, labels: Tensor | None) -> Tensor:
        p = self.config.dropout
        h = F.dropout(self.embedding(before), p, self.training)
        h = F.dropout(self.layers(h)[0], p, self.training)
        return self.output(h).transpose(1, 2)
