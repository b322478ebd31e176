"""Layers that tell a discriminator how similar the images of a batch are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, distributed, nn

from genfast import ops
from genfast._native.checks import check_sizes


class MinibatchDiscrimination(nn.Module):
    """Appends to the features of each image its closeness to the other images, in several learned projections.

    ::

        M_i = sum_a x_ia T_a,  o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1) over all j including i,  y_i = [x_i, o(x_i)]

    Distances are computed in the dtype of T, also under autocast. With `gather` the sum is over the images of all
    processes of `torch.distributed`, whose batches must have one size. Losses and gradients, averaged over the
    processes as by `DistributedDataParallel`, then equal those of one process with the whole batch.

    Args:
        features: A.
        kernels: number of projections.
        dim: size of a projection, C in the paper.
        gather: whether to include the images of other processes. It has no effect without a process group.
    Shape: x [B, A] -> y [B, A + kernels], of the dtype of x.
    Paper: Improved Techniques for Training GANs, section 3.2, arXiv 1606.03498.
    Example: `MinibatchDiscrimination(128, 100, 5)(torch.randn(8, 128))`
    """

    def __init__(self, features: int, kernels: int, dim: int, gather: bool = False) -> None:
        super().__init__()
        check_sizes("MinibatchDiscrimination", features=features, kernels=kernels, dim=dim)
        self.features, self.kernels, self.dim, self.gather = features, kernels, dim, gather
        self.weight = nn.Parameter(torch.empty(features, kernels, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights that give distances around 1 for features of variance 1, where exp(-distance) is most sensitive."""
        nn.init.normal_(self.weight, std=1 / (self.dim * math.sqrt(self.features)))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.features:
            expected = f"[B, A] with A={self.features}"
            raise ValueError(f"MinibatchDiscrimination: x must have shape {expected}; got {tuple(x.shape)}")
        rows = x.to(self.weight.dtype)
        others = None
        if self.gather and distributed.is_available() and distributed.is_initialized():
            others = _Others.apply(rows) if distributed.get_world_size() > 1 else None
        with torch.autocast(x.device.type, enabled=False):  # small distances need full float32 precision
            closeness = ops.minibatch_discrimination(rows, self.weight, others)
        return torch.cat((x, closeness.to(x.dtype)), 1)

    def extra_repr(self) -> str:
        return f"{self.features}, {self.kernels}, {self.dim}, gather={self.gather}"


class MinibatchStddev(nn.Module):
    """Appends feature maps with the mean standard deviation of a group of images, one value for each group and map.

    Args:
        group: G, the images in a group: i, i + B/G, i + 2B/G, ... of a batch of B. A batch of fewer than G images is
            one group.
        channels: number of appended maps; each covers C / channels consecutive channels.
    Shape: x [B, C, H, W] -> [B, C + channels, H, W].
    Raises: ValueError for a batch of one image, which has no deviation, for B that is not a multiple of the group, and
        for C that is not a multiple of `channels`.
    Paper: Progressive Growing of GANs, section 3, arXiv 1710.10196.
    Example: `MinibatchStddev()(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, group: int = 4, channels: int = 1) -> None:
        super().__init__()
        check_sizes("MinibatchStddev", group=group, channels=channels)
        if group < 2:
            raise ValueError(f"MinibatchStddev: group must be at least 2, as one image has no deviation; got {group}")
        self.group, self.channels = group, channels

    def forward(self, x: Tensor) -> Tensor:
        return ops.minibatch_stddev(x, self.group, self.channels)

    def extra_repr(self) -> str:
        return f"group={self.group}, channels={self.channels}"


class _Others(torch.autograd.Function):
    """Rows [N, A] -> the rows of all other processes in the order of ranks, [(R - 1) N, A]."""

    @staticmethod
    def forward(rows: Tensor) -> Tensor:
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(ranks)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts[:rank] + parts[rank + 1 :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Returned.apply(grad)


class _Returned(torch.autograd.Function):
    """The transpose of `_Others`: the sum of the gradients that all other processes have for the rows of this one."""

    @staticmethod
    def forward(grad: Tensor) -> Tensor:
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        size = len(grad) // (ranks - 1)
        parts = list(grad.split(size)) if size else [grad] * (ranks - 1)
        total = torch.cat([*parts[:rank], torch.zeros_like(parts[0]), *parts[rank:]])
        distributed.all_reduce(total)
        return total[rank * size : (rank + 1) * size].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> Tensor:
        return _Others.apply(second)
