"""Text: windows of the characters or the bytes of a file, as images of one row whose levels are symbols."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from genfast._text import shown
from genfast.data._images import ImageData, image_data
from genfast.data._registry import DataRequest, register_dataset
from genfast.data._text import reason
from genfast.data.splits import ALL
from genfast.io import open_file

LENGTH = 256  # symbols of a window that is not asked for
OVERLAP = 4  # training windows begin a fourth of their length apart
# What the alphabet of bytes is called by: no text has all of these characters.
BYTES = "".join(map(chr, range(256)))


@register_dataset("text:FILE", "windows of --size characters of a text", options=("size",), reads_all=True)
def _read_text(request: DataRequest) -> ImageData:
    path = Path(request.name.removeprefix("text:"))
    try:
        text = _content(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)}: expected text in UTF-8, or bytes:FILE; got {reason(error)}") from None
    alphabet = "".join(sorted(set(text)))
    if not 2 <= len(alphabet) <= 256 or alphabet == BYTES:
        expected = "2 to 256 different characters, or bytes:FILE"
        raise ValueError(f"{shown(path)}: expected a text of {expected}; got {len(alphabet)}")
    return _windows(encode_text(text, alphabet), alphabet, path, request)


@register_dataset("bytes:FILE", "windows of --size bytes of a file", options=("size",), reads_all=True)
def _read_bytes(request: DataRequest) -> ImageData:
    path = Path(request.name.removeprefix("bytes:"))
    return _windows(np.frombuffer(_content(path), np.uint8), BYTES, path, request)


def _content(path: Path) -> bytes:
    with open_file(path, "data") as file:
        return file.read()


def encode_text(text: str, alphabet: str) -> np.ndarray:
    """The symbols of a text, uint8: the places of its characters in the alphabet, or its bytes in UTF-8 for `BYTES`.

    Raises: ValueError for a character that the alphabet does not have.
    """
    if alphabet == BYTES:
        return np.frombuffer(text.encode("utf-8"), np.uint8)
    places = {character: place for place, character in enumerate(alphabet)}
    if unknown := next((character for character in text if character not in places), None):
        raise ValueError(f"text: expected characters of {shown(repr(alphabet), 300)}; got {shown(repr(unknown))}")
    return np.array([places[character] for character in text], np.uint8)


def symbols_of(split: str, count: int) -> slice:
    """Which of `count` symbols in a row belong to a split: the last tenth to the test, the twentieth before it to the
    validation, the others to the training."""
    valid, test = count - count // 10 - count // 20, count - count // 10
    return {"train": slice(valid), "valid": slice(valid, test), "test": slice(test, count), ALL: slice(count)}[split]


def windows_of(symbols: np.ndarray, length: int, step: int) -> np.ndarray:
    """Windows of a row of symbols, `step` apart: uint8 [N, 1, 1, length]; what is left at its end is left out."""
    return np.lib.stride_tricks.sliding_window_view(symbols, length)[::step][:, None, None].copy()


def _windows(symbols: np.ndarray, alphabet: str, path: Path, request: DataRequest) -> ImageData:
    part, length, split = symbols[symbols_of(request.split, len(symbols))], request.size or LENGTH, request.split
    if len(part) < length:
        expected = f"a window of {length} symbols in {split} (--size is its length)"
        raise ValueError(f"{shown(path)}: expected {expected}; got {len(part)} of {len(symbols)}")
    step = max(1, length // OVERLAP) if split == "train" else length
    windows = windows_of(part, length, step)
    data = image_data(windows, len(alphabet), f"{request.name}[{split}]")
    left = len(part) - ((len(windows) - 1) * step + length)
    notes = (f"{shown(path)}: the last {left} symbols of {split} fill no window",) if left else ()
    return replace(data, alphabet=alphabet, notes=notes)
