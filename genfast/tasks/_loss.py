"""The author's own loss: called on levels, and compared with nats per image, whatever its unit."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genfast._text import first_line
from genfast.engine.calling import at_work, kinds_of

MOST_SINGLES = 4  # images whose loss is asked for alone, where it is a scalar


@dataclass(frozen=True)
class Loss:
    """What the author's loss gave.

    Attributes:
        numbers: float64 [m], on the CPU.
        of: for each number the indices of the images that it is of.
        values: of an image.
        units: what each number may be: the number for 1 nat per image, on average over these images.
    """

    numbers: Tensor
    of: list[list[int]]
    values: int
    units: tuple[float, ...]

    def first(self, n: int) -> Loss | None:
        """The numbers of the first n images alone; None if there are none."""
        kept = [i for i, images in enumerate(self.of) if max(images) < n]
        return Loss(self.numbers[kept], [self.of[i] for i in kept], self.values, self.units) if kept else None

    def averages(self, nats: Tensor) -> Tensor:
        """The mean of nats per image, [n], over the images of each number: float64 [m]."""
        nats = nats.detach().double().cpu()
        return torch.stack([nats[images].mean() for images in self.of])

    def difference(self, nats: Tensor) -> float:
        """The largest difference from nats per image, [n], in nats per value and in the unit where it is least."""
        means = self.averages(nats)
        if not means.isfinite().all():
            return math.inf
        return min(float((self.numbers / unit - means).abs().max()) for unit in self.units) / self.values


def measured(
    nll: Callable[..., Any],
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    alike: bool,
    of_sequences: bool = False,
) -> Loss:
    """The author's loss of images, and, if it is a scalar and `alike`, of some of them alone.

    Every call has as many images as the first: a model may keep what depends on their number.
    alike: whether nothing but images and labels differs from image to image; of_sequences: whether a mean may leave out
    the first value, of which a model of the next symbol says nothing.
    """
    spec_values, n = images[0].numel(), len(images)
    pixels = images.shape[2] * images.shape[3]
    sizes = (1, spec_values, max(1, spec_values - 1) if of_sequences else pixels)
    takes_labels = labels is not None and _takes_two(nll)

    def call(index: Tensor) -> Tensor:
        arguments = [images[index]] + ([labels[index]] if takes_labels and labels is not None else [])
        return _called(nll, model, arguments)

    every = torch.arange(n, dtype=torch.int64, device=images.device)
    result = call(every)
    base = [scale / size for scale in (1.0, 1 / math.log(2)) for size in sizes]
    if result.numel() == n:
        return Loss(result, [[i] for i in range(n)], spec_values, tuple(dict.fromkeys(base)))
    numbers, of = [result], [list(range(n))]
    if alike and (labels is None or takes_labels):
        for i in range(min(n, MOST_SINGLES)):
            numbers.append(call(torch.full_like(every, i)))
            of.append([i])
    units = tuple(dict.fromkeys(one * count for one in base for count in (1, n)))
    return Loss(torch.cat(numbers), of, spec_values, units)


def _takes_two(nll: Callable[..., Any]) -> bool:
    try:
        inspect.signature(nll).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a function without a signature
        return True
    return True


def _called(nll: Callable[..., Any], model: nn.Module, arguments: list[Tensor]) -> Tensor:
    """One call of the loss, with the model in evaluation mode and afterwards as it was: float64 [n] or [1]."""
    n, names = len(arguments[0]), ("images", "labels")
    call = f"genfast calls nll({', '.join(names[: len(arguments)])}) with {', '.join(kinds_of(arguments))}"
    try:
        with at_work(model), unchanged(model), torch.no_grad():
            result = nll(*arguments)
    except Exception as error:
        got = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(f"check: {call}, which must work; got {got}") from error
    wanted = f"check: {call}, which must return numbers [{n}], one for each image, or a single one"
    if isinstance(result, (int, float)):
        result = torch.tensor(result, dtype=torch.float64, device="cpu")
    if not isinstance(result, Tensor):
        raise TypeError(f"{wanted}; got {type(result).__name__}")
    if result.numel() not in (1, n) or result.dim() > 2:
        raise ValueError(f"{wanted}; got shape {tuple(result.shape)}")
    if result.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{wanted}, as float32 or float64: others round too much to compare; got {result.dtype}")
    result = result.detach().double().cpu().reshape(-1)
    if bad := int((~result.isfinite()).sum()):
        raise ValueError(f"{wanted}, finite; got {bad} that are not")
    return result


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """A context after which a model is what it was before, bit for bit: weights, buffers, attributes and hooks."""
    modules = [(module, dict(vars(module))) for module in model.modules()]
    holders = [(held, copy.copy(held)) for _, kept in modules for held in kept.values() if _is_holder(held)]
    found = [*model.parameters(), *model.buffers(), *(v for _, kept in modules for v in kept.values())]
    tensors = {id(one): one for one in found if isinstance(one, Tensor)}.values()
    # `.data` shares memory but no version: what is restored does not look changed.
    values = [(tensor, tensor.data, tensor.data.clone()) for tensor in tensors]
    try:
        yield
    finally:
        for module, kept in modules:
            vars(module).clear()
            vars(module).update(kept)
        for held, content in holders:
            held.clear()
            held.extend(content) if isinstance(held, list) else held.update(content)
        for tensor, data, value in values:
            if tensor.data.data_ptr() != data.data_ptr():
                tensor.data = data
            if not _same_bits(data, value):
                data.copy_(value)


def _is_holder(value: Any) -> bool:
    return type(value).__name__ in ("dict", "OrderedDict", "defaultdict", "list", "set")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)))
