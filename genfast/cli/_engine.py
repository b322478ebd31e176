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
from genfast.data import ImageData, PairData
from genfast.engine.engine import BACKENDS, Engine
from genfast.tasks._latent import default_batch_size, is_latent, refuse_engine_options
from genfast.train.run_data import first_images

SHOWN = 16  # images in a picture


def engine_options(parser: argparse.ArgumentParser) -> None:
    """--batch-size and --backend."""
    parser.add_argument(
        "--batch-size", type=positive_int, metavar="B", help="images at a time; it does not change the images"
    )
    text = f"auto (the first that can), or {', '.join(BACKENDS)} (auto)"
    parser.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help=text)


def restoring_options(parser: argparse.ArgumentParser) -> None:
    """The options of `inpaint` and `denoise`."""
    held_out_options(parser, "OUT", "FILE.png (a row for each image: before and after), or a folder for a PNG of each")
    text = f"images, the first ones ({SHOWN} for FILE.png, all for a folder)"
    parser.add_argument("-n", type=positive_int, help=text)
    parser.add_argument("--seed", type=int, default=0, help="same seed, same results (0)")
    engine_options(parser)


def batch_size_of(model: Any, backend: str) -> int:
    """The default number of images in a batch."""
    return default_batch_size(model.spec) if is_latent(model) else Engine(model, backend=backend).batch_size


def steps_bar(steps: int, images: int, size: int) -> AbstractContextManager[Any]:
    """A progress bar over the steps of all batches of `size` images; none for 0 steps."""
    total = steps * -(-images // size)
    return counter(total, "step") if total else nullcontext()


def first_held_out(
    call: str, args: argparse.Namespace, count: int | None, check: Callable[[Any], None]
) -> tuple[Any, ImageData | PairData, Tensor | None]:
    """The model on its device, the first images, all for None, and their labels or None. `call` begins errors."""

    def fits(model: Any) -> None:
        check(model)
        if is_latent(model):
            refuse_engine_options(call, model, args.backend, {})

    model, data, given_labels = held_out(args, fits)
    data = first_images(data, count)
    return model, data, None if given_labels is None else given_labels[: len(data)].cpu()


def accepted(acceptance: dict[str, float]) -> str:
    """The acceptance rates, in words."""
    shares = [f"{kind} {100 * rate:.0f} %" for kind, rate in acceptance.items()]
    return f"accepted: {', '.join(shares)}" if shares else "exact without a chain"
