"""The command line: `genfast train | sample | evaluate ...`; `genfast --help` lists all commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from genfast._registry import import_modules
from genfast._text import MESSAGE, shown
from genfast._version import __version__
from genfast.cli._command import COMMANDS, Parser, add_common


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for an error in what was asked, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    try:
        args = make_parser().parse_args(argv or ["--help"])
        code: int | None = args.run(args)
        return code or 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of a pipe has ended, such as `head`
        return 1
    except MemoryError:
        if debug:
            raise
        return _fail("memory: expected as much as the command needs; got less", 2)
    except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if debug:
            raise
        return _fail(_one_line(error), 2)


def make_parser() -> Parser:
    """The parser of every command."""
    import_modules("genfast.cli", [str(Path(__file__).parent)])
    parser = Parser(prog="genfast", description="Train, sample and evaluate deep generative models.")
    parser.add_argument("--version", action="version", version=f"genfast {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in sorted(COMMANDS.values(), key=lambda command: command.name):
        subparser = commands.add_parser(command.name, help=command.help, description=command.help)
        add_common(subparser, command.run)
        command.options(subparser)
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error).strip()
    if "; got" not in text:  # of another package, which explains itself on many lines
        text = (text.splitlines() or [type(error).__name__])[0].strip()
    return text


def _fail(message: str, code: int) -> int:
    print(f"genfast: error: {shown(message, MESSAGE)}", file=sys.stderr)
    return code
