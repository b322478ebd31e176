"""Vector quantisation: every vector becomes the nearest one of a learnt codebook, or a sum of such."""

import torch
from torch import distributed, nn

from genfast import ops
from genfast._native.checks import check_sizes


class VectorQuantizer(nn.Module):
    """Replaces every vector by the nearest of K codes, which are learnt beside it.

    ::

        code = argmin_k |x - e_k|^2, quantized = e_code         (the gradient goes to x as it is: straight-through)
        loss = commitment mean((x - sg e)^2) [+ mean((sg x - e)^2) without ema]
        ema: n_k <- d n_k + (1 - d) #{code = k},  m_k <- d m_k + (1 - d) sum of their x,
             e_k = m_k / ((n_k + epsilon) / (n + K epsilon) n), n the sum of all n_k

    The first batch in training mode gives the codes their values. A code whose moving count n_k falls below
    `restart` times the mean is dead: it begins anew as a vector of the present batch. Both draw one vector of every
    K-th part of the batch by torch's generator of its device, so `torch.manual_seed` repeats them. In a process group
    of `torch.distributed` counts and sums are those of all ranks, and every rank takes a share of the draws: all
    ranks have one codebook. In evaluation mode nothing changes.

    Args:
        codes: K, the size of the codebook.
        features: D, the size of a vector.
        ema: the codebook is a moving mean of its vectors; False: a parameter, trained by the second term of the loss.
        decay: d of the moving counts and sums, in [0, 1).
        commitment: weight of the term that keeps x near its code.
        restart: share of the mean count below which a code is dead, in [0, 1); 0: never.
        from_batch: whether the first batch gives the codes; False: they begin as N(0, 1).
        epsilon: Laplace smoothing of the counts, above 0.
    Shape: x [B, D, H, W] or [N, D] -> quantized as x, codes int64 [B, H, W] or [N], loss [], a mean over vectors and
        features. A batch without vectors is served too.
    Paper: Neural Discrete Representation Learning, section 3.2 and appendix A.1, arXiv 1711.00937; restarts:
        Jukebox, section 3.1, arXiv 2005.00341.
    Example: `VectorQuantizer(512, 64)(torch.randn(2, 64, 7, 7))`
    """

    def __init__(
        self, codes, features, *, ema=True, decay=0.99, commitment=0.25, restart=0.1, from_batch=True, epsilon=1e-5
    ):
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
        if ema:
            self.register_buffer("codebook", codebook)
            self.register_buffer("sums", torch.zeros(codes, features))
        else:
            self.codebook = nn.Parameter(codebook)
        # All zero until the first batch.
        self.register_buffer("counts", torch.zeros(codes))

    def forward(self, x):
        vectors = self._vectors(x)
        if self.training:
            self._restart(vectors.detach())
        # A copy, as the next batch may change the codebook before the backward pass of this one.
        codebook = self.codebook.clone() if self.training else self.codebook
        with torch.autocast(x.device.type, enabled=False):  # distances need all the digits of float32
            codes, quantized, loss = ops.vector_quantize(vectors, codebook, self.commitment, 0.0 if self.ema else 1.0)
        if self.training:
            self._count(vectors.detach(), codes)
        if x.dim() == 2:
            return quantized, codes, loss
        batch, features, height, width = x.shape
        quantized = quantized.view(batch, height, width, features).permute(0, 3, 1, 2)
        return quantized, codes.view(batch, height, width), loss

    def encode(self, x):
        """The codes alone, without a change to the codebook: int64 [B, H, W] or [N]."""
        with torch.autocast(x.device.type, enabled=False):
            codes = ops.vector_quantize(self._vectors(x), self.codebook)[0]
        return codes if x.dim() == 2 else codes.view(x.shape[0], *x.shape[2:])

    def lookup(self, codes):
        """The vectors of codes: int64 [B, H, W] -> [B, D, H, W], or [N] -> [N, D].

        Raises: TypeError for another dtype; ValueError for another number of dimensions, or a code that is none.
        """
        _check_codes("VectorQuantizer", codes, self.codes, (1, 3))
        vectors = nn.functional.embedding(codes, self.codebook)
        return vectors if codes.dim() == 1 else vectors.permute(0, 3, 1, 2)

    @property
    def perplexity(self):
        """exp of the entropy of the moving counts, [], 1 to K: as many equally frequent codes are in use."""
        shares = self.counts.double() / self.counts.double().sum().clamp(min=1e-300)
        return torch.special.entr(shares).sum().exp()

    def _vectors(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"VectorQuantizer: x must be a float tensor; got {got}")
        if x.dim() not in (2, 4) or x.shape[1] != self.features:
            expected = f"[B, D, H, W] or [N, D] with D={self.features}"
            raise ValueError(f"VectorQuantizer: x must have shape {expected}; got {tuple(x.shape)}")
        if x.dim() == 4:
            x = x.permute(0, 2, 3, 1).reshape(-1, self.features)
        return x.to(self.codebook.dtype)

    @torch.no_grad()
    def _restart(self, vectors):
        """Codes that are dead, or all of them before the first batch, become vectors of the batch."""
        here, total = len(vectors), _summed(self.counts.new_tensor([len(vectors)]))
        untouched = self.counts.sum() == 0
        mean = torch.where(untouched, total / self.codes, self.counts.mean())
        replaced = torch.where(untouched, self.from_batch, self.counts < self.restart * self.counts.mean())
        # The draws of this rank are those of every R-th code; without vectors it makes none.
        rank, ranks = _rank()
        mine = (torch.arange(self.codes, device=vectors.device) % ranks == rank) & (here > 0)
        share = torch.rand(self.codes, dtype=torch.float64, device=vectors.device)
        places = ((torch.arange(self.codes, device=vectors.device) + share) * (here / self.codes)).long()
        drawn = vectors[places.clamp(max=here - 1)] if here else torch.zeros_like(self.codebook)
        drawn = torch.cat((drawn, torch.ones_like(drawn[:, :1])), 1)
        drawn = _summed(torch.where(mine[:, None], drawn, 0))
        drawn, there = drawn[:, :-1], (drawn[:, -1] > 0) & drawn.isfinite().all(1)
        replaced = (replaced & there)[:, None]
        self.codebook.copy_(torch.where(replaced, drawn, self.codebook))
        self.counts.copy_(torch.where(replaced[:, 0] | untouched, mean, self.counts))
        if self.ema:
            self.sums.copy_(torch.where(replaced | untouched, self.codebook * mean, self.sums))

    @torch.no_grad()
    def _count(self, vectors, codes):
        """Moving counts, and the codebook as the mean of its vectors."""
        counts, sums = ops.codebook_statistics(vectors, codes, self.codes)
        found = _summed(torch.cat((sums, counts[:, None]), 1).to(self.counts.dtype))
        # One batch that is not finite would be in the codebook for good.
        weight = torch.where(found.isfinite().all(), 1 - self.decay, 0.0).to(found.dtype)
        found = found.nan_to_num()
        self.counts.lerp_(found[:, -1], weight)
        if not self.ema:
            return
        self.sums.lerp_(found[:, :-1], weight)
        total = self.counts.sum()
        smooth = (self.counts + self.epsilon) * (total / (total + self.codes * self.epsilon))
        # Without any vector so far there is nothing to take a mean of.
        self.codebook.copy_(torch.where(total > 0, self.sums / smooth[:, None], self.codebook))

    def extra_repr(self):
        return (
            f"{self.codes}, {self.features}, ema={self.ema}, decay={self.decay}, commitment={self.commitment}, "
            f"restart={self.restart}"
        )


class ResidualVectorQuantizer(nn.Module):
    """Q codebooks one after another: each quantises what the ones before it left, and their codes add up.

    ::

        r_1 = x,  r_{q+1} = r_q - e_q[code_q],  quantized = sum_q e_q[code_q],  loss = mean of the Q losses

    Args:
        stages: Q, the number of codebooks.
        codes, features: K and D of each.
        options: the other arguments of each `VectorQuantizer`.
    Shape: x [B, D, H, W] or [N, D] -> quantized as x, codes int64 [B, Q, H, W] or [N, Q], loss [].
    Paper: SoundStream, section III-C, arXiv 2107.03312.
    Example: `ResidualVectorQuantizer(4, 256, 64)(torch.randn(2, 64, 7, 7))`
    """

    def __init__(self, stages, codes, features, **options):
        super().__init__()
        check_sizes("ResidualVectorQuantizer", stages=stages)
        self.stages = nn.ModuleList(VectorQuantizer(codes, features, **options) for _ in range(stages))

    def forward(self, x):
        rest, parts, codes, losses = x, [], [], []
        for stage in self.stages:
            quantized, code, loss = stage(rest)
            rest = rest - quantized.detach()
            parts.append(quantized.detach())
            codes.append(code)
            losses.append(loss)
        # Exactly what `lookup` gives, with the gradient of x.
        return sum(parts) + (rest - rest.detach()), torch.stack(codes, 1), torch.stack(losses).mean()

    def encode(self, x):
        """The codes alone, without a change to the codebooks: int64 [B, Q, H, W] or [N, Q]."""
        codes = []
        for stage in self.stages:
            codes.append(stage.encode(x))
            x = x - stage.lookup(codes[-1])
        return torch.stack(codes, 1)

    def lookup(self, codes):
        """The sums of vectors that codes stand for: int64 [B, Q, H, W] -> [B, D, H, W], or [N, Q] -> [N, D]."""
        _check_codes("ResidualVectorQuantizer", codes, self.stages[0].codes, (2, 4))
        if codes.shape[1] != len(self.stages):
            expected = f"[B, Q, H, W] or [N, Q] with Q={len(self.stages)}"
            raise ValueError(f"ResidualVectorQuantizer: codes must have shape {expected}; got {tuple(codes.shape)}")
        return sum(stage.lookup(code) for stage, code in zip(self.stages, codes.unbind(1), strict=True))

    @property
    def perplexity(self):
        """Mean over the codebooks of their `perplexity`, []."""
        return torch.stack([stage.perplexity for stage in self.stages]).mean()

    def extra_repr(self):
        return f"{len(self.stages)}"


def _check_codes(layer, codes, count, dims):
    if not isinstance(codes, torch.Tensor) or codes.dtype != torch.int64:
        got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
        raise TypeError(f"{layer}: codes must be torch.int64; got {got}")
    if codes.dim() not in dims:
        expected = " or ".join(map(str, dims))
        raise ValueError(f"{layer}: codes must have {expected} dimensions; got shape {tuple(codes.shape)}")
    if codes.numel() and not torch.compiler.is_compiling():
        low, high = (int(value) for value in codes.aminmax())
        if low < 0 or high >= count:
            raise ValueError(f"{layer}: codes must lie in 0..{count - 1}; got {low if low < 0 else high}")


def _rank():
    """(rank, number of ranks) of this process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _summed(tensor):
    """The sum over all ranks, in place."""
    if _rank()[1] > 1:
        distributed.all_reduce(tensor)
    return tensor
