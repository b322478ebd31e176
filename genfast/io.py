"""Files that are whole or not there: written under a temporary name, then renamed."""

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; on leaving without an error it takes the place of `path`.

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


def write_bytes(path, data):
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path, value):
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path, what):
    """The JSON object in `path`, or one error that names the file."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{what}: expected a file {path}; got none") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{what}: expected JSON in {path}; got {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object in {path}; got {type(value).__name__}")
    return value


def writable_folder(path):
    """Make the folder `path` and prove that a file can be written there, before any work starts."""
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
