"""What the commands share that take a model and held-out images and write a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from torch import Tensor, nn

from genfast.cli.options import add_data, add_device, add_split, add_target, data_options, warn
from genfast.data import ImageData
from genfast.train.inputs import inputs
from genfast.train.loop import pick_device
from genfast.train.run_data import data_of, held_out_data
from genfast.train.run_folder import open_model


def held_out_options(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    add_target(parser)
    add_data(parser)
    add_split(parser)
    parser.add_argument("--out", required=True, metavar=metavar, help=text)
    add_device(parser)


def held_out(
    args: argparse.Namespace, check: Callable[[nn.Module], None] | None = None
) -> tuple[nn.Module, ImageData, Tensor | None]:
    """The model on its device, the held-out data, and their labels for a conditional model.

    `check(model)` refuses a model before its data are read.
    """
    model = open_model(args.target).to(pick_device(args.device))
    if check is not None:
        check(model)
    data = held_out_data(data_of(args.target, data_options(args)), args.split, warn)
    return model, data, labels_for(model, data)


def labels_for(model: nn.Module, data: ImageData) -> Tensor | None:
    """The labels that a conditional model takes, else None; data that are not the model's are refused."""
    tensors = inputs(model, data)
    return tensors[1] if len(tensors) > 1 else None
