"""What the ops of the variational family are measured against on a GPU: the same in plain torch, done well."""

import math

import torch
from torch.nn import functional as F


def gaussian_latent_eager(mean, log_variance, **_):
    """N(0, I) as the prior, and torch's noise: other numbers, and no say in which."""
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    return z, 0.5 * (log_variance.exp() - 1 - log_variance + mean**2).sum(1)


def gaussian_nll_eager(x, mean, log_variance, **_):
    nats = log_variance + (x - mean) ** 2 * (-log_variance).exp()
    return 0.5 * (nats.flatten(1).sum(1) + math.log(2 * math.pi) * x[0].numel())


def bernoulli_nll_eager(x, logits, **_):
    return F.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none").sum((1, 2, 3))


def importance_bound_eager(log_weights):
    return log_weights.logsumexp(1) - math.log(log_weights.shape[1])


def vector_quantize_eager(x, codebook, commitment, codebook_weight):
    """One product, with the matrix of distances."""
    with torch.no_grad():
        codes = torch.addmm((codebook**2).sum(1), x, codebook.T, alpha=-2).argmin(1)
    chosen = F.embedding(codes, codebook)
    loss = codebook_weight * F.mse_loss(chosen, x.detach()) + commitment * F.mse_loss(x, chosen.detach())
    return codes, x + (chosen - x).detach(), loss


def aggregate_posterior_eager(z, mean, log_variance):
    """With the tensor of all points, Gaussians and latents."""
    squares = (z[:, None] - mean) ** 2 * (-log_variance).exp()
    log_density = -0.5 * (math.log(2 * math.pi) + log_variance + squares)
    return log_density.sum(2).logsumexp(1), log_density.logsumexp(1)


def codebook_statistics_eager(x, codes, count):
    """The sums by atomics: in no fixed order."""
    return torch.bincount(codes, minlength=count), x.new_zeros(count, x.shape[1]).index_add_(0, codes, x)


def nearest_neighbors_eager(x, y, k):
    parts = [torch.cdist(part, y).topk(k, 1, largest=False) for part in x.float().split(4096)]
    distances, indices = (torch.cat(each) for each in zip(*parts))
    return distances**2, indices


def kernel_sum_eager(x, y, kernel, gamma, coef0, degree):
    parts = x.float().split(4096)
    if kernel == "polynomial":
        return torch.cat([(gamma * part @ y.T + coef0).pow(degree).sum(1) for part in parts])
    return torch.cat([(-gamma * torch.cdist(part, y) ** 2).exp().sum(1) for part in parts])
