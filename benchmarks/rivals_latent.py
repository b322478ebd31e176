"""What the ops of latent variables are measured against: the same functions in plain torch, done well."""

import math

import torch
from torch.nn import functional as F


def nearest_code(x, codebook, rows=4096):
    """Codes by a product for every chunk of rows: a [rows, K] matrix at a time, which is faster than all at once."""
    half_norms = -0.5 * codebook.square().sum(1)
    return torch.cat([torch.addmm(half_norms, part, codebook.T).argmax(1) for part in x.split(rows)])


def vector_quantize_eager(x, codebook, commitment=0.25, codebook_weight=1.0):
    """`vector_quantize` as people write it when they know `addmm`."""
    with torch.no_grad():
        codes = nearest_code(x, codebook)
    chosen = F.embedding(codes, codebook)
    loss = codebook_weight * F.mse_loss(chosen, x.detach()) + commitment * F.mse_loss(x, chosen.detach())
    return codes, x + (chosen - x).detach(), loss


def codebook_statistics_eager(x, codes, count):
    """`codebook_statistics` by scatter: no [N, K] one-hot matrix."""
    with torch.no_grad():
        counts = torch.bincount(codes, minlength=count).to(x.dtype)
        return counts, x.new_zeros(count, x.shape[1]).index_add_(0, codes, x)


def aggregate_posterior_eager(z, mean, log_variance):
    """`aggregate_posterior` with the [N, M, Z] tensor."""
    log_density = -0.5 * (math.log(2 * math.pi) + log_variance + (z[:, None] - mean).square() * (-log_variance).exp())
    return log_density.sum(2).logsumexp(1), log_density.logsumexp(1)


def nearest_neighbors_eager(x, y, k, rows=1024):
    """`nearest_neighbors` by a product and `topk` for every chunk of rows: [rows, M] at a time."""
    half_norms = -0.5 * y.square().sum(1)
    parts = [torch.addmm(half_norms, part, y.T).topk(k, dim=1) for part in x.split(rows)]
    scores, indices = (torch.cat(tensors) for tensors in zip(*parts))
    return (x.square().sum(1, keepdim=True) - 2 * scores).clamp(min=0), indices


def kernel_sum_eager(x, y, kernel="polynomial", gamma=None, coef0=1.0, degree=3, rows=1024):
    """`kernel_sum` by a product for every chunk of rows, summed in float64."""
    gamma = 1 / x.shape[1] if gamma is None else gamma
    parts = []
    for part in x.split(rows):
        if kernel == "polynomial":
            values = (gamma * (part @ y.T) + coef0).pow(degree)
        else:
            values = torch.cdist(part, y).square().mul(-gamma).exp()
        parts.append(values.sum(1, dtype=torch.float64))
    return torch.cat(parts)
