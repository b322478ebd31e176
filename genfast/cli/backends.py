"""`genfast backends`: what runs the kernels on this machine."""

from __future__ import annotations

import argparse

from genfast._native import backends
from genfast.cli._command import command


@command("backends", "what runs the kernels on this machine, and why")
def run(args: argparse.Namespace) -> None:
    for backend in backends.backends().values():
        print(backend)
