"""Layers that let a discriminator see how alike the images of a batch are."""

import math

import torch
from torch import distributed, nn

from genfast import ops
from genfast._native.checks import check_sizes


class MinibatchDiscrimination(nn.Module):
    """Appends to the features of every image how close it is to the others, in several learned projections.

    ::

        M_i = sum_a x_ia T_a,  o(x_i)_b = sum_j exp(-|M_ib - M_jb|_1) over all j, i itself too,  y_i = [x_i, o(x_i)]

    Distances are taken in the dtype of T, under autocast too. With `gather` the sum runs over the images of all
    processes of `torch.distributed`, which must have batches of one size: losses and gradients, averaged over the
    processes as `DistributedDataParallel` does, are then those of one process with the whole batch.

    Args:
        features: A.
        kernels: number of projections.
        dim: rows of a projection, C in the paper.
        gather: whether images of other processes count. Without a process group it changes nothing.
    Shape: x [B, A] -> y [B, A + kernels], of the dtype of x.
    Paper: Improved Techniques for Training GANs, section 3.2, arXiv 1606.03498.
    Example: `MinibatchDiscrimination(128, 100, 5)(torch.randn(8, 128))`
    """

    def __init__(self, features, kernels, dim, gather=False):
        super().__init__()
        check_sizes("MinibatchDiscrimination", features=features, kernels=kernels, dim=dim)
        self.features, self.kernels, self.dim, self.gather = features, kernels, dim, gather
        self.weight = nn.Parameter(torch.empty(features, kernels, dim))
        self.reset_parameters()

    def reset_parameters(self):
        """Distances around 1 for features of variance 1: exponentials of much larger or smaller ones hardly differ."""
        nn.init.normal_(self.weight, std=1 / (self.dim * math.sqrt(self.features)))

    def forward(self, x):
        if x.dim() != 2 or x.shape[1] != self.features:
            expected = f"[B, A] with A={self.features}"
            raise ValueError(f"MinibatchDiscrimination: x must have shape {expected}; got {tuple(x.shape)}")
        rows = x.to(self.weight.dtype)
        others = None
        if self.gather and distributed.is_available() and distributed.is_initialized():
            others = _Others.apply(rows) if distributed.get_world_size() > 1 else None
        with torch.autocast(x.device.type, enabled=False):  # a small distance needs all the digits of float32
            closeness = ops.minibatch_discrimination(rows, self.weight, others)
        return torch.cat((x, closeness.to(x.dtype)), 1)

    def extra_repr(self):
        return f"{self.features}, {self.kernels}, {self.dim}, gather={self.gather}"


class MinibatchStddev(nn.Module):
    """Appends maps that hold how much the images of a group differ, one number for each group and map.

    Args:
        group: G, images n, n + N/G, n + 2N/G, ... of the N of a batch; a batch of fewer is one group.
        channels: number of maps, each over as many consecutive channels.
    Shape: x [B, C, H, W] -> [B, C + channels, H, W]. ValueError for a batch of one, which has no deviation, for one
        that is no multiple of the group, and for C that is no multiple of `channels`.
    Paper: Progressive Growing of GANs, section 3, arXiv 1710.10196.
    Example: `MinibatchStddev()(torch.randn(8, 16, 4, 4))`
    """

    def __init__(self, group=4, channels=1):
        super().__init__()
        check_sizes("MinibatchStddev", group=group, channels=channels)
        if group < 2:
            raise ValueError(f"MinibatchStddev: group must be at least 2, as one image has no deviation; got {group}")
        self.group, self.channels = group, channels

    def forward(self, x):
        return ops.minibatch_stddev(x, self.group, self.channels)

    def extra_repr(self):
        return f"group={self.group}, channels={self.channels}"


class _Others(torch.autograd.Function):
    """Rows [N, A] -> those of all other processes in the order of ranks, [(R - 1) N, A]."""

    @staticmethod
    def forward(rows):
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(ranks)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts[:rank] + parts[rank + 1 :])

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return _Returned.apply(grad)


class _Returned(torch.autograd.Function):
    """The transpose of `_Others`: what all other processes have for the rows of this one, summed."""

    @staticmethod
    def forward(grad):
        rank, ranks = distributed.get_rank(), distributed.get_world_size()
        size = len(grad) // (ranks - 1)
        parts = list(grad.split(size)) if size else [grad] * (ranks - 1)
        total = torch.cat([*parts[:rank], torch.zeros_like(parts[0]), *parts[rank:]])
        distributed.all_reduce(total)
        return total[rank * size : (rank + 1) * size].clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, second):
        return _Others.apply(second)
