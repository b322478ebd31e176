"""How the output of a foreign model is read: its likelihood, its layout, and the order of its parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genfast.likelihoods.base import LIKELIHOODS, Likelihood
from genfast.likelihoods.layout import Layout, Sizes, layouts_of

# Heads that say how probabilities are given; which likelihood they are of follows from the shape.
PROBABILITIES = ("probabilities", "log-probabilities")


@dataclass(frozen=True)
class Reading:
    """How an output is read.

    Attributes:
        head: the name of the likelihood and of the order; or one of `PROBABILITIES`.
        likelihood: whose parameters the outputs are.
        index: int64 [P]: parameter i of the likelihood is output index[i] of the pixel, in the order of the layout.
        layout: where the outputs of a pixel are.
        sizes: of the letters of the layout but B.
        delay: the parameters of a column stand so many columns before it; the first columns have zeros.
    """

    head: str
    likelihood: Likelihood
    index: np.ndarray
    layout: Layout
    sizes: Sizes
    delay: int = 0

    @functools.cached_property
    def is_ordered(self) -> bool:
        """Whether the outputs are in the order of the parameters."""
        return bool((self.index == np.arange(len(self.index))).all())

    def outputs(self, output: Any, rows: int | None = None, place: tuple[int, int] | None = None) -> Tensor:
        """What the model returned as [B, P, H, W], in the order of the parameters.

        rows: of an image that was cropped; place: one pixel, (row, column), whose outputs are [B, P].
        """
        tensor = output if self.layout.entry is None else output[self.layout.entry]
        sizes = self.sizes if rows is None else self.sizes | {"H": rows}
        values = self.layout.ordered(tensor, sizes, place)
        return values if self.is_ordered else values[:, torch.from_numpy(self.index).to(values.device)]

    def parameters(self, output: Any, rows: int | None = None, place: tuple[int, int] | None = None) -> Tensor:
        """The parameters of the likelihood: the `outputs`, or the logits of probabilities."""
        if self.delay and place is not None:
            place = place[0], place[1] - self.delay
            if place[1] < 0:
                return torch.zeros_like(self._parameters(output, rows, (place[0], 0)))
        values = self._parameters(output, rows, place)
        return F.pad(values[..., : -self.delay], (self.delay, 0)) if self.delay and place is None else values

    def _parameters(self, output: Any, rows: int | None, place: tuple[int, int] | None) -> Tensor:
        values = self.outputs(output, rows, place)
        if self.head == "probabilities":
            return values.logit() if "L" not in self.layout.letters else values.log()
        if self.head == "log-probabilities" and "L" not in self.layout.letters:
            # log p - log(1 - p), of log p alone.
            return values - torch.log(-torch.expm1(values))
        return values


def heads() -> dict[str, type[Likelihood] | None]:
    """The names that the option `head` takes, each with its likelihood; None where the shape decides."""
    named = {head: cls for cls in LIKELIHOODS.values() for head in cls.output_orders}
    return {**named, **dict.fromkeys(PROBABILITIES)}


def read_output(
    call: str,
    output: Any,
    *,
    channels: int,
    height: int,
    width: int,
    levels: int,
    head: str | None = None,
    layout: Layout | None = None,
    choose: Callable[[list[Reading]], list[Reading]] | None = None,
) -> Reading:
    """How the output of a model is read: as `head` and `layout` say, or, for None, as its shape does.

    Args:
        output: a tensor, or a tuple, list or dict of them, for a batch of two or more images [channels, height, width].
        head: a name of `heads()`.
        choose: picks those that are possible, where the shape leaves several.
    Raises: ValueError for another head, or an output that does not fit or has more than one reading.
    """
    if head not in (None, *heads()):
        raise ValueError(f"{call}: head must be one of {', '.join(heads())}; got {head!r}")
    sizes = {"C": channels, "H": height, "W": width, "L": levels}
    entries = _entries(call, output, layout)
    found = [one for entry, tensor in entries for one in _readings(tensor, entry, sizes, head, layout)]
    if len(found) > 1 and choose is not None:
        found = choose(found)
    if len(found) == 1:
        return found[0]
    where = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
    if not found:
        wanted = _expected(head, layout, channels, levels)
        hint = _hint(entries, sizes, head)
        raise ValueError(f"{call}: the model must return {wanted} ({where}); got {_shapes(output)}{hint}")
    choices = " or ".join(repr(str(one.layout)) for one in found[:4])
    raise ValueError(
        f"{call}: output must say how the output is laid out, {choices}; got None for {_shapes(output)} ({where})"
    )


def _entries(call: str, output: Any, layout: Layout | None) -> list[tuple[str | int | None, Tensor]]:
    """The tensors of an output that may hold the parameters, each with its key."""
    if layout is not None and layout.entry is not None:
        try:
            return [(layout.entry, output[layout.entry])]
        except (KeyError, IndexError, TypeError):
            expected = f"an entry of what the model returns, {_shapes(output)}"
            raise ValueError(f"{call}: output must name {expected}; got {layout.entry!r}") from None
    if isinstance(output, Tensor):
        return [(None, output)]
    pairs = output.items() if isinstance(output, Mapping) else enumerate(output if _is_list(output) else ())
    tensors = [(key, value) for key, value in pairs if isinstance(value, Tensor)]
    if not tensors:
        expected = "a tensor, or a tuple or dict of them"
        raise ValueError(f"{call}: the model must return {expected}; got {_shapes(output)}")
    return tensors


def _is_list(output: Any) -> bool:
    return isinstance(output, (tuple, list))


def _readings(
    tensor: Tensor, entry: str | int | None, sizes: Sizes, head: str | None, layout: Layout | None
) -> Iterator[Reading]:
    """The readings of one tensor, one for each order in memory."""
    if not tensor.is_floating_point():
        return
    for name, letters in _candidates(head, sizes["L"]):
        found = _layouts(tensor, sizes, letters, layout)
        if head == name and letters == "CL" and len(found) > 1:
            # Sizes do not tell C L from L C: the head does.
            first, second = "LC" if name == "categorical-levels-first" else "CL"
            found = [one for one in found if one.letters.index(first) < one.letters.index(second)]
        for one in found:
            reading = _reading(name, head, Layout(one.dims, entry), tensor, sizes)
            if reading is not None:
                yield reading


def _candidates(head: str | None, levels: int) -> list[tuple[str, str]]:
    """The heads that may be meant, each with the letters of its features."""
    if head is not None and head not in PROBABILITIES:
        return [(head, {"bernoulli": "C", "categorical": "CL", "categorical-levels-first": "CL"}.get(head, "P"))]
    return [("bernoulli", "C")] * (levels == 2) + [("categorical", "CL")]


def _layouts(tensor: Tensor, sizes: Sizes, letters: str, layout: Layout | None) -> list[Layout]:
    shape = tensor.shape
    # The batch, which may be joined with pixels or values; a model is never probed with a single image.
    joined = {1, sizes["H"] * sizes["W"], sizes["C"] * sizes["H"] * sizes["W"]}
    batches = sorted({shape[0] // n for n in joined if shape and shape[0] % n == 0 and shape[0] // n > 1})
    if layout is None:
        found = [one for batch in batches for one in layouts_of(shape, {"B": batch} | sizes, letters)]
        return list({one.dims: one for one in found}.values())
    if letters == "CL" and sizes["C"] == 1 and layout.features == {"P"}:
        layout = Layout(tuple(dim.replace("P", "L") for dim in layout.dims), layout.entry)
    same = layout.features == set(letters) or sizes["C"] == 1 and layout.features == set(letters) - {"C"}
    return [layout] if same and any(layout.fits(shape, {"B": batch} | sizes) for batch in batches) else []


def _reading(name: str, head: str | None, layout: Layout, tensor: Tensor, sizes: Sizes) -> Reading | None:
    """None where the likelihood does not have so many parameters."""
    cls = heads()[name]
    assert cls is not None  # `_candidates` gives names of likelihoods
    count, order = sizes["C"] * (sizes["L"] if "L" in layout.letters else 1), None
    if "P" in layout.letters:
        count, order = layout.free(tensor.shape, sizes, "P"), cls.output_orders[name]
        sizes = sizes | {"P": count}
    likelihood = cls.of_output(sizes["C"], sizes["L"], count)
    if likelihood is None:
        return None
    index = np.arange(count) if order is None else order(likelihood)
    return Reading(head if head in PROBABILITIES else name, likelihood, index, layout, sizes)


def _expected(head: str | None, layout: Layout | None, channels: int, levels: int) -> str:
    if layout is not None:
        return f"an output of the layout '{layout}'"
    cls = heads()[head] if head else None
    count = cls.expected_outputs(channels, levels) if cls else channels * levels
    return f"{count} values for each pixel" + (f" for the head {head}" if head else "")


def _hint(entries: list[tuple[str | int | None, Tensor]], sizes: Sizes, head: str | None) -> str:
    """What may have been meant, where the outputs could be parameters of a mixture."""
    name = "mixture" if sizes["C"] == 1 else "mixture-per-channel"
    if head is not None or not any(list(_readings(tensor, key, sizes, name, None)) for key, tensor in entries):
        return ""
    return f" (are these parameters of a mixture of logistics? Then name the head, such as head={name!r})"


def _shapes(output: Any) -> str:
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, Mapping):
        return "{" + ", ".join(f"{key!r}: {_shapes(value)}" for key, value in output.items()) + "}"
    if not _is_list(output):
        return type(output).__name__
    some = [*map(_shapes, output[:3]), f"{len(output) - 3} more"] if len(output) > 4 else map(_shapes, output)
    return f"({', '.join(some)})"
