"""`VectorQuantize` of the package vector-quantize-pytorch, on `genfast.vector_quantize`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genfast import ops
from genfast._native.checks import check_range, check_sizes
from genfast._state import Stateful, rank, recomputed, summed
from genfast.compat._options import refuse

__all__ = ["VectorQuantize"]
_OFF = (
    *("separate_codebook_per_head", "use_cosine_sim", "layernorm_after_project_in", "accept_3d_fmap", "affine_param"),
    *("commitment_use_cross_entropy_loss", "straight_through", "orthogonal_reg_active_codes_only"),
    *("stochastic_sample_codes", "directional_reparam", "sync_affine_param", "manual_ema_update"),
    *("manual_in_place_optimizer_update", "orthogonal_reg_weight", "codebook_diversity_loss_weight", "sync_update_v"),
)
# Options of the original, and the values that are served; the first is the default.
SERVED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(_OFF, (False,)),
    **dict.fromkeys(("orthogonal_reg_max_codes", "vq_bridge", "in_place_codebook_optimizer"), (None,)),
    **dict.fromkeys(("sync_kmeans", "return_zeros_for_masked_padding", "route_gradients_to_input"), (True,)),
    "sync_codebook": (None, True),
    "ema_update": (None, True),
    "learnable_codebook": (None, False),
    "heads": (1,),
    "codebook_diversity_temperature": (100.0,),
    "sample_codebook_temp": (1.0,),
    "directional_reparam_variance": (5e-3,),
    "affine_param_batch_decay": (0.99,),
    "affine_param_codebook_decay": (0.9,),
}
_ABSENT = (
    *("indices", "mask", "lens", "topk", "sample_codebook_temp", "codebook_transform_fn", "ema_update_weight"),
    "ema_update",
)
SERVED_IN_FORWARD = dict.fromkeys(_ABSENT, (None,)) | dict.fromkeys(
    ("return_loss_breakdown", "accum_ema_update"), (False,)
)
EPSILON = 1e-6  # of the rotation


class _Codebook(Stateful):
    """The codebook and its moving averages, under the names of the original; float32 whatever the module is cast to."""

    running = ("cluster_size", "embed_avg", "embed")
    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor

    def __init__(self, codes: int, features: int, from_kmeans: bool) -> None:
        super().__init__()
        embed = torch.zeros(1, codes, features)
        if not from_kmeans:
            nn.init.kaiming_uniform_(embed)
        self.register_buffer("initted", torch.tensor(not from_kmeans))
        self.register_buffer("cluster_size", torch.ones(1, codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("embed", embed)


class VectorQuantize(nn.Module):
    """Replaces every vector by the nearest of a codebook that moving averages learn.

    ::

        index = argmin_k |x - e_k|^2,   quantized = e_index,   loss = commitment_weight mean((x - sg e_index)^2)
        n_k <- d n_k + (1 - d) #{index = k},  m_k <- d m_k + (1 - d) sum of their x,
        e_k = m_k / ((n_k + eps) / (n + K eps) n), n the sum of all n_k

    The gradient of `quantized` reaches x through the rotation that takes x to its code, or unchanged without
    `rotation_trick`; none does in evaluation mode. The state dict is that of the original, so its weights load.

    Args:
        dim: the size of a vector of x.
        codebook_size: K.
        codebook_dim: the size of a code; where it is not dim, x is projected to it and back by linear layers.
        decay: d, in [0, 1).
        eps: above 0.
        freeze_codebook: whether training changes no code.
        kmeans_init: whether the first batch in training mode makes the codebook, by kmeans_iters steps of k-means.
        kmeans_iters: how many.
        threshold_ema_dead_code: codes with a count n_k below it are replaced by vectors of the batch; 0: never.
        channel_last: True: x [B, N, D]; False: x [B, D, N].
        accept_image_fmap: whether x is [B, D, H, W].
        commitment_weight: at least 0.
        rotation_trick: None: True for a dim above 1.
        options: the other arguments of the original, each with its default alone, else a ValueError.
    Shape: x [B, N, D], or as above, or [B, D] -> quantized as x; indices int64 [B, N], [B, H, W] or [B]; loss [], 0 in
        evaluation mode.
    Raises: ValueError for an option that is not served, or a shape; RuntimeError with torch.distributed where vectors
        are drawn from a batch (kmeans_init, threshold_ema_dead_code), and within torch.utils.checkpoint:
        `genfast.nn.VectorQuantizer` serves both.
    Paper: Neural Discrete Representation Learning, appendix A.1, arXiv 1711.00937; Restructuring Vector Quantization
        with the Rotation Trick, section 4.2, arXiv 2410.06424.
    Example: `VectorQuantize(dim=256, codebook_size=512)(torch.randn(1, 1024, 256))`
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        *,
        decay: float = 0.8,
        eps: float = 1e-5,
        freeze_codebook: bool = False,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        threshold_ema_dead_code: float = 0,
        channel_last: bool = True,
        accept_image_fmap: bool = False,
        commitment_weight: float = 1.0,
        rotation_trick: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        refuse("VectorQuantize", SERVED, options)
        features = dim if codebook_dim is None else codebook_dim
        check_sizes("VectorQuantize", dim=dim, codebook_size=codebook_size, codebook_dim=features)
        if not 0 <= decay < 1 or not eps > 0 or not commitment_weight >= 0:
            expected = "decay must lie in [0, 1), eps above 0, and commitment_weight be at least 0"
            raise ValueError(f"VectorQuantize: {expected}; got {decay!r}, {eps!r} and {commitment_weight!r}")
        self.dim, self.codebook_size, self.decay, self.eps = dim, codebook_size, decay, eps
        self.freeze_codebook, self.kmeans_init, self.kmeans_iters = freeze_codebook, kmeans_init, kmeans_iters
        self.threshold_ema_dead_code, self.commitment_weight = threshold_ema_dead_code, commitment_weight
        self.channel_last, self.accept_image_fmap = channel_last, accept_image_fmap
        self.rotation_trick = dim > 1 if rotation_trick is None else rotation_trick
        self.project_in: nn.Module = nn.Identity() if features == dim else nn.Linear(dim, features)
        self.project_out: nn.Module = nn.Identity() if features == dim else nn.Linear(features, dim)
        self._codebook = _Codebook(codebook_size, features, kmeans_init)

    @property
    def codebook(self) -> Tensor:
        """The codes, [K, D]."""
        return self._codebook.embed[0]

    def forward(self, x: Tensor, freeze_codebook: bool | None = None, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(quantized, indices, loss)."""
        refuse("VectorQuantize", SERVED_IN_FORWARD, options)
        given, x = x, self._channels_last(x)
        projected = self.project_in(x)
        vectors = projected.flatten(0, -2).float()
        frozen = self.freeze_codebook if freeze_codebook is None else freeze_codebook
        if self.training:
            self._check_pass(frozen)
            self._start(vectors.detach())
        # A copy: the next batch may change the codebook before the backward pass of this one.
        with torch.autocast(x.device.type, enabled=False):
            indices, quantized, error = ops.vector_quantize(vectors, self.codebook.float().clone(), 1.0, 0.0)
        if self.training and not frozen:
            self._learn(vectors.detach(), indices)
        quantized = quantized.detach()
        if self.training and given.requires_grad:
            quantized = (
                _rotated(vectors, quantized) if self.rotation_trick else vectors + (quantized - vectors).detach()
            )
        loss = error * self.commitment_weight if self.training else error.new_zeros(())
        quantized = self.project_out(quantized.to(x.dtype).view(projected.shape))
        return self._as_given(quantized), indices.view(x.shape[:-1]), loss

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """The codes of indices, before `project_out`: int64 [B, N] or [B, H, W] -> the layout of x.

        Raises: ValueError for an index out of range.
        """
        check_range("VectorQuantize", "indices", indices, 0, self.codebook_size - 1)
        return self._as_given(self.codebook[indices])

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """What the layer returned as `quantized` beside these indices."""
        check_range("VectorQuantize", "indices", indices, 0, self.codebook_size - 1)
        return self._as_given(self.project_out(self.codebook[indices]))

    def _channels_last(self, x: Tensor) -> Tensor:
        last = x.ndim == 2 or (self.channel_last and not self.accept_image_fmap)
        dims = (4,) if self.accept_image_fmap else (2, 3)
        if x.ndim not in dims or x.shape[-1 if last else 1] != self.dim:
            layout = "[B, D, H, W]" if self.accept_image_fmap else "[B, D] or " + ("[B, D, N]", "[B, N, D]")[last]
            raise ValueError(f"VectorQuantize: x must have shape {layout} with D={self.dim}; got {tuple(x.shape)}")
        return x if last else x.movedim(1, -1)

    def _as_given(self, x: Tensor) -> Tensor:
        """Channels last, as they are computed, to where the layout has them."""
        return x.movedim(-1, 1) if x.ndim == 4 or (x.ndim == 3 and not self.channel_last) else x

    def _check_pass(self, frozen: bool) -> None:
        drawing = self.kmeans_init or self.threshold_ema_dead_code > 0
        if drawing and (ranks := rank()[1]) > 1:
            options = "kmeans_init and threshold_ema_dead_code"
            raise RuntimeError(f"VectorQuantize: {options} must be off with torch.distributed; got {ranks} processes")
        if not frozen and recomputed():
            expected = "expected a first forward pass; got one that torch.utils.checkpoint repeats"
            raise RuntimeError(f"VectorQuantize: {expected}: its codebook has changed since. Use freeze_codebook")

    @torch.no_grad()
    def _start(self, vectors: Tensor) -> None:
        """k-means of the first batch."""
        if not self.kmeans_init or bool(self._codebook.initted):
            return
        count, size = self.codebook_size, len(vectors)
        if size >= count:
            places = torch.randperm(size, dtype=torch.int64, device=vectors.device)[:count]
        else:
            places = torch.randint(0, size, (count,), dtype=torch.int64, device=vectors.device)
        means, counts = vectors[places], torch.ones_like(self._codebook.cluster_size[0])
        for _ in range(self.kmeans_iters):
            indices = ops.vector_quantize(vectors, means)[0]
            counts, sums = ops.codebook_statistics(vectors, indices, count)
            means = torch.where(counts[:, None] == 0, means, sums / counts[:, None].clamp(min=1))
        self._codebook.cluster_size[0] = counts
        self._codebook.embed_avg[0] = means * counts[:, None]
        self._average()
        self._codebook.initted.fill_(True)

    @torch.no_grad()
    def _learn(self, vectors: Tensor, indices: Tensor) -> None:
        held = self._codebook
        counts, sums = ops.codebook_statistics(vectors, indices, self.codebook_size)
        held.cluster_size[0].lerp_(summed(counts), 1 - self.decay)
        held.embed_avg[0].lerp_(summed(sums), 1 - self.decay)
        self._average()
        if self.threshold_ema_dead_code > 0:
            self._replace_dead(vectors)

    def _average(self) -> None:
        counts, total = self._codebook.cluster_size, self._codebook.cluster_size.sum()
        smoothed = (counts + self.eps) / (total + self.codebook_size * self.eps) * total
        self._codebook.embed.copy_(self._codebook.embed_avg / smoothed[..., None])

    def _replace_dead(self, vectors: Tensor) -> None:
        held, here = self._codebook, vectors.device
        dead = (held.cluster_size[0] < self.threshold_ema_dead_code).nonzero()[:, 0]
        if not len(dead) or not len(vectors):
            return
        if len(dead) > len(vectors):
            dead = dead[torch.randperm(len(dead), dtype=torch.int64, device=here)[: len(vectors)]].sort()[0]
        drawn = vectors[torch.randperm(len(vectors), dtype=torch.int64, device=here)[: len(dead)]]
        held.embed[0, dead] = drawn
        held.cluster_size[0, dead] = float(self.threshold_ema_dead_code)
        held.embed_avg[0, dead] = drawn * self.threshold_ema_dead_code

    def extra_repr(self) -> str:
        return f"{self.dim}, {self.codebook_size}, decay={self.decay}, commitment_weight={self.commitment_weight}"


def _rotated(x: Tensor, code: Tensor) -> Tensor:
    """The code, as x turned and scaled to it: the gradient is turned back with it. Both [N, D]."""
    with torch.no_grad():
        lengths = [t.norm(dim=1, keepdim=True) for t in (x, code)]
        u, q = (t / length.clamp(min=EPSILON) for t, length in zip((x, code), lengths))
        w = nn.functional.normalize(u + q, dim=1, eps=EPSILON)
        scale = lengths[1] / lengths[0].clamp(min=EPSILON)
    turned = x - 2 * (x * w).sum(1, keepdim=True) * w + 2 * (x * u).sum(1, keepdim=True) * q
    return turned * scale
