"""The minibatch standard deviation in plain PyTorch: the specification of `genfast.ops.minibatch_stddev`."""

from __future__ import annotations

import torch
from torch import Tensor

from genfast.reference._spec import Inputs, Sizes, Spec, normal

# What keeps the root differentiable where the images of a group are the same.
EPSILON = 1e-8


def minibatch_stddev_ref(x: Tensor, group: int = 4, channels: int = 1) -> Tensor:
    """`x` [N, C, H, W] -> `x` and `channels` constant maps, [N, C + channels, H, W]; half types by float32."""
    batch, features, height, width = x.shape
    size = min(group, batch)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    wide = wide.view(size, batch // size, channels, features // channels, height, width)
    variance = ((wide - wide.mean(0)) ** 2).mean(0)
    statistic = (variance + EPSILON).sqrt().mean((2, 3, 4)).to(x.dtype)
    maps = statistic.repeat(size, 1)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat((x, maps), 1)


def _make(sizes: Sizes, generator: torch.Generator) -> Inputs:
    shape = sizes["B"] * sizes["G"], sizes["F"] * sizes["C"], sizes["H"], sizes["W"]
    return {"x": normal(generator, *shape), "group": sizes["G"], "channels": sizes["F"]}


def _sizes(*values: int) -> dict[str, int]:
    return dict(zip("BGFCHW", values))


SPEC = Spec(
    name="minibatch_stddev",
    reference=minibatch_stddev_ref,
    make=_make,
    shapes=(
        _sizes(1, 2, 1, 1, 1, 1),
        _sizes(3, 4, 1, 3, 5, 1),
        _sizes(1, 7, 2, 5, 3, 7),
        _sizes(2, 4, 3, 2, 4, 4),
        _sizes(4, 3, 1, 33, 4, 3),
        _sizes(3, 2, 1, 17, 1, 1),
        _sizes(5, 4, 2, 16, 2, 4),
        _sizes(17, 2, 1, 8, 3, 3),
        _sizes(1, 64, 1, 24, 4, 4),
    ),
    gradcheck=(_sizes(2, 2, 1, 2, 2, 1), _sizes(1, 3, 2, 1, 1, 2)),
    bench={"64x512x4x4": _sizes(16, 4, 1, 512, 4, 4), "32x256x8x8": _sizes(8, 4, 1, 256, 8, 8)},
    compiled=(_sizes(1, 64, 1, 512, 4, 4),),
    gradients="every order, deterministic; the first is native, the higher ones run the reference",
    coupled=True,
    paper="Progressive Growing of GANs, Karras et al. 2018, section 3, arXiv 1710.10196",
    ranges={"B": range(1, 5), "G": range(2, 6), "F": range(1, 4)} | dict.fromkeys("CHW", range(1, 8)),
)
