"""The base class of models of sequences: images of one row, whose levels are symbols and whose columns are time."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from genfast._config import inherited, option
from genfast.models.autoregressive import Autoregressive, AutoregressiveConfig
from genfast.models.base import ImageConfig

S = TypeVar("S", bound="SequenceModel")
# For each model the one of another length that was asked for last: its program is kept with it.
_OTHERS: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


@dataclass
class SequenceConfig(AutoregressiveConfig):
    """The format of the sequences of a `SequenceModel`: images of one row and one channel."""

    channels: int = option(1, "1", ge=1, le=1, from_data=True)
    height: int = option(1, "1", ge=1, le=1, from_data=True)
    width: int = option(256, "symbols of a window of the training data", ge=1, le=2**26, from_data=True)
    levels: int = inherited(ImageConfig, "levels", 256)
    alphabet: str = option("", "the character of each symbol; empty: they are no text", from_data=True)
    rate: int = option(0, "samples a second of audio; 0: the symbols are none", ge=0, le=2**20, from_data=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alphabet and len(self.alphabet) != self.levels:
            expected = f"the {self.levels} characters of its levels, or none"
            raise ValueError(f"{type(self).__name__}: alphabet must be {expected}; got {len(self.alphabet)}")

    @classmethod
    def fixed_by(cls, data: Any) -> dict[str, Any]:
        return super().fixed_by(data) | {"alphabet": data.alphabet, "rate": data.rate}


class SequenceModel(Autoregressive):
    """`p(x) = prod_t p(x_t | x_<t)` of symbols x_0, x_1, .., levels [B, 1, 1, T].

    A subclass sets `name` and `config_type` and defines `symbol_network`. Its layers must be the same at every place:
    then `genfast.sample(model, n, length=T)` draws sequences of any length, [n, T], and `genfast.stream(model,
    length=None)` sequences without an end.
    """

    config: SequenceConfig

    def symbol_network(self, before: Tensor, labels: Tensor | None) -> Tensor:
        """The parameters of all conditionals, [B, P, T], of the symbol before each, int64 [B, T]: `levels` before the
        first; labels int64 [B] or None."""
        raise NotImplementedError(f"{type(self).__name__}: expected a subclass that defines symbol_network")

    def network(self, x: Tensor, labels: Tensor | None) -> Tensor:
        levels = self.config.levels
        symbols = ((x[:, 0, 0] + 1) * ((levels - 1) / 2)).round().long()
        before = torch.cat([torch.full_like(symbols[:, :1], levels), symbols[:, :-1]], 1)
        return self.symbol_network(before, labels)[:, :, None]

    def of_length(self: S, length: int) -> S:
        """The model for sequences of `length` symbols; it shares all parameters and layers."""
        if length == self.config.width:
            return self
        other: S | None = _OTHERS.get(self)
        if other is None or other.config.width != length:
            other = copy.copy(self)
            other.config = replace(self.config, width=length)
            _OTHERS[self] = other
        return other
