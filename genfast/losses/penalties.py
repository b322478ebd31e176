"""Gradient penalties of a critic with respect to its images. They compile in one graph.

A critic is any callable `(x, *args) -> [B]` or `[B, ...]`; the logits of patches are summed over an image. The gradient
of image i is that of the sum over the batch. It is exactly the image's own gradient where the critic's value of an
image depends on that image alone. In a critic that couples the images of a batch (`MinibatchStddev`,
`MinibatchDiscrimination`, batch statistics) it also contains the effect of image i on the other logits, as in all
published code. `SpectralNorm` does not update its vectors within the gradient; `BatchNorm2d` in training mode updates
its statistics.

The gradient is that of `torch.autograd.grad(create_graph=True)`, so that a critic may be anything that this works for:
one in `DistributedDataParallel`, or with `torch.utils.checkpoint.checkpoint(use_reentrant=False)`. It is that of
`torch.func.grad` inside `torch.compile(fullgraph=True)`, which cannot trace the former, and within `torch.func`: there
torch refuses a critic that writes to its buffers. Call `.backward()` on the loss, the second order, outside of the
compiled function. Penalties are float32 for half-precision images. No gradient flows to the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genfast._native.checks import wide
from genfast._native.derivatives import within_penalty
from genfast._native.transforms import transforms_run

Critic = Callable[..., Tensor]


def r1_penalty(critic: Critic, real: Tensor, *args: Any) -> Tensor:
    """`mean_i |grad_x critic(x_i)|^2` at real images. The term of the papers is gamma / 2 times this.

    Args:
        critic: callable (x, *args) -> [B] or [B, ...].
        real: images, float [B, ...], as the critic takes them.
        args: further arguments of the critic, such as labels.
    Returns: penalty [], differentiable with respect to the critic's parameters.
    Raises: TypeError for images that are not float; ValueError for an empty batch, or a critic whose output is not
        [B] or [B, ...].
    Paper: Which Training Methods for GANs do actually Converge?, equation 9, arXiv 1801.04406.
    Example: `r1_penalty(nn.Sequential(nn.Flatten(), nn.Linear(784, 1)), torch.randn(4, 1, 28, 28))`
    """
    return _norms("r1_penalty", critic, _images("r1_penalty", real=real)[0], args).mean()


def r2_penalty(critic: Critic, fake: Tensor, *args: Any) -> Tensor:
    """`mean_i |grad_x critic(x_i)|^2` at generated images (equation 10 of arXiv 1801.04406); see `r1_penalty`."""
    return _norms("r2_penalty", critic, _images("r2_penalty", fake=fake)[0], args).mean()


def wgan_gp_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    *args: Any,
    target: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`mean_i (|grad_x critic(x_i)| - target)^2` at x_i = e_i real_i + (1 - e_i) fake_i, e_i uniform in [0, 1).

    The term of the paper is lambda = 10 times this.

    Args:
        critic: callable (x, *args) -> [B] or [B, ...].
        real, fake: images of one shape, float [B, ...].
        args: further arguments of the critic, such as labels.
        target: the norm that the penalty asks for.
        generator: the `torch.Generator` that draws e; torch's global one if None. torch compiles only the global one.
    Returns: penalty [], differentiable with respect to the critic's parameters.
    Raises: as `r1_penalty`; ValueError for shapes that differ.
    Paper: Improved Training of Wasserstein GANs, equation 3 and algorithm 1, arXiv 1704.00028.
    """
    real, fake = _images("wgan_gp_penalty", real=real, fake=fake)
    if real.shape != fake.shape:
        shapes = f"{tuple(real.shape)}; got {tuple(fake.shape)}"
        raise ValueError(f"wgan_gp_penalty: fake must have the shape of real, {shapes}")
    share = torch.rand(len(real), dtype=real.dtype, device=real.device, generator=generator)
    between = torch.lerp(fake, real, share.view(-1, *[1] * (real.dim() - 1)))
    return _distances("wgan_gp_penalty", critic, between, args, target)


def dragan_penalty(
    critic: Critic,
    real: Tensor,
    *args: Any,
    noise: float = 0.5,
    target: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`mean_i (|grad_x critic(x_i)| - target)^2` at x_i = real_i + d_i, d_i ~ N(0, c), sqrt(c) = noise std(real).

    The term of the paper is lambda = 10 times this.

    Args:
        critic: callable (x, *args) -> [B] or [B, ...].
        real: images, float [B, ...].
        args: further arguments of the critic, such as labels.
        noise: standard deviation of d as a multiple of that of all values of `real`, at least 0. The paper gives c for
            its own pixel range.
        target: the norm that the penalty asks for, k in the paper.
        generator: the `torch.Generator` that draws d; torch's global one if None. torch compiles only the global one.
    Returns: penalty [], differentiable with respect to the critic's parameters.
    Raises: as `r1_penalty`; ValueError for a negative noise.
    Paper: On Convergence and Stability of GANs, section 2.3, arXiv 1705.07215.
    """
    if not noise >= 0:
        raise ValueError(f"dragan_penalty: noise must be at least 0; got {noise!r}")
    (real,) = _images("dragan_penalty", real=real)
    standard = torch.randn(real.shape, dtype=real.dtype, device=real.device, generator=generator)
    around = real + noise * real.std(correction=0) * standard
    return _distances("dragan_penalty", critic, around, args, target)


def _distances(penalty: str, critic: Critic, images: Tensor, args: tuple[Any, ...], target: float) -> Tensor:
    gradients = _gradients(penalty, critic, images, args)
    # vector_norm has derivative zero at a gradient of zero; a square root would give NaN.
    return (torch.linalg.vector_norm(gradients, dim=1) - target).square().mean()


def _norms(penalty: str, critic: Critic, images: Tensor, args: tuple[Any, ...]) -> Tensor:
    """Squared norm of the gradient of each image, [B]."""
    return _gradients(penalty, critic, images, args).square().sum(1)


def _gradients(penalty: str, critic: Critic, images: Tensor, args: tuple[Any, ...]) -> Tensor:
    """grad_x sum_i critic(x)_i, flattened to [B, C H W]."""

    def total(x: Tensor) -> Tensor:
        values = critic(x, *args)
        if not isinstance(values, Tensor) or values.dim() < 1 or len(values) != len(x):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"{penalty}: critic must give [B] or [B, ...] with B={len(x)}; got {got}")
        return values.to(wide(values.dtype)).sum()

    functional = torch.compiler.is_compiling() or transforms_run()
    gradients = torch.func.grad(total)(images) if functional else _by_autograd(total, images)
    return gradients.flatten(1).to(wide(gradients.dtype))


def _by_autograd(total: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad(), within_penalty():
        x = images.detach().requires_grad_()
        value = total(x)
        if not value.requires_grad:
            return torch.zeros_like(images)
        (gradient,) = torch.autograd.grad(value, x, create_graph=create_graph, materialize_grads=True)
    return gradient


def _images(penalty: str, **images: Tensor) -> list[Tensor]:
    """The checked images, detached."""
    for name, value in images.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{penalty}: {name} must be a float tensor; got {got}")
        if value.dim() < 2 or not value.numel():
            raise ValueError(f"{penalty}: {name} must have shape [B, ...], not empty; got {tuple(value.shape)}")
    return [value.detach() for value in images.values()]
