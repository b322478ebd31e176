"""`genfast info`: what a compressed file says of itself."""

from __future__ import annotations

import argparse

from genfast._text import shown
from genfast.cli._command import command
from genfast.io import read_bytes
from genfast.tasks import file_info
from genfast.tasks._codes import MOST_BYTES


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the output of genfast compress")


@command("info", "what a compressed file holds, without its model", options)
def run(args: argparse.Namespace) -> None:
    try:
        info = file_info(read_bytes(args.file, "info", MOST_BYTES))
    except ValueError as error:
        raise ValueError(f"{shown(args.file)}: {error}") from None
    print(f"{shown(args.file)}: {info}")
