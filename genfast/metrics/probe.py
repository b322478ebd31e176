"""Probes of embeddings: k-nearest-neighbour and linear classification of labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genfast.engine.arguments import INTEGERS, as_tensor, check_int
from genfast.tasks.embed import neighbours


def neighbour_accuracy(points: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor, k: int = 5) -> float:
    """Accuracy of k-nearest-neighbour classification of the queries; among equally frequent labels the nearest wins.

    Args: points, queries: float [m, Z], [n, Z]; labels, query_labels: integers [m], [n]; k: at most m.
    Returns: a float in [0, 1].
    """
    labels, query_labels = _labelled("neighbour_accuracy", points, labels, queries, query_labels)
    check_int("neighbour_accuracy", "k", k, 1, len(points) + 1)
    votes = labels[neighbours(queries, points, k)[1].cpu()]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
    predicted = votes.gather(1, counts.argmax(1, keepdim=True))[:, 0]  # argmax takes the first, which is the nearest
    return float((predicted == query_labels).double().mean())


def linear_probe(train_z: Tensor, train_labels: Tensor, test_z: Tensor, test_labels: Tensor) -> float:
    """Accuracy of a linear classifier of the vectors on the test vectors: the mean of `linear_probe_hits`.

    Args: train_z, test_z: float [m, Z], [n, Z]; train_labels, test_labels: integers [m], [n].
    Returns: a float in [0, 1].
    Raises: ImportError without scikit-learn; ValueError for shapes that do not fit, or training labels of one class.
    Example: `genfast.metrics.linear_probe(genfast.embed(vae, train), y, genfast.embed(vae, test), y_test)`
    """
    return float(linear_probe_hits(train_z, train_labels, test_z, test_labels).double().mean())


def linear_probe_hits(train_z: Tensor, train_labels: Tensor, test_z: Tensor, test_labels: Tensor) -> Tensor:
    """Which of the test vectors a linear classifier of the vectors names right.

    It is logistic regression on standardised vectors, by scikit-learn. Two embeddings of the same images are compared
    image by image: `difference_interval` of their hits.

    Args, Raises: as `linear_probe`.
    Returns: bool [n].
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
    return torch.from_numpy(probe.predict(np.asarray(test_z, dtype=np.float64))) == test_labels


def _labelled(call: str, points: Tensor, labels: Tensor, queries: Tensor, query_labels: Tensor) -> list[Tensor]:
    """The labels as int64 tensors on the CPU, one for each vector."""
    checked = []
    for name, vectors, given in (("training", points, labels), ("test", queries, query_labels)):
        given = as_tensor(given)
        if given.dtype not in INTEGERS or given.shape != (len(vectors),) or not len(vectors):
            got = f"{given.dtype} {tuple(given.shape)}"
            raise ValueError(f"{call}: {name} labels must be integers [n] with n={len(vectors)}, at least 1; got {got}")
        checked.append(given.cpu().long())
    return checked
