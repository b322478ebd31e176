"""Audio: windows of mu-law samples of a folder of WAV or FLAC files, as images of one row of 256 levels."""

from __future__ import annotations

import io
import wave
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from genfast._text import shown
from genfast.data._images import ImageData, image_data
from genfast.data._registry import DataRequest, register_dataset
from genfast.data._text import counted, reason
from genfast.data.splits import split_indices
from genfast.data.text import windows_of

LENGTH = 1024  # samples of a window that is not asked for
LEVELS = 256
SUFFIXES = (".wav", ".flac")


def mu_law(waves: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as levels: `round(127.5 (1 + sign(x) log(1 + 255 |x|) / log 256))`, uint8.

    Paper: ITU-T G.711, as in WaveNet, section 2.2, arXiv 1609.03499.
    """
    x = np.clip(np.asarray(waves, np.float64), -1, 1)
    return np.rint((np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256) + 1) * 127.5).astype(np.uint8)


def inverse_mu_law(levels: np.ndarray) -> np.ndarray:
    """The samples in [-1, 1] of levels, float64: the inverse of `mu_law` but for its rounding."""
    y = np.asarray(levels, np.float64) / 127.5 - 1
    return np.sign(y) * np.expm1(np.abs(y) * np.log(256)) / 255


def wav_bytes(levels: np.ndarray, rate: int) -> bytes:
    """A WAV file of 16 bits of sequences of levels, uint8 [n, T], one after the other."""
    samples = np.rint(inverse_mu_law(levels.reshape(-1)) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


@register_dataset(
    "audio:FOLDER", "windows of --size samples of .wav and .flac files", options=("size",), reads_all=True
)
def _read(request: DataRequest) -> ImageData:
    folder, length = Path(request.name.removeprefix("audio:")), request.size or LENGTH
    if not folder.is_dir():
        raise FileNotFoundError(f"data: expected a folder {shown(folder)}; got none")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    chosen = [paths[i] for i in split_indices(len(paths), request.split)]
    if not chosen:
        expected = f"at least 10 .wav or .flac files, so that one is for {request.split}"
        raise ValueError(f"{shown(folder)}: expected {expected}; got {len(paths)}")
    rate = _rate(paths)
    windows, short = [], 0
    for path in chosen:
        waves = _samples(path)
        short += len(waves) < length
        if len(waves) >= length:
            windows.append(windows_of(mu_law(waves), length, length))
    if not windows:
        raise ValueError(f"{shown(folder)}: expected a file of {length} samples (--size); got only shorter ones")
    data = image_data(np.concatenate(windows), LEVELS, f"{request.name}[{request.split}]")
    notes = (f"{shown(folder)}: {counted(short, 'file')} of fewer than {length} samples left out",) if short else ()
    return replace(data, rate=rate, notes=notes)


def _rate(paths: list[Path]) -> int:
    """Samples a second of all files, of every split, which have one channel."""
    rate = 0
    for path in paths:
        info = _opened(path, "info")
        if info.channels != 1:
            raise ValueError(f"{shown(path)}: expected one channel; got {info.channels}: mix them before")
        if rate and info.samplerate != rate:
            raise ValueError(
                f"{shown(path)}: expected {rate} samples a second, as the files before; got {info.samplerate}"
            )
        rate = int(info.samplerate)
    return rate


def _samples(path: Path) -> np.ndarray:
    """The samples in [-1, 1] of a file of one channel."""
    waves: np.ndarray = _opened(path, "read", dtype="float64", always_2d=True)[0][:, 0]
    if not np.isfinite(waves).all():
        raise ValueError(f"{shown(path)}: expected finite samples; got some that are not")
    return waves


def _opened(path: Path, function: str, **options: Any) -> Any:
    try:
        soundfile = import_module("soundfile")
    except ImportError:
        raise RuntimeError("audio: expected the package soundfile; pip install soundfile; got none") from None
    try:
        return {"info": soundfile.info, "read": soundfile.read}[function](str(path), **options)
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{shown(path)}: expected a readable WAV or FLAC file; got {reason(error)}") from None
