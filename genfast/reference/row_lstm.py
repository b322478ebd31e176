"""The row LSTM in plain PyTorch: the specification of `genfast.ops.row_lstm`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal


def row_lstm_ref(gates: Tensor, weight: Tensor, h0: Tensor | None = None, c0: Tensor | None = None) -> Tensor:
    """Scan the rows downwards, one matrix product a row; differentiable to any order.

    `gates` [B, H, W, 4C], `weight` [3, C, 4C], `h0` and `c0` [C]; returns `hidden` [B, H, W, C].
    """
    batch, _, width, _ = gates.shape
    size = weight.shape[1]
    h0 = gates.new_zeros(size) if h0 is None else h0
    c0 = gates.new_zeros(size) if c0 is None else c0
    if gates.numel() == 0:
        return gates[..., :size] + 0 * (weight.sum() + h0.sum() + c0.sum())
    beside = h0.expand(batch, 1, size)
    h, c = (x.expand(batch, width, size) for x in (h0, c0))
    taps, hidden = weight.flatten(0, 1), []
    for row in gates.unbind(1):
        above = torch.cat((beside, h, beside), 1)
        inputs = torch.cat((above[:, :-2], above[:, 1:-1], above[:, 2:]), 2)
        a = torch.addmm(row.flatten(0, 1), inputs.flatten(0, 1), taps)
        i, f, g, o = a.unflatten(0, (batch, width)).chunk(4, 2)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hidden.append(h)
    return torch.stack(hidden, 1)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, height, width, size = (sizes[k] for k in "BHWC")
    return {
        "gates": normal(generator, batch, height, width, 4 * size),
        "weight": normal(generator, 3, size, 4 * size, scale=0.5 * size**-0.5),
        "h0": normal(generator, size, scale=0.5),
        "c0": normal(generator, size, scale=0.5),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BHWC", values))


SPEC = Spec(
    name="row_lstm",
    reference=row_lstm_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1),
        _sizes(3, 1, 7, 3),
        _sizes(2, 7, 1, 5),
        _sizes(5, 3, 11, 15),
        _sizes(2, 11, 5, 16),
        _sizes(3, 4, 4, 17),
        _sizes(17, 5, 2, 33),
        _sizes(33, 2, 3, 4),
        _sizes(2, 5, 13, 64),
        _sizes(0, 3, 4, 5),
        _sizes(2, 0, 4, 3),
        _sizes(2, 3, 0, 3),
    ),
    gradcheck=(_sizes(2, 3, 3, 2), _sizes(1, 3, 2, 1)),
    bench={
        "B=64 28x28 C=16": _sizes(64, 28, 28, 16),
        "B=16 32x32 C=128": _sizes(16, 32, 32, 128),
        "B=1 28x28 C=16": _sizes(1, 28, 28, 16),
    },
    compiled=(_sizes(64, 32, 32, 64), _sizes(64, 64, 64, 32), _sizes(16, 64, 64, 128)),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 3.1, arXiv 1601.06759",
)
