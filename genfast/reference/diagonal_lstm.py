"""The diagonal LSTM in plain PyTorch: the specification of `genfast.ops.diagonal_lstm`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from genfast.reference._spec import Inputs, Sizes, Spec, normal


def diagonal_lstm_ref(gates: Tensor, weight: Tensor, h0: Tensor | None = None, c0: Tensor | None = None) -> Tensor:
    """Scan both directions along the anti-diagonals, one matrix product a step; differentiable to any order.

    `gates` [B, H, W, D, 4C], `weight` [D, 2, C, 4C], `h0` and `c0` [D, C]; returns `hidden` [B, H, W, D, C].
    """
    _, height, width, directions, _ = gates.shape
    size = weight.shape[2]
    h0 = gates.new_zeros(directions, size) if h0 is None else h0
    c0 = gates.new_zeros(directions, size) if c0 is None else c0
    if gates.numel() == 0:
        return gates[..., :size] + 0 * (weight.sum() + h0.sum() + c0.sum())
    diagonals = skew(mirror(gates.permute(3, 1, 2, 0, 4)))
    hidden = _scan(diagonals, weight.flatten(1, 2), h0, c0, width)
    return mirror(unskew(hidden, width)).permute(3, 1, 2, 0, 4)


def _scan(diagonals: Tensor, taps: Tensor, h0: Tensor, c0: Tensor, width: int) -> Tensor:
    """`diagonals` [D, H, T, B, 4C] -> hidden of the same form. Step t computes the rows `first` to `last`."""
    directions, height, steps, batch, _ = diagonals.shape
    outside_h, outside_c = (x[:, None, None].expand(-1, 1, batch, -1) for x in (h0, c0))
    h = c = h0.new_empty(directions, 0, batch, h0.shape[1])
    hidden, start = [], 0
    for t, step in enumerate(diagonals.unbind(2)):
        first, last = max(0, t - width + 1), min(height - 1, t)
        # Row r of the last diagonal becomes entry r - start + 1: the outside lies above the first row and
        # beside the newest one.
        h = torch.cat((outside_h, h, outside_h), 1)
        c = torch.cat((outside_c, c, outside_c), 1)
        above = slice(first - start, last - start + 1)
        side = slice(above.start + 1, above.stop + 1)
        inputs = torch.cat((h[:, above], h[:, side]), 3).flatten(1, 2)
        gates = torch.baddbmm(step[:, first : last + 1].flatten(1, 2), inputs, taps)
        i, f, g, o = gates.unflatten(1, (-1, batch)).chunk(4, 3)
        c = f.sigmoid() * c[:, side] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hidden.append(pad(h, (0, 0, 0, 0, first, height - 1 - last)))
        start = first
    return torch.stack(hidden, 2)


def mirror(x: Tensor) -> Tensor:
    """Exchange left and right in direction 1 of [D, H, W, ...], to scan it like direction 0."""
    return torch.cat((x[:1], x[1:].flip(2)))


def skew(x: Tensor) -> Tensor:
    """[D, H, W, B, G] -> [D, H, H + W - 1, B, G]: row i moves right by i, diagonals become columns."""
    height, width = x.shape[1:3]
    steps = height + width - 1
    padded = pad(x, (0, 0, 0, 0, 0, height)).flatten(1, 2)
    return padded[:, : height * steps].unflatten(1, (height, steps))


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of `skew`."""
    height, steps = x.shape[1:3]
    padded = pad(x.flatten(1, 2), (0, 0, 0, 0, 0, height))
    return padded.unflatten(1, (height, steps + 1))[:, :, :width]


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    batch, height, width, directions, size = (sizes[k] for k in "BHWDC")
    return {
        "gates": normal(generator, batch, height, width, directions, 4 * size),
        "weight": normal(generator, directions, 2, size, 4 * size, scale=0.5 * size**-0.5),
        "h0": normal(generator, directions, size, scale=0.5),
        "c0": normal(generator, directions, size, scale=0.5),
    }


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BHWDC", values))


SPEC = Spec(
    name="diagonal_lstm",
    reference=diagonal_lstm_ref,
    make=_make,
    shapes=(
        _sizes(1, 1, 1, 1, 1),
        _sizes(3, 1, 7, 2, 3),
        _sizes(2, 7, 1, 2, 5),
        _sizes(5, 3, 11, 1, 15),
        _sizes(2, 11, 5, 2, 16),
        _sizes(3, 4, 4, 2, 17),
        _sizes(17, 5, 3, 1, 33),
        _sizes(33, 2, 3, 2, 4),
        _sizes(2, 5, 6, 2, 64),
        _sizes(0, 3, 4, 2, 5),
        _sizes(2, 0, 4, 1, 3),
        _sizes(2, 3, 0, 2, 3),
    ),
    gradcheck=(_sizes(2, 2, 3, 2, 2), _sizes(1, 3, 2, 1, 1)),
    bench={
        "B=64 28x28 C=16 D=1": _sizes(64, 28, 28, 1, 16),
        "B=16 32x32 C=128 D=1": _sizes(16, 32, 32, 1, 128),
        "B=1 28x28 C=16 D=1": _sizes(1, 28, 28, 1, 16),
        "B=64 28x28 C=16 D=2": _sizes(64, 28, 28, 2, 16),
        "B=64 32x32 C=64 D=2": _sizes(64, 32, 32, 2, 64),
        "B=16 32x32 C=128 D=2": _sizes(16, 32, 32, 2, 128),
    },
    compiled=(_sizes(64, 64, 64, 2, 32), _sizes(16, 64, 64, 2, 128)),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    paper="Pixel Recurrent Neural Networks, van den Oord et al. 2016, section 3.2, arXiv 1601.06759",
)
