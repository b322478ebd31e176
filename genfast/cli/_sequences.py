"""What `genfast sample` does with a model of sequences: text that is printed as it is drawn, sound, symbols."""

from __future__ import annotations

import argparse
import codecs
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast._text import shown
from genfast.cli.options import out_path
from genfast.cli.progress import counter
from genfast.data.audio import wav_bytes
from genfast.data.grid import npz
from genfast.data.text import BYTES, encode_text
from genfast.io import write_bytes
from genfast.tasks import stream

CHUNK = 32  # symbols between two prints


def sequence_options(parser: argparse.ArgumentParser) -> None:
    """The options of models of sequences alone."""
    add = parser.add_argument
    add("--length", type=int, metavar="T", help="symbols of a sequence, with those of the prompt (as in training)")
    add("--prompt", metavar="TEXT", help="what a text begins with")


def sample_sequences(args: argparse.Namespace, model: Any, labels: Tensor | None) -> None:
    """Draw sequences, and print them or write them to --out. Raises: ValueError for an option that does not fit."""
    n, length = args.n or 1, model.config.width if args.length is None else args.length
    alphabet, given = model.config.alphabet, None
    for name, value in {"--shard": args.shard, "--batch-size": args.batch_size}.items():
        if value is not None:
            raise ValueError(f"{name}: expected none for a {model.name}, whose sequences go into one file; got {value}")
    if args.prompt is not None:
        if not alphabet or not args.prompt:
            got = "an empty one" if alphabet else f"one for symbols of a {model.name} that are no characters"
            raise ValueError(f"prompt: expected a text of at least one character; got {got}")
        given = torch.from_numpy(encode_text(args.prompt, alphabet).copy())[None]
    write = _writer(args, model)
    settings = {"seed": args.seed, "first": args.first, "temperature": args.temperature, "backend": args.backend}
    if write is None:
        for i in range(n):
            one = None if labels is None else labels[i : i + 1]
            settings["first"] = args.first + i
            if n > 1:
                print(heading(args.first + i))
            print_text(stream(model, 1, length=length, chunk=CHUNK, labels=one, given=given, **settings), alphabet)
        return
    start, parts = time.perf_counter(), []
    with counter(length, "symbol") as progress:
        for part in stream(model, n, length=length, labels=labels, given=given, **settings):
            parts.append(part.cpu())
            progress(part.shape[1])
    write(torch.cat(parts, 1))
    rate = n * length / (time.perf_counter() - start)
    print(f"{shown(args.out)}: {n} x {length} symbols, {rate:.0f} symbols/s")


def _writer(args: argparse.Namespace, model: Any) -> Callable[[Tensor], object] | None:
    """What writes the sequences to --out; None where they are printed. Raises: ValueError for what cannot be."""
    config, suffix = model.config, Path(args.out).suffix.lower() if args.out else ""
    if not args.out:
        if config.alphabet:
            return None
        named = "FILE.wav" if config.rate else "FILE.npz"
        raise ValueError(f"out: expected --out {named} for symbols that are no text; got none")
    path = out_path(args)
    if suffix == ".txt" and config.alphabet:
        return lambda x: write_bytes(path, _texts(x, config.alphabet, args.first).encode())
    if suffix == ".wav" and config.rate:
        return lambda x: write_bytes(path, wav_bytes(x.numpy(), config.rate))
    if suffix == ".npz":
        return lambda x: write_bytes(path, npz(x[:, None, None], config.levels))
    kind = "FILE.txt or " if config.alphabet else "FILE.wav or " if config.rate else ""
    raise ValueError(f"out: expected {kind}FILE.npz for a {model.name}; got {shown(args.out)}")


def heading(number: int) -> str:
    """The line before one of several texts, which may have lines of any kind themselves."""
    return f"--- {number} ---"


def _texts(x: Tensor, alphabet: str, first: int) -> str:
    texts = [as_text(row, alphabet) for row in x.numpy()]
    if len(texts) == 1:
        return texts[0]
    return "".join(f"{heading(first + i)}\n{text}\n" for i, text in enumerate(texts))


def as_text(symbols: np.ndarray, alphabet: str) -> str:
    """Symbols as text; bytes that are no UTF-8 as the replacement character."""
    if alphabet == BYTES:
        return symbols.astype(np.uint8).tobytes().decode("utf-8", "replace")
    return "".join(alphabet[symbol] for symbol in symbols)


def print_text(chunks: Any, alphabet: str) -> None:
    """Print chunks [1, up to CHUNK] of symbols as they are drawn."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        row = chunk[0].cpu().numpy()
        sys.stdout.write(decoder.decode(row.tobytes()) if alphabet == BYTES else as_text(row, alphabet))
        sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", True) + "\n")
