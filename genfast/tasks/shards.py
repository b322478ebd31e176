"""Many samples in a folder: .npz files of a fixed number of images, written atomically, and a manifest.

After an interruption, the same call completes the folder, with the same files byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genfast._text import shown
from genfast.engine.arguments import check_count, check_int, check_labels
from genfast.engine.decoder import DecodingEngine, engine_of
from genfast.engine.engine import Engine
from genfast.engine.protocols import Named
from genfast.engine.wrappers import unwraps
from genfast.folders import OF_FIRST_VERSION, only_writer, sweep
from genfast.io import open_file, read_json, write_bytes, write_json
from genfast.tasks.sample import stream

MANIFEST = "manifest.json"
COMMENT, SEAL = struct.Struct("<H"), 64  # the length of a comment ends a .zip without one


@unwraps
def sample_shards(
    model: nn.Module | Engine | DecodingEngine,
    n: int,
    folder: str | Path,
    *,
    seed: int = 0,
    first: int = 0,
    temperature: float = 1.0,
    labels: int | Tensor | None = None,
    shard: int = 1000,
    batch_size: int | None = None,
    backend: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the images of `genfast.sample` as `folder`/samples-00000.npz, samples-00001.npz, ...

    Each file has `shard` images, the last one the rest: `images` [k, C, H, W], of the dtype of `genfast.sample`,
    `levels`, and `labels` for a conditional model. It ends with a checksum of its bytes, its place and the settings, as
    the comment of the archive. Existing files of a run with the same settings are kept; a damaged one is drawn again.

    Args:
        model, n, seed, first, temperature, labels, batch_size, backend: as `genfast.sample`.
        folder: made if missing.
        shard: images in a file.
        progress: called with the number of images of each file that was written or existed.
    Returns: how many images were drawn in this call.
    Raises: as `genfast.sample`; ValueError for a folder with samples of other settings; OSError if a file cannot be
        written (finished files remain); RuntimeError if another process is writing into the folder.
    """
    engine = engine_of(model, backend=backend)
    spec, device = engine.network.spec, engine.network.device
    n, first, seed = check_count("sample", n, first, seed, temperature)
    check_int("sample", "shard", shard, 1)
    labels = check_labels("sample", labels, spec, n, device)
    settings = _settings(engine, n, seed=seed, first=first, temperature=temperature, labels=labels, shard=shard)
    drawn = 0
    with only_writer(folder) as folder:
        _begin(folder, settings)
        sweep(folder, OF_FIRST_VERSION)
        for index, start in enumerate(range(0, n, shard)):
            path, end = folder / f"samples-{index:05d}.npz", min(start + shard, n)
            about = f"{path.name} {json.dumps(settings)}"
            if not _is_whole(path, about):
                of_file = None if labels is None else labels[start:end]
                options: Any = {"seed": seed, "first": first + start, "temperature": temperature, "labels": of_file}
                batches = stream(engine, end - start, batch_size=batch_size, **options)
                images = torch.cat([batch.cpu() for batch in batches])
                arrays: dict[str, Any] = {"images": images.numpy(), "levels": np.int64(spec.levels)}
                if of_file is not None:
                    arrays["labels"] = of_file.cpu().numpy()
                write_bytes(path, _sealed(archive(arrays), about))
                drawn += end - start
            if progress is not None:
                progress(end - start)
    return drawn


def archive(arrays: dict[str, Any]) -> bytes:
    """The bytes of an .npz file, without times: the same for the same arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with file.open(entry, "w") as stored:
                np.lib.format.write_array(stored, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def _sealed(archive: bytes, about: str) -> bytes:
    """An archive with a comment, of which `about` says where it belongs: the SHA-256 of all but the comment."""
    rest = archive[: -COMMENT.size] + COMMENT.pack(SEAL)
    return rest + hashlib.sha256(about.encode() + rest).hexdigest().encode()


def _is_whole(path: Path, about: str) -> bool:
    """Whether a file is as `_sealed` made it; another one is drawn again, whatever is wrong with it."""
    checksum = hashlib.sha256(about.encode())
    try:
        with open_file(path, "samples") as file:
            left = os.fstat(file.fileno()).st_size - SEAL
            while left > 0:
                part = file.read(min(left, 2**20))
                if not part:
                    return False
                checksum.update(part)
                left -= len(part)
            return file.read() == checksum.hexdigest().encode()
    except OSError:
        return False


def digest(model: nn.Module) -> str:
    """SHA-256 of the class, the config and the weights of a model."""
    config = vars(model).get("config")
    fields = sorted(asdict(config).items()) if is_dataclass(config) and not isinstance(config, type) else ""
    described = f"{type(model).__name__} {fields}"
    checksum = hashlib.sha256(described.encode())
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        checksum.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        checksum.update(value.flatten().view(torch.uint8).numpy())
    return checksum.hexdigest()


def _settings(
    engine: Engine | DecodingEngine,
    n: int,
    *,
    seed: int,
    first: int,
    temperature: float,
    labels: Tensor | None,
    shard: int,
) -> dict[str, Any]:
    """What the files depend on: the content of the manifest."""
    spec = engine.network.spec
    conventions = engine.conventions if isinstance(engine, Engine) else None
    told = {} if conventions is None else {"conventions": conventions.digest()}
    return told | {
        "model": engine.model.name if isinstance(engine.model, Named) else type(engine.model).__name__,
        "digest": digest(engine.model),
        # Another backend may draw another level within rounding of a boundary.
        "backend": f"{engine.backend} on {engine.network.device.type}",
        "n": n,
        "first": first,
        "seed": seed,
        "temperature": float(temperature),
        "labels": None if labels is None else hashlib.sha256(labels.cpu().numpy().tobytes()).hexdigest(),
        "shard": shard,
        "image": list(spec.shape),
        "levels": spec.levels,
    }


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Write the manifest, or compare the existing one."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        if samples := sorted(folder.glob("samples-*.npz")):
            expected, got = f"a folder without samples, or their {MANIFEST}", shown(samples[0].name)
            raise ValueError(f"{shown(folder)}: expected {expected}; got {got}")
        write_json(manifest, settings)
        return
    there = read_json(manifest, "samples")
    for name, value in settings.items():
        if there.get(name) != value:
            expected = f"the {name} of the samples that are there, {shown(there.get(name), 100)}, or another folder"
            raise ValueError(f"{shown(folder)}: expected {expected}; got {value}")
