"""Vector quantisation: a vector becomes the nearest one of a learned codebook, or a sum over several codebooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genfast import ops
from genfast._native.checks import check_range, check_sizes, wide
from genfast._native.derivatives import within_transform
from genfast._state import Passes, Stateful, rank, recomputed, summed, zero_of_first_pass


class VectorQuantizer(Stateful):
    """Replaces every vector by the nearest vector of a learned codebook.

    ::

        code = argmin_k |x - e_k|^2, quantized = e_code         (straight-through: its gradient goes to x unchanged)
        loss = commitment mean((x - sg e)^2) [+ mean((sg x - e)^2) without ema]
        ema: n_k <- d n_k + (1 - d) #{code = k},  m_k <- d m_k + (1 - d) sum of their x,
             e_k = m_k / ((n_k + epsilon) / (n + K epsilon) n), n the sum of all n_k

    The codebook is initialised from the first batch in training mode. A code is dead if its moving count n_k is below
    `restart` times the mean count; it is replaced by a vector of the current batch. For both, the batch is split into K
    equal parts, and one vector is drawn from each by the torch generator of its device, so `torch.manual_seed` makes
    the draws reproducible. With `torch.distributed` the counts and sums are over all ranks, and each rank draws for its
    share of the codes, so all ranks have the same codebook. In evaluation mode, and within `torch.func` transforms,
    nothing changes. The counts and sums, and the codebook that they define, stay float32 when the module is cast to a
    half type; what the layer returns has the dtype of the module. Within `torch.utils.checkpoint` the second forward
    pass uses the codebook of the first and changes nothing; beside `torch.compile` it is a RuntimeError.

    Args:
        codes: K, the size of the codebook.
        features: D, the size of a vector.
        ema: True: the codebook is an exponential moving average of the vectors assigned to each code. False: it is a
            parameter, trained by the second term of the loss.
        decay: d, the decay of the moving counts and sums, in [0, 1).
        commitment: weight of the commitment term, which keeps x near its code; at least 0.
        restart: a code is dead below this fraction of the mean count, in [0, 1); 0: never.
        from_batch: whether to initialise the codebook from the first batch; False: by N(0, 1).
        epsilon: Laplace smoothing of the counts, above 0.
    Shape: x [B, D, H, W] or [N, D] -> quantized as x, codes int64 [B, H, W] or [N], loss [], a mean over vectors and
        features. A batch may be empty.
    Paper: Neural Discrete Representation Learning, section 3.2 and appendix A.1, arXiv 1711.00937; restarts:
        Jukebox, section 3.1, arXiv 2005.00341.
    Example: `VectorQuantizer(512, 64)(torch.randn(2, 64, 7, 7))`
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    _like: Tensor

    def __init__(
        self,
        codes: int,
        features: int,
        *,
        ema: bool = True,
        decay: float = 0.99,
        commitment: float = 0.25,
        restart: float = 0.1,
        from_batch: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        check_sizes("VectorQuantizer", codes=codes, features=features)
        for name, value in (("decay", decay), ("restart", restart)):
            if not 0 <= value < 1:
                raise ValueError(f"VectorQuantizer: {name} must lie in [0, 1); got {value!r}")
        if not commitment >= 0 or not epsilon > 0:
            got = f"{commitment!r} and {epsilon!r}"
            raise ValueError(f"VectorQuantizer: commitment must be at least 0 and epsilon above 0; got {got}")
        self.codes, self.features, self.ema, self.decay = codes, features, ema, decay
        self.commitment, self.restart, self.from_batch, self.epsilon = commitment, restart, from_batch, epsilon
        codebook = torch.randn(codes, features)
        state = wide(codebook.dtype)
        self.running = ("codebook", "sums", "counts") if ema else ("counts",)
        if ema:
            self.register_buffer("codebook", codebook.to(state))
            self.register_buffer("sums", torch.zeros(codes, features, dtype=state))
        else:
            self.codebook = nn.Parameter(codebook)
        # All zero until the first batch.
        self.register_buffer("counts", torch.zeros(codes, dtype=state))
        # Empty; its dtype is that of the module.
        self.register_buffer("_like", codebook.new_empty(0), persistent=False)
        self._passes = Passes()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors, codebook, changes = self._vectors(x), self.codebook, False
        if self.training and not within_transform():
            codebook, changes = self._codebook_of_pass(vectors.detach())
        with torch.autocast(x.device.type, enabled=False):  # distances need full float32 precision
            codes, quantized, loss = ops.vector_quantize(vectors, codebook, self.commitment, 0.0 if self.ema else 1.0)
        if changes:
            self._count(vectors.detach(), codes)
        quantized = quantized.to(self._like.dtype)
        if x.dim() == 2:
            return quantized, codes, loss
        batch, features, height, width = x.shape
        quantized = quantized.view(batch, height, width, features).permute(0, 3, 1, 2)
        return quantized, codes.view(batch, height, width), loss

    def encode(self, x: Tensor) -> Tensor:
        """Codes of x [B, D, H, W] or [N, D], without a change to the codebook: int64 [B, H, W] or [N]."""
        with torch.autocast(x.device.type, enabled=False):
            codes = ops.vector_quantize(self._vectors(x), self.codebook)[0]
        return codes if x.dim() == 2 else codes.view(x.shape[0], *x.shape[2:])

    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors of codes: int64 [B, H, W] -> [B, D, H, W], or [N] -> [N, D].

        Raises: TypeError for another dtype; ValueError for another number of dimensions, or a code out of range.
        """
        _check_codes("VectorQuantizer", codes, self.codes, (1, 3))
        vectors = nn.functional.embedding(codes, self.codebook).to(self._like.dtype)
        return vectors if codes.dim() == 1 else vectors.permute(0, 3, 1, 2)

    @property
    def perplexity(self) -> Tensor:
        """exp of the entropy of the moving counts, [], from 1 to K: the effective number of codes in use."""
        shares = self.counts.double() / self.counts.double().sum().clamp(min=1e-300)
        return torch.special.entr(shares).sum().exp()

    def _vectors(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"VectorQuantizer: x must be a float tensor; got {got}")
        if x.dim() not in (2, 4) or x.shape[1] != self.features:
            expected = f"[B, D, H, W] or [N, D] with D={self.features}"
            raise ValueError(f"VectorQuantizer: x must have shape {expected}; got {tuple(x.shape)}")
        if x.dim() == 4:
            x = x.permute(0, 2, 3, 1).reshape(-1, self.features)
        return x.to(self.codebook.dtype)

    def _codebook_of_pass(self, vectors: Tensor) -> tuple[Tensor, bool]:
        """The codebook that a forward pass in training uses, and whether the pass changes the layer's state."""
        share = torch.rand(self.codes, dtype=torch.float64, device=vectors.device)
        if recomputed():
            codebook = self._passes.recall("VectorQuantizer", (vectors, share))
            # The value of that pass, the gradient of the parameter.
            return (codebook if self.ema else codebook + (self.codebook - self.codebook.detach())), False
        self._restart(vectors, share)
        # A copy: the next batch may change the codebook before the backward pass of this one.
        codebook = self.codebook.clone()
        if torch.compiler.is_compiling():
            codebook = codebook + zero_of_first_pass(codebook, "VectorQuantizer")
        self._passes.keep((vectors, share), codebook.detach())
        return codebook, True

    @torch.no_grad()
    def _restart(self, vectors: Tensor, share: Tensor) -> None:
        """Replace dead codes, or all codes at the first batch, by vectors of the batch.

        share: of the part of the batch that belongs to a code, where its vector lies, float64 [K] in [0, 1).
        """
        here, total = len(vectors), summed(self.counts.new_tensor([len(vectors)]))
        is_first = self.counts.sum() == 0
        mean = torch.where(is_first, total / self.codes, self.counts.mean())
        replaced = torch.where(is_first, self.from_batch, self.counts < self.restart * self.counts.mean())
        # Of R ranks each draws for every R-th code, and for none if its part of the batch is empty.
        own, ranks = rank()
        numbers = torch.arange(self.codes, dtype=torch.int64, device=vectors.device)
        mine = (numbers % ranks == own) & (here > 0)
        places = ((numbers + share) * (here / self.codes)).long()
        drawn = vectors[places.clamp(max=here - 1)] if here else torch.zeros_like(self.codebook)
        drawn = torch.cat((drawn, torch.ones_like(drawn[:, :1])), 1)
        drawn = summed(torch.where(mine[:, None], drawn, 0))
        drawn, there = drawn[:, :-1], (drawn[:, -1] > 0) & drawn.isfinite().all(1)
        replaced = (replaced & there)[:, None]
        self.codebook.copy_(torch.where(replaced, drawn, self.codebook))
        self.counts.copy_(torch.where(replaced[:, 0] | is_first, mean, self.counts))
        if self.ema:
            self.sums.copy_(torch.where(replaced | is_first, self.codebook * mean, self.sums))

    @torch.no_grad()
    def _count(self, vectors: Tensor, codes: Tensor) -> None:
        """Update the moving counts and sums, and the codebook that they define."""
        counts, sums = ops.codebook_statistics(vectors, codes, self.codes)
        statistics = summed(torch.cat((sums, counts[:, None]), 1).to(self.counts.dtype))
        # A batch that is not finite is ignored: it would stay in the moving averages for good.
        weight = statistics.isfinite().all().to(statistics.dtype) * (1 - self.decay)
        statistics = statistics.nan_to_num()
        self.counts.lerp_(statistics[:, -1], weight)
        if not self.ema:
            return
        self.sums.lerp_(statistics[:, :-1], weight)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) * (total / (total + self.codes * self.epsilon))
        # Before the first vector there is no mean.
        self.codebook.copy_(torch.where(total > 0, self.sums / smoothed[:, None], self.codebook))

    def extra_repr(self) -> str:
        return (
            f"{self.codes}, {self.features}, ema={self.ema}, decay={self.decay}, commitment={self.commitment}, "
            f"restart={self.restart}"
        )


class ResidualVectorQuantizer(nn.Module):
    """Residual vector quantisation: each of Q codebooks quantises the residual of those before it.

    ::

        r_1 = x,  r_{q+1} = r_q - e_q[code_q],  quantized = sum_q e_q[code_q],  loss = mean of the Q losses

    Args:
        stages: Q, the number of codebooks.
        codes, features: K and D of each codebook.
        options: further arguments of each `VectorQuantizer`.
    Shape: x [B, D, H, W] or [N, D] -> quantized as x, codes int64 [B, Q, H, W] or [N, Q], loss [].
    Paper: SoundStream, section III-C, arXiv 2107.03312.
    Example: `ResidualVectorQuantizer(4, 256, 64)(torch.randn(2, 64, 7, 7))`
    """

    def __init__(self, stages: int, codes: int, features: int, **options: Any) -> None:
        super().__init__()
        check_sizes("ResidualVectorQuantizer", stages=stages)
        self.stages = nn.ModuleList(VectorQuantizer(codes, features, **options) for _ in range(stages))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual = x
        parts, codes, losses = [], [], []
        for stage in self._quantizers:
            quantized, code, loss = stage(residual)
            residual = residual - quantized.detach()
            parts.append(quantized.detach())
            codes.append(code)
            losses.append(loss)
        # The value is exactly that of `lookup`, the gradient is that of x.
        return (
            sum(parts, torch.zeros_like(parts[0])) + (residual - residual.detach()),
            torch.stack(codes, 1),
            torch.stack(losses).mean(),
        )

    def encode(self, x: Tensor) -> Tensor:
        """Codes of x [B, D, H, W] or [N, D], without a change to the codebooks: int64 [B, Q, H, W] or [N, Q]."""
        codes = []
        for stage in self._quantizers:
            codes.append(stage.encode(x))
            x = x - stage.lookup(codes[-1])
        return torch.stack(codes, 1)

    def lookup(self, codes: Tensor) -> Tensor:
        """The sum of the vectors of Q codes: int64 [B, Q, H, W] -> [B, D, H, W], or [N, Q] -> [N, D].

        Raises: as `VectorQuantizer.lookup`; ValueError for another number of codes.
        """
        _check_codes("ResidualVectorQuantizer", codes, self._quantizers[0].codes, (2, 4))
        if codes.shape[1] != len(self.stages):
            expected = f"[B, Q, H, W] or [N, Q] with Q={len(self.stages)}"
            raise ValueError(f"ResidualVectorQuantizer: codes must have shape {expected}; got {tuple(codes.shape)}")
        parts = [stage.lookup(code) for stage, code in zip(self._quantizers, codes.unbind(1), strict=True)]
        return sum(parts, torch.zeros_like(parts[0]))

    @property
    def _quantizers(self) -> list[VectorQuantizer]:
        return list(self.stages)  # type: ignore[arg-type]  # a ModuleList has no type of its elements

    @property
    def perplexity(self) -> Tensor:
        """The mean `perplexity` of the codebooks, []."""
        return torch.stack([stage.perplexity for stage in self._quantizers]).mean()

    def extra_repr(self) -> str:
        return f"{len(self.stages)}"


def _check_codes(layer: str, codes: Any, count: int, dims: tuple[int, ...]) -> None:
    if not isinstance(codes, Tensor) or codes.dtype != torch.int64:
        got = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(f"{layer}: codes must be torch.int64; got {got}")
    if codes.dim() not in dims:
        expected = " or ".join(map(str, dims))
        raise ValueError(f"{layer}: codes must have {expected} dimensions; got shape {tuple(codes.shape)}")
    check_range(layer, "codes", codes, 0, count - 1, f"lie in 0..{count - 1}")
