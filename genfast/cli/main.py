"""The command line: `genfast train | sample | evaluate ...`; `genfast --help` lists all commands."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from genfast._registry import import_modules, module_names
from genfast._text import MESSAGE, shown
from genfast._version import __version__
from genfast.cli._command import COMMANDS, Parser, add_common
from genfast.train.signals import SIGNALS

# What commands are for, as the help lists them.
TASKS = {
    "to begin with": ("demo", "models", "info", "backends"),
    "train and measure": ("train", "evaluate", "compare", "equilibrium", "bench"),
    "images of a model": ("sample", "inpaint", "denoise", "reconstruct", "translate"),
    "vectors of images": ("embed", "interpolate", "traverse", "audit"),
    "small files": ("compress", "decompress"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for an error in what was asked, 128 and its number for a signal.

    Without `argv` this is the process of the command line, and the signals are its own.
    """
    if argv is not None:
        return _run(list(argv), lambda: None)
    try:
        try:
            return _run(sys.argv[1:], _interruptible)
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # the interpreter that ends would show a traceback
    except KeyboardInterrupt as error:  # between two lines of the above
        return _interrupted(error)


def _run(argv: list[str], begin: Callable[[], None]) -> int:
    """Run one command; `begin` is called when all is imported."""
    try:
        args = make_parser(argv[0] if argv else None).parse_args(argv or ["--help"])
        begin()
        code: int | None = args.run(args)
        sys.stdout.flush()
        return code or 0
    except SystemExit:  # of the parser, which may have shown the help
        if _flushed():
            raise
        return _without_reader()
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:
        return _without_reader()
    except MemoryError:
        if "--debug" in argv:
            raise
        return _fail("memory: expected as much as the command needs; got less", 2)
    except (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        if Interruption.latest:  # an import of compiled code makes its own error of it
            return _interrupted(Interruption.latest)
        if "--debug" in argv:
            raise
        return _fail(_one_line(error), 2)


class Interruption(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, wherever a command is."""

    latest: Interruption | None = None

    @classmethod
    def at(cls, number: int, frame: object) -> None:
        """The handler of a signal; a second one does not wait for what the first makes a command tidy up."""
        if cls.latest:
            os._exit(128 + number)
        cls.latest = cls(number)
        raise cls.latest

    @classmethod
    def again(cls, unraisable: sys.UnraisableHookArgs) -> None:
        """Where Python would show the error and go on, as in a destructor: once more, at the next place."""
        if isinstance(unraisable.exc_value, cls):
            signal.raise_signal(unraisable.exc_value.args[0])
        else:
            sys.__unraisablehook__(unraisable)


def _interruptible() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, Interruption.at)
    sys.unraisablehook = Interruption.again


def _interrupted(error: KeyboardInterrupt) -> int:
    number = error.args[0] if error.args else signal.SIGINT
    return _fail("interrupted" if number == signal.SIGINT else "terminated", 128 + number)


def _flushed() -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _without_reader() -> int:
    """The end of a command whose output nobody reads, such as after `| head`: nothing more can be written."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 1


def make_parser(name: str | None = None) -> Parser:
    """The parser of every command; where `name` is one, of that alone: what the others need takes time to import."""
    folder = [str(Path(__file__).parent)]
    if name in module_names(folder):
        importlib.import_module(f"genfast.cli.{name}")
    alone = COMMANDS.get(name or "")
    if alone is None:
        import_modules("genfast.cli", folder)
    parser = Parser(
        prog="genfast",
        description="Train, sample and evaluate deep generative models.",
        usage="genfast COMMAND [OPTIONS]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=None if alone else _by_task(),
    )
    parser.add_argument("--version", action="version", version=f"genfast {__version__}")
    # Without a help of its own a command is not listed: the epilog lists all by what they are for.
    commands = parser.add_subparsers(
        required=True, parser_class=Parser, prog="genfast", metavar="COMMAND", help="one of those below"
    )
    for command in [alone] if alone else sorted(COMMANDS.values(), key=lambda command: command.name):
        subparser = commands.add_parser(command.name, description=command.help)
        add_common(subparser, command.run)
        command.options(subparser)
    return parser


def _by_task() -> str:
    """The commands, each under what it is for."""
    rest = sorted(COMMANDS.keys() - {name for names in TASKS.values() for name in names})
    lines = []
    for task, names in (TASKS | ({"others": rest} if rest else {})).items():
        lines += [f"{task}:", *(f"  {name:<12}{COMMANDS[name].help}" for name in names), ""]
    return "\n".join([*lines, "genfast COMMAND --help has the options of a command."])


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error).strip()
    if "; got" not in text:  # of another package, which explains itself on many lines
        text = (text.splitlines() or [type(error).__name__])[0].strip()
    return text


def _fail(message: str, code: int) -> int:
    try:
        print(f"genfast: error: {shown(message, MESSAGE)}", file=sys.stderr)
    except OSError:  # of a terminal that is closed
        _without_reader()
    return code
