"""Adversarial losses: functions of logits, means over the batch.

`real` and `fake` are what the discriminator gives for data and for what the generator made: [B], or [B, ...] for
patches. Every function returns a loss [] to be minimised, in float32 for half-precision logits.
"""

import torch
from torch.nn import functional as F

from genfast._native.checks import wide


def non_saturating_discriminator(real, fake, smooth=0.0):
    """Cross-entropy of real against fake, `-E log s(real) - E log(1 - s(fake))` with s the sigmoid: the discriminator's
    side of the minimax game too.

    Args:
        real, fake: float logits, not empty.
        smooth: one-sided label smoothing, in [0, 1): the real targets are 1 - smooth, the fake ones stay 0.
    Raises: TypeError for what is no float tensor; ValueError for an empty one, or smooth out of range.
    Paper: Generative Adversarial Networks, arXiv 1406.2661; Improved Techniques for Training GANs, section 3.4,
        arXiv 1606.03498.
    """
    if not 0 <= smooth < 1:
        raise ValueError(f"non_saturating_discriminator: smooth must lie in [0, 1); got {smooth!r}")
    real, fake = _logits("non_saturating_discriminator", real=real, fake=fake)
    # (1 - a) softplus(-r) + a softplus(r) = softplus(-r) + a r
    return F.softplus(-real).mean() + smooth * real.mean() + F.softplus(fake).mean()


def non_saturating_generator(fake):
    """`-E log s(fake)`: what the generator minimises in practice (arXiv 1406.2661, section 3)."""
    (fake,) = _logits("non_saturating_generator", fake=fake)
    return F.softplus(-fake).mean()


def minimax_generator(fake):
    """`E log(1 - s(fake))`: the generator's side of the minimax game, equation 1 of arXiv 1406.2661, whose gradient
    vanishes where the discriminator is sure."""
    (fake,) = _logits("minimax_generator", fake=fake)
    return -F.softplus(fake).mean()


def hinge_discriminator(real, fake):
    """`E max(0, 1 - real) + E max(0, 1 + fake)` (Spectral Normalization for GANs, equation 16, arXiv 1802.05957)."""
    real, fake = _logits("hinge_discriminator", real=real, fake=fake)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake):
    """`-E fake` (equation 17 of arXiv 1802.05957)."""
    (fake,) = _logits("hinge_generator", fake=fake)
    return -fake.mean()


def wasserstein_discriminator(real, fake):
    """`E fake - E real`: the critic's loss, without its penalty (arXiv 1701.07875, 1704.00028)."""
    real, fake = _logits("wasserstein_discriminator", real=real, fake=fake)
    return fake.mean() - real.mean()


def wasserstein_generator(fake):
    """`-E fake` (arXiv 1701.07875)."""
    (fake,) = _logits("wasserstein_generator", fake=fake)
    return -fake.mean()


def least_squares_discriminator(real, fake):
    """`E (real - 1)^2 / 2 + E fake^2 / 2` (Least Squares GANs, equation 9, arXiv 1611.04076)."""
    real, fake = _logits("least_squares_discriminator", real=real, fake=fake)
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator(fake):
    """`E (fake - 1)^2 / 2` (equation 9 of arXiv 1611.04076)."""
    (fake,) = _logits("least_squares_generator", fake=fake)
    return (fake - 1).square().mean() / 2


def relativistic_discriminator(real, fake):
    """`E log(1 + exp(fake - real))` over pairs: each real image is judged against one fake one.

    Args:
        real, fake: float logits of one shape, not empty.
    Raises: TypeError for what is no float tensor; ValueError for empty ones or two shapes.
    Paper: The GAN is dead; long live the GAN! A Modern GAN Baseline, equation 2, arXiv 2501.05441, with the penalties
        `r1_penalty` and `r2_penalty`; the relativistic discriminator: arXiv 1807.00734.
    """
    real, fake = _pairs("relativistic_discriminator", real, fake)
    return F.softplus(fake - real).mean()


def relativistic_generator(real, fake):
    """`E log(1 + exp(real - fake))` over pairs: the other side of `relativistic_discriminator`."""
    real, fake = _pairs("relativistic_generator", real, fake)
    return F.softplus(real - fake).mean()


def _logits(loss, **logits):
    """The logits, checked, in float32 at least: a mean of half-precision values would lose digits."""
    for name, value in logits.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"{loss}: {name} must be a float tensor; got {got}")
        if not value.numel():
            raise ValueError(f"{loss}: {name} must hold at least one logit; got shape {tuple(value.shape)}")
    return [value.to(wide(value.dtype)) for value in logits.values()]


def _pairs(loss, real, fake):
    real, fake = _logits(loss, real=real, fake=fake)
    if real.shape != fake.shape:
        raise ValueError(f"{loss}: fake must have the shape of real, {tuple(real.shape)}; got {tuple(fake.shape)}")
    return real, fake
