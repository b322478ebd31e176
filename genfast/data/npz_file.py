"""An .npz file as an archive of arrays that are read block by block, within a limit of memory."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from genfast.data._budget import check_size
from genfast.data._images import BLOCK
from genfast.data._text import printable, reason

# What zipfile, zlib and NumPy's header parser raise on corrupted bytes.
BROKEN: tuple[type[BaseException], ...] = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SyntaxError, IndexError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)
try:
    import lzma

    BROKEN = (*BROKEN, lzma.LZMAError)
except ImportError:  # a Python that was built without it
    pass


@dataclass(frozen=True)
class Stored:
    """An array of a file, not read yet: as its header describes it, which agrees with the size of its entry."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    entry: zipfile.ZipInfo

    @property
    def is_compressed(self) -> bool:
        """Whether the entry may hold more than its bytes."""
        return self.entry.compress_type != zipfile.ZIP_STORED


class NpzFile:
    """The arrays of an .npz file; a context. ValueError, with the path, for a file that is broken or no .npz.

    Args:
        path: of the file.
        max_gb: memory of one array, in 10**9 bytes; None: half of the memory, and what its entry may plausibly hold.
    """

    def __init__(self, path: str | Path, max_gb: float | None = None) -> None:
        self.path, self.max_gb = Path(path), max_gb
        try:
            self.file = zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: expected an .npz file; got no such file") from None
        except BROKEN as error:
            raise self._broken(error) from None
        try:
            self.arrays = self._headers()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def read(self, key: str) -> np.ndarray:
        """A whole array."""
        stored = self.arrays[key]
        self.check_size(stored, stored.dtype.itemsize)
        try:
            array: np.ndarray = np.empty(stored.shape, stored.dtype, order="F" if stored.fortran else "C")
        except (ValueError, MemoryError) as error:  # of no elements, but sizes beyond all numbers
            raise self._broken(error) from None
        for axis, start, block in self.blocks(key):
            _along(array, axis, start, block)[...] = block
        return array

    def check_size(self, stored: Stored, itemsize: int = 1) -> None:
        """ValueError for an array that is too large, as `check_size`, with elements of so many bytes."""
        compressed = stored.entry.compress_size if stored.is_compressed else None
        size = prod(stored.shape) * itemsize
        check_size(size, self.name(stored.key), self.max_gb, compressed=compressed)

    def blocks(self, key: str) -> Iterator[tuple[int, int, np.ndarray]]:
        """(axis, start, block): an array in parts along an axis, the first or, in Fortran's order, the last."""
        stored = self.arrays[key]
        shape = stored.shape[::-1] if stored.fortran else stored.shape
        if not shape:
            shape = (1,)
        rows = max(1, BLOCK // max(1, prod(shape[1:]) * stored.dtype.itemsize))
        try:
            with self.file.open(stored.entry) as file:
                _header(file)
                for start in range(0, shape[0], rows):
                    block: np.ndarray = np.empty((min(rows, shape[0] - start), *shape[1:]), stored.dtype)
                    _fill(file, block)
                    if not stored.shape:
                        yield 0, 0, block.reshape(())
                    else:
                        yield len(shape) - 1 if stored.fortran else 0, start, block.T if stored.fortran else block
                file.read(1)  # the end, where the checksum is compared
        except BROKEN as error:
            raise self._broken(error) from None

    def name(self, key: str) -> str:
        """An array of the file, for a message."""
        return f"{self.path}[{key}]"

    def _headers(self) -> dict[str, Stored]:
        arrays: dict[str, Stored] = {}
        for entry in self.file.infolist():
            key = printable(entry.filename.removesuffix(".npy"))
            if entry.is_dir() or not entry.filename.endswith(".npy"):
                raise ValueError(f"{self.path}: expected arrays alone, .npy; got {printable(entry.filename)}")
            if key in arrays:
                raise ValueError(f"{self.path}: expected one array of a name; got two of {key}")
            try:
                with self.file.open(entry) as file:
                    shape, fortran, dtype = _header(file)
                    held = entry.file_size - file.tell()
            except BROKEN as error:
                raise self._broken(error) from None
            if dtype.hasobject:
                raise ValueError(f"{self.path}: expected an .npz file, nothing pickled; got pickled objects in {key}")
            if held != prod(shape) * dtype.itemsize:
                sizes = f"{prod(shape) * dtype.itemsize} bytes for shape {shape} of {dtype}; got {held}"
                raise ValueError(f"{self.path}[{key}]: expected {sizes}")
            arrays[key] = Stored(key, shape, dtype, fortran, entry)
        return arrays

    def _broken(self, error: BaseException) -> ValueError:
        return ValueError(f"{self.path}: expected an .npz file, nothing pickled; got {reason(error)}")


def read_npz(path: str | Path, max_gb: float | None = None) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name. ValueError, with the path, for a file that is broken or no .npz."""
    with NpzFile(path, max_gb) as file:
        return {key: file.read(key) for key in file.arrays}


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether in Fortran's order, dtype) of an .npy file. ValueError for a header that none can be."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version} of .npy")
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = parse(file)
    if any(type(size) is not int or size < 0 for size in shape) or len(shape) > 32:
        raise ValueError(f"shape {shape}")
    return shape, fortran, dtype


def _fill(file: IO[bytes], block: np.ndarray) -> None:
    view = block.reshape(-1).view(np.uint8).data if block.size and block.dtype.itemsize else memoryview(b"")
    while len(view):
        part = file.read(min(len(view), 2**18))
        if not part:
            raise EOFError("the end of an array before its last value")
        view[: len(part)] = part
        view = view[len(part) :]


def _along(array: np.ndarray, axis: int, start: int, block: np.ndarray) -> np.ndarray:
    """The part of an array that a block of `NpzFile.blocks` is."""
    if not array.ndim:
        return array
    return array[(slice(None),) * axis + (slice(start, start + block.shape[axis]),)]
