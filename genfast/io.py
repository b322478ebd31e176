"""Atomic writes: a file is written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` at the end if there was no error.

    A kill or a full disk at any moment leaves the previous `path` untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:  # name the file that was asked for
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


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


def writable_folder(path: str | Path) -> Path:
    """Make the folder `path` and check that a file can be written there, so that a long job fails at its start."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        reason = "a file" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f"{path}: expected a folder that can be written; got {reason}") from None
    return path
