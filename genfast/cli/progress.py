"""Progress bars; they are shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from genfast.tasks import stream

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

Bar = Callable[[int, int], AbstractContextManager[Any]]
# The fields of a record that a bar shows: label -> field.
SHOWN = {"train": "train_nats", "valid": "valid_nats", "D": "discriminator_loss", "G": "generator_loss"}


def track(parts: list[Any], unit: str) -> Iterable[Any]:
    """Iterate over parts, with a progress bar."""
    if tqdm is None or len(parts) < 2:
        return parts
    return tqdm(parts, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False)


@contextmanager
def counter(total: int, unit: str) -> Iterator[Callable[[int], Any]]:
    """A context with a function that advances a bar of `total` units by its argument."""
    if tqdm is None:
        yield lambda count: None
        return
    with tqdm(total=total, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=False) as bar:
        yield bar.update


@contextmanager
def progress_bar(total: int, done: int = 0) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """A context with a function of the records of a run that advances a bar of its steps."""
    if tqdm is None:
        yield None
        return
    with tqdm(total=total, initial=done, disable=not sys.stderr.isatty(), unit="step", dynamic_ncols=True) as bar:
        shown: dict[str, str] = {}

        def progress(record: dict[str, Any]) -> None:
            for name, field in SHOWN.items():
                if field in record:
                    shown[name] = f"{record[field]:.2f}"
            bar.update(record["step"] - bar.n)
            bar.set_postfix(shown)

        yield progress


def with_tensorboard(bar: Bar, folder: str) -> Bar:
    """`bar` whose function also writes every number of a record for TensorBoard.

    Raises: ImportError without the package tensorboard.
    """
    try:
        writer_type = import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise ImportError(f"--tensorboard: expected the package tensorboard; got {error}") from None

    @contextmanager
    def both(total: int, done: int = 0) -> Iterator[Callable[[dict[str, Any]], None]]:
        with bar(total, done) as progress, writer_type(folder, purge_step=done + 1) as writer:

            def write(record: dict[str, Any]) -> None:
                if progress is not None:
                    progress(record)
                for name, value in record.items():
                    if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step":
                        writer.add_scalar(name, value, record["step"])

            yield write

    return both


def draw(model: Any, count: int, *, batch_size: int | None = None, **settings: Any) -> Tensor:
    """The images of `genfast.sample(model, count, ...)`, on the CPU, with a progress bar."""
    parts = []
    with counter(count, "image") as progress:
        for part in stream(model, count, batch_size=batch_size, **settings):
            parts.append(part.cpu())
            progress(len(part))
    return torch.cat(parts)
