"""What the commands of compression share."""

from __future__ import annotations

import argparse

from torch import nn

from genfast.engine.protocols import CodeModel
from genfast.train.loop import pick_device
from genfast.train.run_folder import open_model


def open_code_model(args: argparse.Namespace) -> nn.Module:
    """The model of the arguments, which has codes, on its device."""
    model = open_model(args.target)
    if not isinstance(model, CodeModel):
        raise ValueError(f"{args.target}: expected a vq-vae; got a {model.name}")
    return model.to(pick_device(args.device))
