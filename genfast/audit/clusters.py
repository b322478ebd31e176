"""Principal components and clusters of vectors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor


def principal(x: Tensor, most: int) -> Tensor:
    """The first principal components of vectors [n, D], at most `most` and at least one, float32 on their own scale."""
    centred = x.double() - x.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    kept = values.flip(0)[:most] > 1e-9 * float(values[-1].clamp(min=1e-30))
    kept[0] = True
    return (centred @ vectors.flip(1)[:, :most][:, kept]).float()


def clusters(x: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """k-means by scikit-learn: (cluster of each vector int64 [n], centres float32 [k, D]), k at most the distinct."""
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        raise ImportError("audit: expected the package scikit-learn; pip install scikit-learn") from None
    points = np.ascontiguousarray(x.cpu().float().numpy())
    distinct = len(np.unique(points, axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of points that are one within rounding
        fitted: Any = KMeans(min(count, distinct), n_init=3, random_state=seed).fit(points)
    return torch.from_numpy(fitted.labels_.astype(np.int64)), torch.from_numpy(fitted.cluster_centers_)
