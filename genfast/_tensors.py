"""Files of named tensors in the format safetensors: what a file claims to hold is checked before anything is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genfast._text import shown
from genfast.io import JSONError, memory, open_file, parse_json

MOST_HEADER = 2**24  # bytes: more than 100,000 tensors
M = TypeVar("M")
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
DTYPES = {
    **{"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32},
    **{"I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64},
}


@dataclass(frozen=True)
class Kind:
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Kind:
        """That of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype)

    @property
    def bytes(self) -> int:
        """What its values take."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return shown(f"{str(self.dtype).removeprefix('torch.')} {list(self.shape)}")


@dataclass(frozen=True)
class TensorFile:
    """An open file of tensors.

    Attributes:
        path: of the file.
        metadata: its texts, by name.
        kinds: shape and dtype of its tensors, by name.
    """

    path: Path
    metadata: dict[str, str]
    kinds: dict[str, Kind]
    _file: BinaryIO
    _begins: dict[str, int]

    def check(self, expected: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> None:
        """ValueError unless the tensors are those, of these shapes and dtypes; `optional` ones may be missing."""
        known = {**expected, **(optional or {})}
        if missing := sorted(expected.keys() - self.kinds.keys()):
            raise ValueError(f"{shown(self.path)}: expected a tensor {shown(missing[0])}{_more(missing)}; got none")
        if unknown := sorted(self.kinds.keys() - known.keys()):
            got = f"also {shown(unknown[0])}{_more(unknown)}"
            raise ValueError(f"{shown(self.path)}: expected only the {len(known)} tensors that belong there; got {got}")
        for name, kind in self.kinds.items():
            if kind != known[name]:
                raise ValueError(f"{shown(self.path)}: expected {name} of {known[name]}; got {kind}")

    def fill(self, build: Callable[[], M], expected: str) -> M:
        """The model that `build` returns, which is stopped as soon as the model is larger than the tensors of the file.

        ValueError, which `expected` begins, for a model that is larger or cannot be.
        """
        try:
            with _Filling(self):
                return build()
        except _TooLarge:
            held = f"{len(self.kinds)} tensors with {sum(prod(kind.shape) for kind in self.kinds.values())} values"
            raise ValueError(f"{expected} that {held} fill; got those of a larger one") from None
        except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
            raise ValueError(f"{expected}; got {shown(error)}") from None

    def read(self, name: str, finite: bool = True) -> Tensor:
        """A tensor on the CPU. ValueError for values that are not finite, unless they may be."""
        kind = self.kinds[name]
        data = bytearray(kind.bytes)
        self._file.seek(self._begins[name])
        if self._file.readinto(data) != len(data):  # type: ignore[attr-defined]  # of every binary file
            raise ValueError(f"{shown(self.path)}: expected a whole file; got one that was cut off meanwhile")
        tensor = torch.frombuffer(data, dtype=kind.dtype) if data else torch.empty(0, dtype=kind.dtype, device="cpu")
        if finite and kind.dtype.is_floating_point and (bad := int((~tensor.isfinite()).sum())):
            got = f"{bad} values that are not"
            raise ValueError(f"{shown(self.path)}: {shown(name)} must be finite; got {got}")
        return tensor.reshape(kind.shape)


@contextmanager
def tensor_file(path: str | Path, what: str) -> Iterator[TensorFile]:
    """A safetensors file. FileNotFoundError, which `what` begins, without it; ValueError for a file that is no such."""
    path = Path(path)
    with open_file(path, what) as file:
        try:
            opened = _opened(path, file)
        except _Unusable as error:
            raise ValueError(f"{shown(path)}: expected a whole safetensors file; got {error}") from None
        yield opened


class _Filling(TorchFunctionMode):
    """Refuses new tensors that the model of a file cannot have, before they are made.

    A config of some bytes can ask for any size; what a file of tensors holds is bounded by its length. A model has no
    more tensors and values, but for masks and for what is only needed meanwhile.
    """

    def __init__(self, file: TensorFile) -> None:
        super().__init__()
        # Twice as many for a mask of each weight, and twice that for what is only needed meanwhile; of four bytes each.
        self.values = min(2**16 + 4 * sum(prod(kind.shape) for kind in file.kinds.values()), memory() // 8)
        self.tensors = 100 + 8 * len(file.kinds)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in FACTORIES:
            size = kwargs.get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
            self.values -= prod(n for n in size if isinstance(n, int))
            self.tensors -= 1
            if self.values < 0 or self.tensors < 0:
                raise _TooLarge
        return function(*args, **kwargs)


class _TooLarge(Exception):
    pass


class _Unusable(ValueError):
    pass


def _opened(path: Path, file: BinaryIO) -> TensorFile:
    size, most = os.fstat(file.fileno()).st_size, memory() // 2
    if size > most:
        raise _Unusable(f"{size} bytes, more than {most}, half of the memory")
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MOST_HEADER):
        raise _Unusable(f"{size} bytes" if size < 8 else f"a header of {length} bytes in a file of {size}")
    try:
        header = parse_json(file.read(length))
    except JSONError as error:
        raise _Unusable(f"a header with {error}") from None
    if not isinstance(header, dict):
        raise _Unusable("a header without names")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _Unusable("metadata that are no texts")
    kinds, parts = {}, []
    for name, entry in header.items():
        kinds[name], begin, end = _entry(name, entry)
        parts.append((begin, end, name))
    place = 0
    for begin, end, name in sorted(parts):
        if begin != place:
            raise _Unusable(f"{shown(name)} at byte {begin} instead of {place}")
        place = end
    if place != size - 8 - length:
        raise _Unusable(f"{size - 8 - length} bytes of tensors, which need {place}")
    begins = {name: 8 + length + begin for begin, _, name in parts}
    return TensorFile(path, metadata, kinds, file, begins)


def _entry(name: str, entry: Any) -> tuple[Kind, int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Unusable(f"no dtype, shape and data_offsets of {shown(name)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise _Unusable(f"{shown(numbers, 100)} for {shown(name)}")
    dtype = DTYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise _Unusable(f"dtype {shown(entry['dtype'], 40)} of {shown(name)}, none of {', '.join(DTYPES)}")
    kind = Kind(tuple(shape), dtype)
    # torch takes no more dimensions; of an empty tensor they could be any number.
    if len(shape) > 64 or max(shape, default=0) > 2**40 or len(offsets) != 2 or offsets[1] - offsets[0] != kind.bytes:
        raise _Unusable(f"{shown(name)} of {kind} in the bytes {shown(offsets, 100)}")
    return kind, offsets[0], offsets[1]


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
