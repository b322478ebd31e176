"""Images as vectors: posterior means to a file, nearest neighbours, and how much of the labels they tell."""

import io
from pathlib import Path

import numpy as np
import torch

from genfast import ops
from genfast.engine.arguments import INTEGERS, check_whole
from genfast.engine.full_forward import evaluating
from genfast.engine.latents import batches, check_call, check_levels, describe, part_of
from genfast.io import replacing, writable_folder, write_bytes

SUFFIXES = (".npz", ".parquet")


@torch.no_grad()
def embed(model, images, labels=None, *, batch_size=None, log_variance=False, progress=None):
    """Images as the means of their posteriors q(z | x).

    Args:
        model: with latents (`genfast.engine.latents.is_latent`).
        images: uint8 [n, C, H, W], levels.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
        log_variance: whether to return the log-variances of the posteriors as well.
        progress: called with the images of each batch.
    Returns: float32 [n, Z] on the CPU, or two of them, (means, log-variances).
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.tasks.embed(model, images)`
    """
    network = describe("embed", model)
    check_levels("embed", "images", images, network)
    _, _, labels, size = check_call("embed", network, len(images), labels=labels, batch_size=batch_size)
    found = [part.float().cpu() for part in posteriors(model, network, images, labels, size, progress)]
    return tuple(found) if log_variance else found[0]


def posteriors(model, network, images, labels, size, progress=None):
    """(mean, log-variance) of q(z | x), each [n, Z] on the device of the model, of checked arguments."""
    parts = []
    with evaluating(model):
        for part in batches(len(images), size):
            parts.append(model.encode(images[part].to(network.device), part_of(labels, part)))
            if progress is not None:
                progress(len(parts[-1][0]))
    if not parts:
        none = torch.zeros(0, network.latents, device=network.device)
        return none, none
    return tuple(torch.cat(part) for part in zip(*parts))


def save_embedding(path, means, *, labels=None, log_variances=None):
    """Write vectors to FILE.npz or, with pyarrow installed, to FILE.parquet; whole or not at all.

    The arrays of the .npz, and the columns of the Parquet file, are `mean` (float32 [n, Z]; in Parquet a list of Z
    float32), and where they are given `log_variance` (the same) and `label` (int64); row i is image i.

    Args:
        path: its ending says which.
        means, log_variances: float [n, Z].
        labels: integers [n].
    Raises: ValueError for another ending or shapes that do not fit; ImportError for Parquet without pyarrow.
    """
    write = embedding_writer(path)
    columns = {"mean": _matrix("means", means)}
    if log_variances is not None:
        columns["log_variance"] = _matrix("log_variances", log_variances)
        if columns["log_variance"].shape != columns["mean"].shape:
            expected, got = columns["mean"].shape, columns["log_variance"].shape
            raise ValueError(f"save_embedding: log_variances must have shape {expected}; got {got}")
    if labels is not None:
        columns["label"] = np.asarray(labels)
        if columns["label"].shape != (len(means),) or columns["label"].dtype.kind not in "ui":
            got = f"{columns['label'].dtype} {columns['label'].shape}"
            raise ValueError(f"save_embedding: labels must be integers [n] with n={len(means)}; got {got}")
        columns["label"] = columns["label"].astype(np.int64)
    write(columns)


def embedding_writer(path):
    """A function that writes columns to `path`; what cannot be written fails now."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        got = path.suffix or "no ending"
        raise ValueError(f"{path}: expected a name ending in {' or '.join(SUFFIXES)}; got {got}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write; got a folder")
    if path.suffix.lower() == ".npz":
        writable_folder(path.parent)
        return lambda columns: write_bytes(path, _npz(columns))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"{path}: expected the package pyarrow for Parquet, or a name ending in .npz") from None
    writable_folder(path.parent)

    def write(columns):
        arrays = {name: _column(pyarrow, array) for name, array in columns.items()}
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(pyarrow.table(arrays), temporary)

    return write


def _npz(columns):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)
    return buffer.getvalue()


def _column(pyarrow, array):
    if array.ndim == 1:
        return pyarrow.array(array)
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.reshape(-1)), array.shape[1])


def _matrix(name, values):
    array = np.ascontiguousarray(torch.as_tensor(values).detach().cpu().float().numpy())
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"save_embedding: {name} must have shape [n, Z]; got {array.shape}")
    return array


def neighbours(queries, points, k=5):
    """The k points nearest to each query, the nearest first: (distances float [n, k], indices int64 [n, k]).

    Args:
        queries, points: float [n, Z] and [m, Z], as `embed` returns them.
        k: at most m.
    Raises: as `genfast.ops.nearest_neighbors`.
    """
    squared, indices = ops.nearest_neighbors(queries, points, k)
    return squared.clamp(min=0).sqrt(), indices


def neighbour_accuracy(points, labels, queries, query_labels, k=5):
    """Share of queries whose label is that of most of their k nearest points; of labels equally frequent, the one whose
    point is nearest.

    Args: points, queries: float [m, Z], [n, Z]; labels, query_labels: integers [m], [n]; k: at most m.
    Returns: a float in [0, 1].
    """
    labels, query_labels = _labelled("neighbour_accuracy", points, labels, queries, query_labels)
    check_whole("neighbour_accuracy", "k", k, 1, len(points) + 1)
    votes = labels[neighbours(queries, points, k)[1].cpu()]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
    chosen = votes.gather(1, counts.argmax(1, keepdim=True))[:, 0]  # argmax takes the first, which is the nearest
    return float((chosen == query_labels).double().mean())


def linear_probe(train_z, train_labels, test_z, test_labels):
    """How much of the labels a linear classifier reads from vectors: its accuracy on the test vectors.

    Logistic regression on standardised vectors, by scikit-learn.

    Args: train_z, test_z: float [m, Z], [n, Z]; train_labels, test_labels: integers [m], [n].
    Returns: a float in [0, 1].
    Raises: ImportError without scikit-learn; ValueError for shapes that do not fit, or training labels of one class.
    Example: `genfast.tasks.linear_probe(embed(model, train), y, embed(model, test), y_test)`
    """
    train_labels, test_labels = _labelled("linear_probe", train_z, train_labels, test_z, test_labels)
    if len(train_labels.unique()) < 2:
        raise ValueError("linear_probe: train_labels must be of two classes or more; got one")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ImportError("linear_probe: expected the package scikit-learn; pip install scikit-learn") from None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(np.asarray(train_z, dtype=np.float64), np.asarray(train_labels))
    return float(probe.score(np.asarray(test_z, dtype=np.float64), np.asarray(test_labels)))


def _labelled(call, points, labels, queries, query_labels):
    """The labels as int64 tensors on the CPU, one for each vector."""
    found = []
    for name, vectors, given in (("training", points, labels), ("test", queries, query_labels)):
        given = torch.as_tensor(given)
        if given.dtype not in INTEGERS or given.shape != (len(vectors),) or not len(vectors):
            got = f"{given.dtype} {tuple(given.shape)}"
            raise ValueError(f"{call}: {name} labels must be integers [n] with n={len(vectors)}, at least 1; got {got}")
        found.append(given.cpu().long())
    return found
