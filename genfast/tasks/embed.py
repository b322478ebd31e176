"""Embeddings: posterior means, a file of them, and nearest neighbours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genfast import ops
from genfast._text import shown
from genfast.engine.arguments import as_tensor, check_images
from genfast.engine.calling import evaluating
from genfast.engine.protocols import LatentModel, device_of
from genfast.engine.wrappers import unwraps
from genfast.io import check_free, check_writable, replacing, write_bytes
from genfast.tasks._latent import Call, check_call, check_latent_model

SUFFIXES = (".npz", ".parquet")


@unwraps
@torch.no_grad()
def embed(
    model: LatentModel,
    images: Tensor,
    labels: int | Tensor | None = None,
    *,
    batch_size: int | None = None,
    log_variance: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Images as the means of their posteriors q(z | x).

    Args:
        model: a `genfast.engine.protocols.LatentModel`.
        images: levels, integers [n, C, H, W].
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
        log_variance: whether to return the log-variances of the posteriors as well.
        progress: called with the images of each batch.
    Returns: float32 [n, Z] on the CPU, or two of them, (means, log-variances).
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.embed(model, images)`
    """
    model = check_latent_model("embed", model)
    images = check_images("embed", "images", images, model.spec)
    call = check_call("embed", model, len(images), labels=labels, batch_size=batch_size)
    means, log_variances = (part.float().cpu() for part in posteriors(model, images, call, progress))
    return (means, log_variances) if log_variance else means


def posteriors(
    model: LatentModel, images: Tensor, call: Call, progress: Callable[[int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """(mean, log-variance) of q(z | x), each [n, Z] on the device of the model, of checked arguments."""
    means, log_variances = [], []
    with evaluating(model):
        for part in call.batches():
            mean, log_variance = model.encode(images[part].to(device_of(model)), call.labels_of(part))
            means.append(mean)
            log_variances.append(log_variance)
            if progress is not None:
                progress(len(mean))
    if not means:
        none = torch.zeros(0, model.latent_size, device=device_of(model), dtype=torch.float32)
        return none, none
    return torch.cat(means), torch.cat(log_variances)


def save_embedding(
    path: str | Path,
    means: Tensor,
    *,
    labels: Tensor | None = None,
    log_variances: Tensor | None = None,
    files: Sequence[str] | None = None,
) -> None:
    """Write vectors to FILE.npz or, with pyarrow installed, to FILE.parquet, atomically.

    The arrays of the .npz, and the columns of the Parquet file, are `mean` (float32 [n, Z]; in Parquet a list of Z
    float32), and where they are given `log_variance` (the same), `label` (int64) and `name` (text, of the file); row i
    is image i.

    Args:
        path: its suffix decides the format.
        means, log_variances: float [n, Z].
        labels: integers [n].
        files: n names.
    Raises: ValueError for another ending or shapes that do not fit; ImportError for Parquet without pyarrow.
    """
    write = embedding_writer(path)
    columns = {"mean": _matrix("means", means)}
    if log_variances is not None:
        columns["log_variance"] = _matrix("log_variances", log_variances)
        if columns["log_variance"].shape != columns["mean"].shape:
            sizes = f"{columns['mean'].shape}; got {columns['log_variance'].shape}"
            raise ValueError(f"save_embedding: log_variances must have shape {sizes}")
    if labels is not None:
        columns["label"] = np.asarray(labels)
        if columns["label"].shape != (len(means),) or columns["label"].dtype.kind not in "ui":
            got = f"{columns['label'].dtype} {columns['label'].shape}"
            raise ValueError(f"save_embedding: labels must be integers [n] with n={len(means)}; got {got}")
        columns["label"] = columns["label"].astype(np.int64)
    if files is not None:
        if len(files) != len(means):
            raise ValueError(f"save_embedding: files must be n names with n={len(means)}; got {len(files)}")
        columns["name"] = np.asarray(files, dtype=np.str_)
    write(columns)


def embedding_writer(path: str | Path) -> Callable[[dict[str, np.ndarray]], None]:
    """A function that writes columns to `path`; raises at once if that cannot be."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        got = path.suffix or "no ending"
        raise ValueError(f"{shown(path)}: expected a name ending in {' or '.join(SUFFIXES)}; got {got}")
    check_free(path, overwrite=True)
    check_writable(path.parent)
    if path.suffix.lower() == ".npz":
        return lambda columns: write_bytes(path, _npz(columns))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            f"{shown(path)}: expected the package pyarrow for Parquet, or a name ending in .npz"
        ) from None

    def write(columns: dict[str, np.ndarray]) -> None:
        arrays = {name: _column(pyarrow, array) for name, array in columns.items()}
        with replacing(path) as file:
            pyarrow.parquet.write_table(pyarrow.table(arrays), file)

    return write


def _npz(columns: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {**columns}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _column(pyarrow: Any, array: np.ndarray) -> Any:
    if array.ndim == 1:
        return pyarrow.array(array)
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.reshape(-1)), array.shape[1])


def _matrix(name: str, values: Tensor) -> np.ndarray:
    array = np.ascontiguousarray(as_tensor(values).detach().cpu().float().numpy())
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"save_embedding: {name} must have shape [n, Z]; got {array.shape}")
    return array


def neighbours(queries: Tensor, points: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """The k nearest points of each query, the nearest first: (distances float [n, k], indices int64 [n, k]).

    Args:
        queries, points: float [n, Z] and [m, Z], as `embed` returns them.
        k: at most m.
    Raises: as `genfast.ops.nearest_neighbors`.
    """
    squared, indices = ops.nearest_neighbors(queries, points, k)
    return squared.clamp(min=0).sqrt(), indices
