"""Nearest neighbours in plain PyTorch: the specification of `genfast.ops.nearest_neighbors`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._centre import centre_of
from genfast.reference._spec import Inputs, Sizes, Spec, normal


def nearest_neighbors_ref(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`x` [N, D], `y` [M, D] -> squared distances [N, k], ascending, and indices [N, k] of the k nearest rows of y."""
    wide = torch.promote_types(x.dtype, torch.float32)
    x, y = x.to(wide), y.to(wide)
    centre = centre_of(y)
    moved, near = x - centre, y - centre
    half_norms = 0.5 * (near**2).sum(1)
    rows = max(1, 2**24 // len(y))
    # A stable sort gives the lower index first where distances are equal, which topk does not promise.
    parts = [(half_norms - part @ near.T).sort(dim=1, stable=True).indices[:, :k] for part in moved.split(rows)]
    indices = torch.cat(parts) if parts else torch.empty(0, k, dtype=torch.int64, device=x.device)
    # From the differences, in which nothing cancels; two sorts by them would disagree about ties within rounding.
    squares = torch.stack([((x - y[indices[:, i]]) ** 2).sum(1) for i in range(k)], 1)
    order = squares.sort(dim=1, stable=True).indices
    return squares.gather(1, order), indices.gather(1, order)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {
        "x": normal(generator, sizes["B"], sizes["C"]),
        "y": normal(generator, sizes["M"], sizes["C"]),
        "k": sizes["K"],
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BMCK", values))


SPEC = Spec(
    name="nearest_neighbors",
    reference=nearest_neighbors_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1),
        _sizes(7, 5, 3, 2),
        _sizes(2, 64, 16, 5),
        _sizes(65, 33, 17, 1),
        _sizes(29, 130, 64, 3),
        _sizes(13, 65, 8, 65),
        _sizes(0, 4, 3, 2),
    ),
    gradcheck=(_sizes(5, 4, 3, 2), _sizes(1, 2, 2, 2)),
    bench={"N=M=50000 D=64 k=5": _sizes(50000, 50000, 64, 5)},
    compiled=(_sizes(50000, 50000, 64, 64), _sizes(50000, 50000, 2048, 65)),
    gradients="none",
    kind="non_differentiable",
    paper="Reliable Fidelity and Diversity Metrics for Generative Models, Naeem et al. 2020, arXiv 2002.09797",
)
