"""The keywords that describe a foreign model, which every task passes on to `Engine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Conventions(TypedDict, total=False):
    """The inputs and outputs of a model that is not `Autoregressive`; see `Engine`."""

    shape: Sequence[int] | None
    levels: int | None
    input_range: Sequence[float] | None
    head: str | None
