"""What a foreign model takes and returns, described once by keywords and checked before anything runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from genfast.engine.protocols import ImageSpec
from genfast.engine.sequences import Sequences, sequences_of
from genfast.likelihoods import heads
from genfast.likelihoods.layout import Layout, parse_layout
from genfast.random.levels import MOST_LEVELS

# What forward takes: floats [B, C, H, W] or, flat, [B, C * H * W]; levels as integers [B, C, H, W], codes [B, H, W] or,
# flat, [B, C * H * W].
INPUTS = ("images", "flat", "levels", "codes", "flat-levels")
OF_FLOATS, ARE_FLAT = ("images", "flat"), ("flat", "flat-levels")


class Keywords(TypedDict, total=False):
    """The keywords of `Conventions`, which every verb that takes a foreign model passes on to `Engine`."""

    shape: Sequence[int] | None
    levels: int | None
    inputs: str | None
    input_range: Sequence[float] | None
    head: str | None
    output: str | None
    classes: int | None
    condition: Mapping[str, Tensor] | None
    pixel_order: Sequence[int] | Tensor | None
    length: int | None
    vocabulary: int | None
    predicts: str | None
    start: int | None


@dataclass(frozen=True)
class Conventions:
    """What a model that is not `Autoregressive` takes and returns.

    Attributes:
        spec: of the images: `shape`, `levels` and `classes` of the keywords.
        inputs: one of `INPUTS`.
        input_range: the inputs for the lowest and the highest level, where they are floats; None: to be inferred.
        head: how the output is read, a name of `genfast.likelihoods.heads()`; None: as its shape implies.
        output: the layout of the output; None: the only one that fits.
        condition: further arguments of forward, by name, known before anything is drawn: [n, ...], row i for the image
            of index i, or [1, ...] for all images.
        pixel_order: int64 [C * H * W], the values, (row * W + column) * C + channel, in the order in which they are
            drawn; None: raster order.
        sequences: of a model of sequences, as images of one row; else None.
    """

    spec: ImageSpec
    inputs: str = "images"
    input_range: tuple[float, float] | None = None
    head: str | None = None
    output: Layout | None = None
    condition: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    pixel_order: np.ndarray | None = field(default=None, compare=False)
    sequences: Sequences | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What a program depends on: all but the values of the condition."""
        condition = tuple((name, value.shape[1:], value.dtype) for name, value in self.condition.items())
        order = None if self.pixel_order is None else self.pixel_order.tobytes()
        known = (self.spec, self.inputs, self.input_range, self.head, self.output, self.sequences)
        return (*known, condition, order)

    def digest(self) -> str:
        """SHA-256 of all conventions, with the values of the condition."""
        known = hashlib.sha256(repr(self.key).encode())
        for name, value in self.condition.items():
            known.update(name.encode() + value.contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
        return known.hexdigest()


def conventions_of(call: str, model: nn.Module, keywords: Keywords) -> Conventions:
    """The conventions of a foreign model, checked. Raises: TypeError or ValueError for a keyword that does not fit."""
    given: dict[str, Any] = {name: value for name, value in keywords.items() if value is not None}
    if unknown := sorted(set(given) - set(Keywords.__annotations__)):
        raise TypeError(f"{call}: keywords must be of {', '.join(Keywords.__annotations__)}; got {unknown[0]!r}")
    sequences, given = sequences_of(call, given)
    spec = _spec(call, model, given)
    inputs = given.get("inputs", "images")
    if inputs not in INPUTS:
        raise ValueError(f"{call}: inputs must be one of {', '.join(INPUTS)}; got {inputs!r}")
    if inputs == "codes" and spec.channels != 1:
        raise ValueError(f"{call}: shape must be (1, H, W) for inputs='codes'; got {spec.shape}")
    head = given.get("head")
    if head not in (None, *heads()):
        raise ValueError(f"{call}: head must be one of {', '.join(heads())}; got {head!r}")
    return Conventions(
        spec,
        inputs,
        _input_range(call, inputs, given.get("input_range")),
        head,
        parse_layout(call, given["output"]) if "output" in given else None,
        _condition(call, given.get("condition", {})),
        _pixel_order(call, spec, given.get("pixel_order")),
        sequences,
    )


def refuse_conventions(kind: str, call: str = "sample", *, keywords: Keywords) -> None:
    """ValueError for a keyword that is not None: a model of this kind states its conventions itself."""
    if named := [name for name, value in keywords.items() if value is not None]:
        raise ValueError(f"{call}: {named[0]} must be None for a {kind}, whose config has it; got a value")


def _spec(call: str, model: nn.Module, given: Mapping[str, Any]) -> ImageSpec:
    shape, levels, classes = given.get("shape"), given.get("levels"), given.get("classes", 0)
    kind = type(model).__name__
    if shape is not None and not isinstance(shape, (tuple, list)):
        raise TypeError(f"{call}: shape must be (channels, height, width); got {shape!r}")
    if shape is None or len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{call}: shape must be (channels, height, width) for a {kind}; got {shape}")
    if type(levels) is not int or not 2 <= levels <= MOST_LEVELS:
        raise ValueError(f"{call}: levels must be an int, 2 to {MOST_LEVELS}; got {levels!r}")
    if type(classes) is not int or classes < 0:
        raise ValueError(f"{call}: classes must be an int, at least 0; got {classes!r}")
    channels, height, width = shape
    return ImageSpec(channels, height, width, levels, classes)


def _input_range(call: str, inputs: str, given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    if inputs not in OF_FLOATS:
        raise ValueError(f"{call}: input_range must be None for inputs={inputs!r}, which are integers; got {given}")
    numbers = isinstance(given, (tuple, list)) and [v for v in given if isinstance(v, (int, float))]
    if not numbers or len(numbers) != 2 or len(given) != 2:
        raise TypeError(f"{call}: input_range must be two different numbers; got {given!r}")
    try:
        low, high = map(float, given)
    except OverflowError:
        low = high = math.inf
    if not math.isfinite(low) or not math.isfinite(high) or low == high:
        raise ValueError(f"{call}: input_range must be two different numbers; got {tuple(given)!s:.80}")
    return low, high


def _condition(call: str, given: Any) -> dict[str, Tensor]:
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"{call}: condition must be a dict of tensors by the names of arguments; got {given!r:.80}")
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{call}: condition {name} must be a torch.Tensor; got {type(value).__name__}")
        if not value.dim() or not len(value):
            raise ValueError(f"{call}: condition {name} must be [n, ...] or [1, ...]; got {tuple(value.shape)}")
    return {name: value.detach() for name, value in given.items()}


def _pixel_order(call: str, spec: ImageSpec, given: Any) -> np.ndarray | None:
    if given is None:
        return None
    order = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    pixels = spec.height * spec.width
    if order.dtype.kind not in "iu" or order.ndim != 1:
        raise TypeError(f"{call}: pixel_order must be integers, one for each value; got {order.dtype} {order.shape}")
    if len(order) == pixels != spec.values:
        # The channels of a pixel, one after the other.
        order = (order[:, None] * spec.channels + np.arange(spec.channels)).reshape(-1)
    if not np.array_equal(np.sort(order), np.arange(spec.values)):
        expected = f"a permutation of the {pixels} pixels or of the {spec.values} values"
        raise ValueError(f"{call}: pixel_order must be {expected}; got {len(given)} numbers that are none")
    order = order.astype(np.int64)
    return None if np.array_equal(order, np.arange(spec.values)) else order


def rows_of(call: str, condition: Mapping[str, Tensor], first: int, n: int) -> dict[str, Tensor]:
    """The condition of the images first .. first + n - 1. ValueError where it has no row for one of them."""
    rows = {}
    for name, value in condition.items():
        if len(value) == 1:
            rows[name] = value.expand(n, *value.shape[1:])
            continue
        if first + n > len(value):
            expected = f"a row for each image up to index {first + n - 1}, or one for all"
            raise ValueError(f"{call}: condition {name} must have {expected}; got {len(value)} rows")
        rows[name] = value[first : first + n]
    return rows
