"""The standard deviation over a minibatch as a feature map, which shows a discriminator a lack of variety."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import check_tensors, check_whole
from genfast._native.kinds import Sizes
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.minibatch_stddev import minibatch_stddev_ref


def minibatch_stddev(x: Tensor, group: int = 4, channels: int = 1, *, backend: str = "auto") -> Tensor:
    """Append to the images the mean standard deviation of their features over groups of images.

    A group is the images n, n + N / g, n + 2 N / g, ... with g = min(group, N). For each of `channels` blocks of
    C / channels consecutive channels every image of the group has as one more constant map::

        s = mean over the block and all pixels of sqrt(variance over the group + 1e-8)

    Args:
        x: [N, C, H, W]; N a multiple of g >= 2, C >= 1 a multiple of channels, H and W at least 1; float32, float64,
            bfloat16 or float16; any strides.
        group: images of a group, at least 2; of a batch that is smaller, all are one group.
        channels: maps to append, at least 1.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        y: [N, C + channels, H, W]: x, then the maps.

    Raises:
        TypeError: x is no strided float tensor, or a number is no int.
        ValueError: a shape does not fit, the batch has fewer than two images or does not split into groups, or the
            name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve this tensor.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order, deterministic; the first is native and recomputes the statistics, the higher ones run the
        reference.

    Paper:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation, Karras et al. 2018, section 3,
        arXiv 1710.10196; groups: Analyzing and Improving the Image Quality of StyleGAN, arXiv 1912.04958.

    Example:
        >>> import torch, genfast
        >>> genfast.minibatch_stddev(torch.tensor([-3.0, 3.0]).view(2, 1, 1, 1)).flatten()
        tensor([-3.,  3.,  3.,  3.])
    """
    op = "minibatch_stddev"
    check_tensors(op, x=x)
    check_whole(op, "group", group, 2, 2**31)
    check_whole(op, "channels", channels, 1, 2**31)
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"{op}: x must have shape [N, C, H, W] with C, H, W>=1; got {tuple(x.shape)}")
    if x.shape[0] < 2:
        raise ValueError(f"{op}: x must hold at least 2 images, as it has a deviation over them; got {x.shape[0]}")
    _check_groups(op, x, group, channels)
    return _append(x, group, channels, backend=backend)


def _check_groups(op: str, x: Tensor, group: int, channels: int) -> Sizes:
    if x.shape[0] % min(group, x.shape[0]):
        raise ValueError(f"{op}: x must hold a multiple of group={group} images; got {x.shape[0]}")
    if x.shape[1] % channels:
        raise ValueError(f"{op}: x must have a multiple of channels={channels} channels; got {x.shape[1]}")
    return {"E": x.shape[1] + channels}


def _numbers(x: Tensor, group: int, channels: int) -> tuple[int | float, ...]:
    return *x.shape, min(group, x.shape[0]), channels


def _allocate(x: Tensor, group: int, channels: int, save: bool) -> Allocated:
    batch, features, height, width = x.shape
    return _numbers(x, group, channels), (x.new_empty(batch, features + channels, height, width),)


def _allocate_gradients(grad_y: Tensor, x: Tensor, group: int, channels: int) -> Allocated:
    return _numbers(x, group, channels), (contiguous_like(x),)


_append = register(
    OpSchema(
        name="minibatch_stddev",
        arguments={"x": "float [N, C, H, W]"},
        outputs={"y": "float [N, E, H, W]"},
        residuals=("x",),
        settings={"group": "SymInt", "channels": "SymInt"},
        limits={
            **dict.fromkeys("CHW", (1, math.inf)),
            **{"N": (2, math.inf), "group": (2, 2**31 - 1), "channels": (1, 2**31 - 1)},
        },
        check=_check_groups,
        numbers=("batch", "channels", "height", "width", "group", "maps"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    minibatch_stddev_ref,
)
