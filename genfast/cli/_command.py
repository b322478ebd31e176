"""The registry of commands: every file of this folder registers a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from genfast import _registry
from genfast._text import MESSAGE, shown

Run = Callable[[argparse.Namespace], int | None]
Options = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True)
class Command:
    """`genfast NAME`.

    Attributes:
        name, help: as the command line shows them.
        options: adds the command's options to its parser.
        run: of the parsed arguments; returns the exit code, None for 0.
    """

    name: str
    help: str
    options: Options
    run: Run


COMMANDS: dict[str, Command] = {}


def command(name: str, help: str, options: Options = lambda parser: None) -> Callable[[Run], Run]:
    """Decorator of the function that runs a command."""

    def register(run: Run) -> Run:
        _registry.add(COMMANDS, "command", name, Command(name, help, options, run), run.__module__)
        return run

    return register


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {shown(message, MESSAGE)} (--help lists the options)\n")


def add_common(parser: argparse.ArgumentParser, run: Run) -> None:
    """The options of every command."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run)
