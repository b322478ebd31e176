"""What callers give and get of models of sequences, [n, T], as images of one row, [n, 1, 1, T]."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from genfast.engine.arguments import check_integers
from genfast.engine.decoder import DecodingEngine
from genfast.engine.endless import check_endless
from genfast.engine.engine import Engine
from genfast.engine.request import SampleRequest
from genfast.engine.sequences import Sequences
from genfast.engine.window import MOST_SYMBOLS, Window


def sequences_of(engine: Engine | DecodingEngine) -> Sequences | None:
    """Those of the model of an engine; None for a model of images."""
    return engine.sequences if isinstance(engine, Engine) else None


def as_images(call: str, name: str, x: Any, sequences: Sequences | None) -> Any:
    """Sequences, integers [n, T], as images; what a model of images is given as it is."""
    if sequences is None:
        return x
    x = check_integers(call, name, x)
    if x.dim() != 2 or x.shape[1] != sequences.length:
        raise ValueError(f"{call}: {name} must have shape [n, T] with T={sequences.length}; got {tuple(x.shape)}")
    return x[:, None, None]


def prompted(call: str, given: Any, mask: Any, sequences: Sequences | None) -> tuple[Tensor | None, Tensor | None]:
    """The given symbols as images with a mask: a prompt, [n or 1, P], or all, [n or 1, T], with a mask of as many."""
    if sequences is None or given is None:
        return given, mask
    given, T = check_integers(call, "given", given), sequences.length
    if given.dim() != 2 or not 1 <= given.shape[1] <= T:
        raise ValueError(f"{call}: given must have shape [n, P] with P of 1 to {T} symbols; got {tuple(given.shape)}")
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.shape[1:] != given.shape[1:] or mask.dim() != 2:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"{call}: mask must be bool [n, P] as given, with P={given.shape[1]}; got {got}")
    else:
        mask = torch.ones(1, given.shape[1], dtype=torch.bool, device="cpu")
    left = T - given.shape[1]
    given = torch.nn.functional.pad(given, (0, left))
    mask = torch.nn.functional.pad(mask, (0, left))
    return given[:, None, None], mask[:, None, None]


def chunks(engine: Engine, request: SampleRequest, size: int, endless: bool) -> Iterator[Tensor]:
    """The symbols of a checked request, [n, up to size] at a time. Raises: ValueError for an endless one, at once."""
    if endless:
        check_endless("stream", engine)
    backend, compiled, network = engine.prepared()
    length = None if endless else network.spec.width

    def parts() -> Iterator[Tensor]:
        # Others have no memory between calls, or symbols that are no columns.
        if backend != "cpp" or isinstance(compiled, str) or compiled.geometry == "point":
            yield from engine.execute(request).images[:, 0, 0].split(size, 1)
            return
        told = compiled.told(request, network.device, network.condition(request.first, request.n))
        window, last = Window(compiled.program, told), MOST_SYMBOLS if length is None else length
        while window.done < last:
            count = min(size, last - window.done)
            yield torch.cat([part.images[:, 0, 0] for part in window.parts(count)], 1)

    return parts()


def of_sequences(nll: Callable[..., Any]) -> Callable[..., Any]:
    """A loss of sequences [n, T] as one of images of one row."""

    @functools.wraps(nll)
    def of_images(images: Tensor, *labels: Tensor) -> Any:
        return nll(images[:, 0, 0].long(), *labels)

    return of_images
