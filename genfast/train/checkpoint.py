"""Checkpoints: the whole state of a run in one file, which is replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genfast.io import write_bytes

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
    return save(tensors, metadata={"format": FORMAT, "state": json.dumps(state)})


def save_checkpoint(run: str | Path, tensors: Tensors, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint/state.safetensors."""
    write_bytes(checkpoint_path(run), checkpoint_bytes(tensors, state))


def is_checkpoint(run: str | Path) -> bool:
    """Whether a folder has a checkpoint of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint_path(run), framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load_checkpoint(run: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """The (tensors, state) of the last checkpoint. Raises: FileNotFoundError; ValueError for an unusable file."""
    from safetensors import SafetensorError, safe_open

    path = checkpoint_path(run)
    if not path.is_file():
        got = "none: a run that was stopped before its first starts again without --resume"
        raise FileNotFoundError(f"{run}: expected a checkpoint {path} to resume from; got {got}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected a whole checkpoint; got {error}") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a checkpoint of format {FORMAT}; got {metadata.get('format')}")
    return tensors, json.loads(metadata["state"])


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
