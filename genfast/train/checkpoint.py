"""Checkpoints: the whole state of a run in one file, which is replaced atomically."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genfast._tensors import Kind, TensorFile, tensor_file
from genfast._text import shown
from genfast.io import JSONError, parse_json, write_bytes

FORMAT = "genfast-checkpoint-1"
STATE = "checkpoint/state.safetensors"
Tensors = dict[str, Tensor]


def checkpoint_path(run: str | Path) -> Path:
    """The file of a run's checkpoint."""
    return Path(run) / STATE


def checkpoint_bytes(tensors: Tensors, state: dict[str, Any]) -> bytes:
    """The content of a checkpoint: named tensors and a `state` of JSON values."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    return save(tensors, metadata={"format": FORMAT, "state": text, "crc32": checksum(tensors, text)})


def save_checkpoint(run: str | Path, tensors: Tensors, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint/state.safetensors."""
    write_bytes(checkpoint_path(run), checkpoint_bytes(tensors, state))


@contextmanager
def open_checkpoint(run: str | Path) -> Iterator[tuple[TensorFile, dict[str, Any]]]:
    """The open last checkpoint and its state. FileNotFoundError without it; ValueError if it is unusable."""
    path = checkpoint_path(run)
    if not os.path.lexists(path):
        got = "none: a run that was stopped before its first starts again without --resume"
        raise FileNotFoundError(f"{shown(run)}: expected a checkpoint {shown(path)} to resume from; got {got}")
    with tensor_file(path, "checkpoint") as file:
        if file.metadata.get("format") != FORMAT:
            got = shown(file.metadata.get("format"))
            raise ValueError(f"{shown(path)}: expected a checkpoint of format {FORMAT}; got {got}")
        try:
            state = parse_json(file.metadata.get("state", ""))
        except JSONError as error:
            raise ValueError(f"{shown(path)}: expected a state in JSON; got {error}") from None
        if not isinstance(state, dict):
            raise ValueError(f"{shown(path)}: expected a state by names; got {shown(repr(state), 100)}")
        yield file, state


def is_checkpoint(run: str | Path) -> bool:
    """Whether a folder has a checkpoint of ours."""
    try:
        with open_checkpoint(run):
            return True
    except (OSError, ValueError):
        return False


def load_checkpoint(run: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """The (tensors, state) of the last checkpoint, whole as it was written; errors as `open_checkpoint`."""
    with open_checkpoint(run) as (file, state):
        return read_tensors(file), state


def read_tensors(file: TensorFile) -> Tensors:
    """The tensors of a checkpoint. ValueError if they are not those that were written."""
    tensors = {name: file.read(name, finite=False) for name in file.kinds}
    saved = file.metadata.get("crc32")  # a checkpoint of an earlier version has none
    if saved not in (None, checksum(tensors, file.metadata["state"])):
        raise ValueError(f"{shown(file.path)}: expected a checkpoint as it was written; got a damaged one")
    return tensors


def checksum(tensors: Tensors, state: str) -> str:
    """CRC-32 of the names and the bytes of tensors, and of the text of a state."""
    value = zlib.crc32(state.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {Kind.of(tensor)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def prefixed(prefix: str, tensors: Mapping[str, Any]) -> Tensors:
    """The tensors with `prefix.` before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors that `prefixed` named so, by their own names."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


@torch.no_grad()
def copy_into(module: nn.Module, tensors: Tensors, what: str) -> None:
    """Copy tensors into a module's state in place. ValueError, which `what` begins, for a tensor that does not fit."""
    target = module.state_dict()
    if set(target) != set(tensors):
        different = sorted(set(target) ^ set(tensors))
        raise ValueError(f"{what}: expected the {len(target)} tensors of the model; differs in {different[0]}")
    for name, tensor in tensors.items():
        expected, got = tuple(target[name].shape), tuple(tensor.shape)
        if expected != got:
            raise ValueError(f"{what}: expected {name} of shape {expected}; got {got}")
        target[name].copy_(tensor)
