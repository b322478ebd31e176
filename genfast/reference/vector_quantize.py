"""Vector quantisation in plain PyTorch: the specification of `genfast.ops.vector_quantize`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genfast.reference._centre import centre_of
from genfast.reference._spec import Inputs, Sizes, Spec, normal


def vector_quantize_ref(
    x: Tensor, codebook: Tensor, commitment: float, codebook_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`x` [N, D] and `codebook` [K, D] -> the nearest code of each row [N], its vector [N, D] with the gradient handed
    to x, and the loss []; half precision is computed in float32."""
    wide = torch.promote_types(x.dtype, torch.float32)
    codes = nearest_codes(x.detach().to(wide), codebook.detach().to(wide))
    nearest = codebook[codes]
    error, code_error = x.to(wide) - nearest.detach().to(wide), x.detach().to(wide) - nearest.to(wide)
    count = max(1, x.numel())
    loss = (codebook_weight * (code_error**2).sum() + commitment * (error**2).sum()) / count
    # The value is that of the code, to the bit, where x + (nearest - x).detach() would round.
    return codes, nearest.detach() + (x - x.detach()), loss


def nearest_codes(x: Tensor, codebook: Tensor, chunk: int = 2**24) -> Tensor:
    """The code of the least distance for every row, the lowest of equals; rows in chunks that bound the memory."""
    if not len(x):
        return torch.empty(0, dtype=torch.int64, device=x.device)
    centre = centre_of(codebook)
    x, codebook = x - centre, codebook - centre
    half_norms = 0.5 * (codebook**2).sum(1)
    rows = max(1, chunk // len(codebook))
    return torch.cat([(half_norms - part @ codebook.T).argmin(1) for part in x.split(rows)])


def codebook_statistics_ref(x: Tensor, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`x` [N, D] and `codes` [N] below `count` -> how often each occurs [count], and the sums of its x [count, D]."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    counts = torch.bincount(codes, minlength=count).to(x.dtype)
    return counts, x.new_zeros(count, x.shape[1]).index_add_(0, codes, x)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    return {
        "x": normal(generator, sizes["B"], sizes["C"]),
        "codebook": normal(generator, sizes["K"], sizes["C"]),
        "commitment": 0.25,
        "codebook_weight": 0.75,
    }


def _make_statistics(sizes: Sizes, generator: torch.Generator) -> Inputs:
    codes = torch.randint(sizes["K"], (sizes["B"],), generator=generator, dtype=torch.int64, device="cpu")
    return {"x": normal(generator, sizes["B"], sizes["C"]), "codes": codes, "count": sizes["K"]}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BCK", values))


_COMMON: dict[str, Any] = {
    "shapes": (
        _sizes(1, 1, 1),
        _sizes(7, 3, 5),
        _sizes(2, 16, 64),
        _sizes(65, 33, 17),
        _sizes(29, 64, 130),
        _sizes(100, 5, 1),
        _sizes(13, 8, 65),
        _sizes(301, 2, 31),
        _sizes(0, 4, 3),
    ),
    "gradcheck": (_sizes(5, 3, 4), _sizes(1, 2, 1)),
    "bench": {"N=65536 D=64 K=1024": _sizes(65536, 64, 1024), "N=65536 D=64 K=8192": _sizes(65536, 64, 8192)},
    "compiled": (_sizes(65536, 512, 1024),),
    "paper": "Neural Discrete Representation Learning, van den Oord et al. 2017, equations 1 to 3, arXiv 1711.00937",
    "ranges": {"C": range(1, 40), "K": range(1, 70)},
}

SPEC = Spec(
    name="vector_quantize",
    reference=vector_quantize_ref,
    make=_make,
    gradients="an estimate by stop-gradients: every order of what the loss and the straight-through value define; "
    "deterministic; the first is native, the higher ones run the reference",
    estimator=True,
    **_COMMON,
)
STATISTICS = Spec(
    name="codebook_statistics",
    reference=codebook_statistics_ref,
    make=_make_statistics,
    gradients="none",
    kind="non_differentiable",
    **_COMMON,
)
