"""Shared by the commands that sample from a model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from genfast.cli._held_out import held_out, held_out_options
from genfast.cli.options import positive_int
from genfast.cli.progress import counter
from genfast.engine.engine import BACKENDS, Engine
from genfast.tasks._latent import default_batch_size, is_latent
from genfast.train.run_data import first_images


def engine_options(parser: argparse.ArgumentParser) -> None:
    """--batch-size and --backend."""
    parser.add_argument(
        "--batch-size", type=positive_int, metavar="B", help="images at a time; it does not change the images"
    )
    text = f"auto (the first that can), or {', '.join(BACKENDS)} (auto)"
    parser.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help=text)


def restoring_options(parser: argparse.ArgumentParser) -> None:
    """The options of `inpaint` and `denoise`."""
    held_out_options(parser, "FILE.png", "a row for each image: before and after")
    parser.add_argument("-n", type=positive_int, default=16, help="images, the first of the held-out ones (16)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same results (0)")
    engine_options(parser)


def batch_size_of(model: Any, backend: str) -> int:
    """The default number of images in a batch."""
    return default_batch_size(model.spec) if is_latent(model) else Engine(model, backend=backend).batch_size


def steps_bar(steps: int, images: int, size: int) -> AbstractContextManager[Any]:
    """A progress bar over the steps of all batches of `size` images; none for 0 steps."""
    total = steps * -(-images // size)
    return counter(total, "step") if total else nullcontext()


def first_held_out(args: argparse.Namespace, check: Callable[[Any], None]) -> tuple[Any, Tensor, Tensor | None, int]:
    """The model on its device, the first n held-out images, their labels or None, and their levels."""
    model, data, given_labels = held_out(args, check)
    data = first_images(data, args.n)
    return model, data.images, None if given_labels is None else given_labels[: len(data)].cpu(), data.levels


def accepted(acceptance: dict[str, float]) -> str:
    """The acceptance rates, in words."""
    shares = [f"{kind} {100 * rate:.0f} %" for kind, rate in acceptance.items()]
    return f"accepted: {', '.join(shares)}" if shares else "exact without a chain"
