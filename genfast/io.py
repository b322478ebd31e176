"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

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
    """The JSON object in `path`. `what` begins the errors, FileNotFoundError and ValueError, which name the file."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{what}: expected a file {path}; got none") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{what}: expected JSON in {path}; got {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object in {path}; got {type(value).__name__}")
    return value


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
        raise OSError(f"{folder}: expected a folder that can be written; got {reason}") from None
    finally:
        with suppress(OSError):
            probe.unlink()


def check_free(path: str | Path, overwrite: bool = False) -> None:
    """FileExistsError for a file that is there, unless it may be overwritten; ValueError for what is no file."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write; got a folder")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: expected a file to write; got a device or a pipe")
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path}: expected a name that is free, or --overwrite; got a file")
