"""The command line `genfast`."""

from genfast.cli.main import main

__all__ = ["main"]
