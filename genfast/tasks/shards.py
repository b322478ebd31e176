"""Many samples in a folder: .npz files of a fixed number of images, each whole or not there, and a manifest.

A run that was killed is finished by starting it again: the same files, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_count, check_int, check_labels
from genfast.engine.decoder import engine_of
from genfast.engine.protocols import Named
from genfast.io import read_json, writable_folder, write_bytes, write_json
from genfast.tasks.sample import stream

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MANIFEST = "manifest.json"
# What a killed process may leave: temporary files of `genfast.io`.
LEFT_OVER = (".samples-*.npz.tmp", f".{MANIFEST}.tmp", ".writable-*")


def sample_shards(
    model: nn.Module,
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

    Each file has `shard` images (the last one what is left): `images` uint8 [k, C, H, W], `levels`, and `labels` of a
    conditional model. What is there already, from a run with the same settings, is kept.

    Args:
        model, n, seed, first, temperature, labels, batch_size, backend: as `genfast.sample`.
        folder: made if it is not there.
        shard: images of a file.
        progress: called with the number of images that were written, or found to be there.
    Returns: how many images were drawn in this call.
    Raises: as `genfast.sample`; ValueError for a folder with samples of other settings; OSError where a file cannot
        be written, the finished ones stay; RuntimeError where another process is writing into the folder.
    """
    engine = engine_of(model, backend=backend)
    spec, device = engine.network.spec, engine.network.device
    n, first, seed = check_count("sample", n, first, seed, temperature)
    check_int("sample", "shard", shard, 1)
    labels = check_labels("sample", labels, spec, n, device)
    settings = _settings(engine, n, seed=seed, first=first, temperature=temperature, labels=labels, shard=shard)
    folder, drawn = writable_folder(folder), 0
    with _only_writer(folder):
        _begin(folder, settings)
        for index, start in enumerate(range(0, n, shard)):
            path, end = folder / f"samples-{index:05d}.npz", min(start + shard, n)
            if not _is_whole(path, (end - start, *spec.shape)):
                chosen = None if labels is None else labels[start:end]
                options = {"seed": seed, "first": first + start, "temperature": temperature, "labels": chosen}
                batches = stream(model, end - start, batch_size=batch_size, backend=backend, **options)
                images = torch.cat([batch.cpu() for batch in batches])
                arrays = {"images": images.numpy(), "levels": np.int64(spec.levels)}
                if chosen is not None:
                    arrays["labels"] = chosen.cpu().numpy()
                write_bytes(path, archive(arrays))
                drawn += end - start
            if progress is not None:
                progress(end - start)
    return drawn


def archive(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an .npz file, the same for the same arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with file.open(entry, "w") as stored:
                np.lib.format.write_array(stored, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def digest(model: nn.Module) -> str:
    """SHA-256 of the kind of a model, its config and its weights."""
    config = vars(model).get("config")
    described = f"{type(model).__name__} {sorted(asdict(config).items()) if is_dataclass(config) else ''}"
    found = hashlib.sha256(described.encode())
    for name, value in sorted(model.state_dict().items()):
        value = value.detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _settings(engine, n, *, seed, first, temperature, labels, shard):
    """What the files depend on, as the manifest holds it."""
    spec = engine.network.spec
    return {
        "model": engine.model.name if isinstance(engine.model, Named) else type(engine.model).__name__,
        "digest": digest(engine.model),
        # Other arithmetic may draw another level where a number lies within rounding of a boundary.
        "backend": f"{engine.backend} on {engine.network.device.type}",
        "n": n,
        "first": first,
        "seed": seed,
        "temperature": float(temperature),
        "labels": None if labels is None else hashlib.sha256(labels.cpu().numpy()).hexdigest(),
        "shard": shard,
        "image": list(spec.shape),
        "levels": spec.levels,
    }


def _begin(folder, settings):
    """Remove what a killed run left, and write the manifest or compare with the one that is there."""
    for pattern in LEFT_OVER:
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    manifest = folder / MANIFEST
    if not manifest.exists():
        if found := sorted(folder.glob("samples-*.npz")):
            raise ValueError(f"{folder}: expected a folder without samples, or their {MANIFEST}; got {found[0].name}")
        write_json(manifest, settings)
        return
    there = read_json(manifest, "samples")
    for name, value in settings.items():
        if there.get(name) != value:
            expected = f"the {name} of the samples that are there, {there.get(name)}, or another folder"
            raise ValueError(f"{folder}: expected {expected}; got {value}")


def _is_whole(path, shape):
    """Whether the file has images of that shape; one that was damaged is drawn again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["images"].shape == shape
    except FileNotFoundError:
        return False
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        return False


@contextmanager
def _only_writer(folder):
    """Hold the folder for this process; the system lets go of it even when the process is killed."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RuntimeError(f"{folder}: expected no other process that writes there; got one") from None
    finally:
        os.close(descriptor)
