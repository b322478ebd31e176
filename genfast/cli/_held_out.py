"""Shared by the commands that take a model and held-out images, and write a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from torch import Tensor

from genfast.cli.options import (
    add_data,
    add_device,
    add_out,
    add_split_of_folder,
    add_target,
    data_options,
    say,
    warn,
)
from genfast.data import ImageData, PairData
from genfast.train.inputs import inputs
from genfast.train.loop import pick_device
from genfast.train.run_data import all_of_a_folder, data_of, held_out_data
from genfast.train.run_folder import open_model


def held_out_options(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    """The options of these commands; `metavar` and `text` are of --out."""
    add_target(parser)
    add_data(parser)
    add_split_of_folder(parser)
    add_out(parser, metavar, text)
    add_device(parser)


def held_out(args: argparse.Namespace, check: Callable[[Any], object] | None = None) -> tuple[Any, Any, Tensor | None]:
    """The model on its device, the held-out data, and their labels if the model is conditional.

    `check(model)` may refuse the model before its data are read.
    """
    model = open_model(args.target).to(pick_device(args.device))
    if check is not None:
        check(model)
    data = held_out_data(data_of(args.target, data_options(args)), split_of(args), warn)
    labels = labels_for(model, data)
    say(data)
    return model, data, labels


def split_of(args: argparse.Namespace) -> str | None:
    """--split; all of a folder that --data names."""
    return args.split or all_of_a_folder(data_options(args))


def labels_for(model: Any, data: ImageData | PairData) -> Tensor | None:
    """The labels for a conditional model, else None. ValueError for data that do not fit the model."""
    tensors = inputs(model, data)
    return tensors[1] if len(tensors) > 1 else None
