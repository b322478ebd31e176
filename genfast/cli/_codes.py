"""Shared by the commands `compress` and `decompress`."""

from __future__ import annotations

import argparse
from typing import Any

from genfast._text import shown
from genfast.engine.protocols import CodeModel
from genfast.train.loop import pick_device
from genfast.train.run_folder import open_model


def open_code_model(args: argparse.Namespace) -> Any:
    """The `CodeModel` of the arguments, on its device."""
    model = open_model(args.target)
    has_codes = isinstance(model, CodeModel)
    if not has_codes:
        raise ValueError(f"{shown(args.target)}: expected a vq-vae; got a {model.name}")
    return model.to(pick_device(args.device))
