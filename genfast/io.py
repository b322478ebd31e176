"""Files: written under a temporary name and then renamed; read up to a limit, and with one error for what is none."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from genfast._text import shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MOST_JSON = 2**20  # bytes; what genfast writes has some thousands
DEEPEST = 32
if sys.platform == "win32":
    READING = os.O_RDONLY | os.O_BINARY
else:
    READING = os.O_RDONLY | os.O_NONBLOCK  # otherwise opening a pipe waits for its writer
# What a killed process may leave of a file or folder that it was writing.
TEMPORARY = re.compile(r"\.genfast-[0-9a-f]{16}\.tmp")


def temporary(folder: Path) -> Path:
    """A path in `folder` that nothing has, and that nobody could foresee and put a link at."""
    return folder / f".genfast-{secrets.token_hex(8)}.tmp"


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file beside `path`, whose folder is made if missing; it becomes `path` at the end if there was no error.

    A kill or a full disk at any moment leaves the previous `path` untouched; a link is replaced, not followed.
    """
    path = Path(path)
    written = temporary(path.parent)
    with made_folder(path.parent), naming(path):
        try:
            with open(os.open(written, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b") as file:
                in_use(file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(written, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                written.unlink()
            raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """A context whose errors of the system name the file that was asked for, not the one that took part."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def in_use(descriptor: int) -> None:
    """Mark what is being written until it is closed, so that `genfast.folders.sweep` leaves it alone."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """A context in which the folder exists. After an error those that were made for it are gone, if they are empty."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can be asked for it."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as indented JSON."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: str | Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`. `what` begins the errors, FileNotFoundError and ValueError, which name the file.

    Refused are files of more than `MOST_JSON` bytes, objects within more than `DEEPEST` others, names that occur twice,
    numbers that are not finite, and whole numbers of more than 64 bits.
    """
    try:
        value = parse_json(read_bytes(path, what, MOST_JSON))
    except JSONError as error:
        raise ValueError(f"{what}: expected JSON in {shown(path)}; got {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object in {shown(path)}; got {type(value).__name__}")
    return value


class JSONError(ValueError):
    """Text that is no JSON, or more than `parse_json` takes; the message says what it is."""


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text of another's making. Raises: JSONError."""
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_depth(text)
        return _DECODER.decode(text)
    except JSONError:
        raise
    except (ValueError, RecursionError) as error:  # of a decoder, of a surrogate, of a number of too many digits
        raise JSONError(shown(error)) from None


def _check_depth(text: str) -> None:
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > DEEPEST:
            raise JSONError(f"more than {DEEPEST} levels of brackets")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise JSONError(f"{shown(repr(twice))} twice in an object")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise JSONError(f"{shown(digits, 40)}, a whole number of more than 64 bits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JSONError(f"{shown(text, 40)}, a number that is not finite")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)


def memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or of its control group."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**34
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no group, or "max"
        return total


def read_bytes(path: str | Path, what: str, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Errors as of `open_file`."""
    with open_file(path, what) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{what}: expected a file {shown(path)} of at most {most} bytes; got more")
    return data


@contextmanager
def open_file(path: str | Path, what: str) -> Iterator[BinaryIO]:
    """A file that is open to be read; a device or a pipe, which may never end, is none.

    Raises: FileNotFoundError; ValueError for what is no file; OSError if reading fails. `what` begins the messages.
    """
    path = Path(path)
    try:
        with open(_descriptor(path, what), "rb") as file:
            yield file
    except OSError as error:
        if error.errno is None:  # it says already what is wrong
            raise
        reason = error.strerror or type(error).__name__
        raise OSError(f"{what}: expected a file {shown(path)} that can be read; got {reason}") from None


def _descriptor(path: Path, what: str) -> int:
    try:
        descriptor = os.open(path, READING)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{what}: expected a file {shown(path)}; got none") from None
    except ValueError as error:  # a name with a zero byte
        raise FileNotFoundError(f"{what}: expected a file {shown(path)}; got {error}") from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        got = "a folder" if stat.S_ISDIR(kind) else "a device or a pipe"
        raise ValueError(f"{what}: expected a file {shown(path)}; got {got}")
    return descriptor


def check_writable(folder: str | Path) -> None:
    """OSError if no file can be written to a folder, or to one that is made there: a long job fails at its start.

    Nothing is made.
    """
    there = Path(folder).absolute()
    while not os.path.exists(there):
        there = there.parent
    probe = temporary(there)
    try:
        with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(b"x")
    except OSError as error:
        reason = "a file" if isinstance(error, NotADirectoryError) else error.strerror
        raise OSError(f"{shown(folder)}: expected a folder that can be written; got {reason}") from None
    finally:
        with suppress(OSError):
            probe.unlink()


def check_free(path: str | Path, overwrite: bool = False) -> None:
    """FileExistsError for a file that is there, unless it may be overwritten; ValueError for what is no file."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{shown(path)}: expected a file to write; got a folder")
    if path.exists() and not path.is_file():
        raise ValueError(f"{shown(path)}: expected a file to write; got a device or a pipe")
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{shown(path)}: expected a name that is free, or --overwrite; got a file")
