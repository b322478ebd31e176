"""Folders that processes share: one writer at a time, files that change together, and readers that see them whole."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from genfast._text import shown
from genfast.io import TEMPORARY, in_use, json_bytes, made_folder, naming, parse_json, sync_folder, temporary

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
LOCK = ".genfast.lock"
# A folder of files that are complete and on the disk, and that replace those beside it: see `commit`.
COMMITTED = ".genfast-committed"
CLEAR = ".clear"  # in it while what the files replace is still to be removed
NOFOLLOW = 0 if os.name == "nt" else os.O_NOFOLLOW
# What version 0.1.0 left of a run or of shards that it was writing.
OF_FIRST_VERSION = re.compile(
    r"\.writable-\d+|\.((config|manifest|accuracy)\.json|metrics\.jsonl|(state|model)\.safetensors)\.tmp"
    r"|\.(samples-\d+\.npz|step-\d+\.png)\.tmp"
)
EXCHANGE, HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


@contextmanager
def only_writer(folder: str | Path) -> Iterator[Path]:
    """Hold a folder, which is made if missing, for this process alone.

    The system releases the lock when the process ends, however it ends. A folder that was made for it and is empty at
    the end is removed. Yields the folder. Raises: RuntimeError if another process holds it; OSError if it cannot be
    written.
    """
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with made_folder(folder):
            descriptor = _locked(folder)
    except (FileExistsError, NotADirectoryError):
        raise OSError(f"{shown(folder)}: expected a folder that can be written; got a file") from None
    except OSError as error:
        raise OSError(f"{shown(folder)}: expected a folder that can be written; got {error.strerror}") from None
    try:
        yield folder
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        os.close(descriptor)
        with suppress(OSError):
            for path in missing:
                path.rmdir()


def _locked(folder: Path) -> int:
    """The descriptor of the folder's lock file, which names the process that holds it."""
    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NOFOLLOW, 0o666)
        try:
            _lock(descriptor, folder)
            if _is_at(path, descriptor):
                _introduce(path, descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has just removed it


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _introduce(path: Path, descriptor: int) -> None:
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    about = json_bytes({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, about)
    except OSError:
        path.unlink()
        raise


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        got = f"{_holder(os.read(descriptor, 1000))}: wait until it ends, stop it, or take another folder"
        raise RuntimeError(f"{shown(folder)}: expected no other process that writes there; got {got}") from None
    except OSError:  # a file system without locks
        pass


def _holder(text: bytes) -> str:
    try:
        about = parse_json(text)
        return shown(f"process {about['pid']} on {about['host']} since {about['since']}")
    except (ValueError, TypeError, KeyError):  # it has the lock, and has not yet written who it is
        return "one"


def sweep(folder: Path, also: re.Pattern[str] = TEMPORARY) -> None:
    """Remove what killed processes were writing in a folder, but not in those within it.

    `also`: names that may be removed besides.
    """
    with suppress(FileNotFoundError, PermissionError):
        for path in list(folder.iterdir()):
            if (TEMPORARY.fullmatch(path.name) or also.fullmatch(path.name)) and not _is_in_use(path):
                _discard(path)


def _is_in_use(path: Path) -> bool:
    """Whether a process that lives is writing this file or folder."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks, where nobody can know
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """A folder in `folder` to write files to; what is left of it at the end is removed."""
    stage = temporary(folder)
    stage.mkdir()
    descriptor = None if fcntl is None else os.open(stage, os.O_RDONLY)
    try:
        if descriptor is not None:
            in_use(descriptor)
        yield stage
    finally:
        if descriptor is not None:
            os.close(descriptor)
        _discard(stage)


def _discard(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_together(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write files of a folder, which is made if missing, so that readers, and a kill, see all of them or none.

    A folder that has no others is replaced by a folder with these. In one that has, they are committed: see `commit`.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise OSError(f"{shown(folder)}: expected a folder that can be written; got a file")
    with made_folder(folder.parent), naming(folder):
        alone = not folder.exists() or {path.name for path in folder.iterdir()} <= {*files, COMMITTED}
        if not (alone and _swap(folder, files)):
            commit(folder, files)


def _swap(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Put a folder of these files in the place of `folder`; False where the system cannot do that in one step."""
    if folder.exists() and not os.access(folder.parent, os.W_OK):
        return False
    sweep(folder.parent)
    with _stage(folder.parent) as stage:
        _fill(stage, folder, files)
        if folder.exists():
            there, made = folder.stat(), stage.stat()
            if (there.st_uid, there.st_gid) != (made.st_uid, made.st_gid):
                return False
            stage.chmod(stat.S_IMODE(there.st_mode))
        try:
            os.rename(stage, folder)
        except OSError:  # a folder with files is there
            if not _exchange(stage, folder):
                return False
            for path in stage.iterdir():
                if path.name not in {*files, COMMITTED}:  # of others, who wrote it just now
                    os.rename(path, folder / path.name)
        sync_folder(folder.parent)
        return True


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False if the system or the file system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(call(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0)


def commit(folder: Path, files: Mapping[str, bytes], clear: Callable[[], None] | None = None) -> None:
    """Write files into a folder in one step, after `clear()`, which removes what they replace.

    They are written beside, and moved once all are on the disk. A kill before that leaves the folder as it was; after
    it `member` finds them, and the next `finish` moves the rest.
    """
    with naming(folder):
        folder.mkdir(exist_ok=True)
        finish(folder, files, clear)
        sweep(folder)
        with _stage(folder) as stage:
            _fill(stage, folder, files)
            if clear is not None:
                (stage / CLEAR).touch()
            os.rename(stage, folder / COMMITTED)
            sync_folder(folder)
        finish(folder, files, clear)


def finish(folder: Path, names: Collection[str], clear: Callable[[], None] | None = None) -> None:
    """Complete a `commit` of files of these names that a kill cut short, if there is one."""
    stage = folder / COMMITTED
    if stage.is_symlink() or not stage.is_dir():
        return
    if clear is not None and (stage / CLEAR).is_file():
        clear()
        (stage / CLEAR).unlink()
    for name in names:
        if (stage / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(stage / name, folder / name)
            sync_folder((folder / name).parent)
    shutil.rmtree(stage)


def _fill(stage: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = stage / name
        path.parent.mkdir(exist_ok=True)
        with naming(folder / name):
            with open(path, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)


def member(folder: Path, name: str) -> Path:
    """The path of a file of a folder, which a kill may have left committed but not moved."""
    committed = folder / COMMITTED / name
    return committed if committed.is_file() and not (folder / COMMITTED).is_symlink() else folder / name


def read_whole(folder: Path, read: Callable[[], T]) -> T:
    """`read()`, again if the files of the folder were replaced meanwhile: of one write, never of two."""
    while True:
        before = _state(folder)
        try:
            value = read()
        except (OSError, ValueError):
            if _state(folder) == before:
                raise
            continue
        if _state(folder) == before:
            return value


def _state(folder: Path) -> list[Any]:
    """What tells a folder and its files from others of the same names."""
    with suppress(FileNotFoundError):
        stats = [folder.stat(), *(path.stat() for path in sorted(folder.iterdir()) if path.is_file())]
        return [(entry.st_ino, entry.st_mtime_ns, entry.st_size) for entry in stats]
    return []
