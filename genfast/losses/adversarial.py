"""Adversarial losses: functions of logits, means over the batch.

`real` and `fake` are the discriminator's logits of real and of generated images: [B], or [B, ...] for patches. Every
function returns a loss [] to be minimised. It is computed in float32 for half-precision logits.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from genfast._native.checks import wide


def non_saturating_discriminator(real: Tensor, fake: Tensor, smooth: float = 0.0) -> Tensor:
    """The discriminator's cross-entropy, `-E log s(real) - E log(1 - s(fake))` with s the sigmoid.

    The minimax game has the same loss of the discriminator.

    Args:
        real, fake: float logits, not empty.
        smooth: one-sided label smoothing, in [0, 1): the targets of real images are 1 - smooth, those of generated
            images stay 0.
    Raises: TypeError for an argument that is not a float tensor; ValueError for an empty tensor, or smooth out of
        range.
    Paper: Generative Adversarial Networks, arXiv 1406.2661; Improved Techniques for Training GANs, section 3.4,
        arXiv 1606.03498.
    Example: `non_saturating_discriminator(torch.randn(8), torch.randn(8), smooth=0.1)`
    """
    if not 0 <= smooth < 1:
        raise ValueError(f"non_saturating_discriminator: smooth must lie in [0, 1); got {smooth!r}")
    real, fake = _logits("non_saturating_discriminator", real=real, fake=fake)
    # (1 - a) softplus(-r) + a softplus(r) = softplus(-r) + a r
    return F.softplus(-real).mean() + smooth * real.mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """`-E log s(fake)`: the generator's loss that is used in practice (arXiv 1406.2661, section 3)."""
    (fake,) = _logits("non_saturating_generator", fake=fake)
    return F.softplus(-fake).mean()


def minimax_generator(fake: Tensor) -> Tensor:
    """`E log(1 - s(fake))`: the generator's loss in the minimax game (arXiv 1406.2661, equation 1).

    Its gradient vanishes where the discriminator is confident.
    """
    (fake,) = _logits("minimax_generator", fake=fake)
    return -F.softplus(fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """`E max(0, 1 - real) + E max(0, 1 + fake)` (Spectral Normalization for GANs, equation 16, arXiv 1802.05957)."""
    real, fake = _logits("hinge_discriminator", real=real, fake=fake)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """`-E fake` (equation 17 of arXiv 1802.05957)."""
    (fake,) = _logits("hinge_generator", fake=fake)
    return -fake.mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """`E fake - E real`: the critic's loss, without a gradient penalty (arXiv 1701.07875, 1704.00028)."""
    real, fake = _logits("wasserstein_discriminator", real=real, fake=fake)
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """`-E fake` (arXiv 1701.07875)."""
    (fake,) = _logits("wasserstein_generator", fake=fake)
    return -fake.mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """`E (real - 1)^2 / 2 + E fake^2 / 2` (Least Squares GANs, equation 9, arXiv 1611.04076)."""
    real, fake = _logits("least_squares_discriminator", real=real, fake=fake)
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator(fake: Tensor) -> Tensor:
    """`E (fake - 1)^2 / 2` (equation 9 of arXiv 1611.04076)."""
    (fake,) = _logits("least_squares_generator", fake=fake)
    return (fake - 1).square().mean() / 2


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """`E log(1 + exp(fake - real))` over pairs of a real and a generated image.

    Args:
        real, fake: float logits of one shape, not empty.
    Raises: TypeError for an argument that is not a float tensor; ValueError for an empty tensor, or shapes that differ.
    Paper: The GAN is dead; long live the GAN! A Modern GAN Baseline, equation 2, arXiv 2501.05441, with the penalties
        `r1_penalty` and `r2_penalty`; the relativistic discriminator: arXiv 1807.00734.
    Example: `relativistic_discriminator(torch.randn(8), torch.randn(8))`
    """
    real, fake = _pairs("relativistic_discriminator", real, fake)
    return F.softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """`E log(1 + exp(real - fake))` over pairs: the generator's loss to `relativistic_discriminator`."""
    real, fake = _pairs("relativistic_generator", real, fake)
    return F.softplus(real - fake).mean()


def _logits(loss: str, **logits: Tensor) -> list[Tensor]:
    """The checked logits in float32 or wider: a mean in half precision would lose digits."""
    for name, value in logits.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{loss}: {name} must be a float tensor; got {got}")
        if not value.numel():
            raise ValueError(f"{loss}: {name} must hold at least one logit; got shape {tuple(value.shape)}")
    return [value.to(wide(value.dtype)) for value in logits.values()]


def _pairs(loss: str, real: Tensor, fake: Tensor) -> list[Tensor]:
    real, fake = _logits(loss, real=real, fake=fake)
    if real.shape != fake.shape:
        raise ValueError(f"{loss}: fake must have the shape of real, {tuple(real.shape)}; got {tuple(fake.shape)}")
    return [real, fake]
