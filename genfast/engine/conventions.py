"""The keywords that describe a model of somebody else, which every verb passes on to `Engine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Conventions(TypedDict, total=False):
    """How a model that is no `Autoregressive` reads images and what it returns; see `Engine`."""

    shape: Sequence[int] | None
    levels: int | None
    input_range: Sequence[float] | None
    head: str | None
