"""Penalties on the gradient of a critic with respect to its images, which compile in one graph.

A critic is any callable `(x, *args) -> [B]` or `[B, ...]`; of patches the sum over an image counts. The gradient of
image i is that of the sum over the batch: exactly the image's own where images do not meet in the critic. Where they do
(`MinibatchStddev`, `MinibatchDiscrimination`, statistics of the batch) it also holds how image i moves the logits of
the others, as in all published code. A layer that writes to its buffers while it runs, such as `BatchNorm2d` in
training mode, is refused by torch within a gradient; `SpectralNorm` leaves its vectors as they are there.

The gradient is `torch.func.grad`, so each penalty works eagerly and inside `torch.compile(fullgraph=True)`, where
`autograd.grad(create_graph=True)` cannot be traced; `.backward()` on the loss, which is the second order, then stays
outside of what is compiled. Penalties are float32 for half-precision images. They have no gradient to their images.
"""

import torch

from genfast._native.checks import wide


def r1_penalty(critic, real, *args):
    """`mean_i |grad_x critic(x_i)|^2` at real images; the papers' term is gamma / 2 times it.

    Args:
        critic: callable (x, *args) -> [B] or [B, ...].
        real: images, float [B, ...], as the critic takes them.
        args: what else the critic takes, such as labels.
    Returns: penalty [], differentiable with respect to what the critic is made of.
    Raises: TypeError for images that are not float; ValueError for an empty batch, or a critic that does not give one
        value or more for each image.
    Paper: Which Training Methods for GANs do actually Converge?, equation 9, arXiv 1801.04406.
    """
    return _norms("r1_penalty", critic, _images("r1_penalty", real=real)[0], args).mean()


def r2_penalty(critic, fake, *args):
    """`mean_i |grad_x critic(x_i)|^2` at generated images (equation 10 of arXiv 1801.04406); as `r1_penalty`."""
    return _norms("r2_penalty", critic, _images("r2_penalty", fake=fake)[0], args).mean()


def wgan_gp_penalty(critic, real, fake, *args, target=1.0, generator=None):
    """`mean_i (|grad_x critic(x_i)| - target)^2` at x_i = e_i real_i + (1 - e_i) fake_i, e_i uniform in [0, 1); the
    paper's term is lambda = 10 times it.

    Args:
        critic: callable (x, *args) -> [B] or [B, ...].
        real, fake: images of one shape, float [B, ...].
        args: what else the critic takes, such as labels.
        target: the norm that is asked for.
        generator: torch's generator of the device for e, without one the global one. torch compiles only the latter.
    Returns: penalty [], differentiable with respect to what the critic is made of.
    Raises: as `r1_penalty`; ValueError for two shapes.
    Paper: Improved Training of Wasserstein GANs, equation 3 and algorithm 1, arXiv 1704.00028.
    """
    real, fake = _images("wgan_gp_penalty", real=real, fake=fake)
    if real.shape != fake.shape:
        shapes = f"{tuple(real.shape)}; got {tuple(fake.shape)}"
        raise ValueError(f"wgan_gp_penalty: fake must have the shape of real, {shapes}")
    share = torch.rand(len(real), dtype=real.dtype, device=real.device, generator=generator)
    between = torch.lerp(fake, real, share.view(-1, *[1] * (real.dim() - 1)))
    return _distances("wgan_gp_penalty", critic, between, args, target)


def dragan_penalty(critic, real, *args, noise=0.5, target=1.0, generator=None):
    """`mean_i (|grad_x critic(x_i)| - target)^2` at x_i = real_i + d_i, d_i ~ N(0, c), sqrt(c) = noise std(real); the
    paper's term is lambda = 10 times it.

    Args:
        critic: callable (x, *args) -> [B] or [B, ...].
        real: images, float [B, ...].
        args: what else the critic takes, such as labels.
        noise: deviation of d in deviations of all values of `real`, at least 0. The paper gives c for its pixel range.
        target: the norm that is asked for, k in the paper.
        generator: torch's generator of the device for d, without one the global one. torch compiles only the latter.
    Returns: penalty [], differentiable with respect to what the critic is made of.
    Raises: as `r1_penalty`; ValueError for a negative noise.
    Paper: On Convergence and Stability of GANs, section 2.3, arXiv 1705.07215.
    """
    if not noise >= 0:
        raise ValueError(f"dragan_penalty: noise must be at least 0; got {noise!r}")
    (real,) = _images("dragan_penalty", real=real)
    drawn = torch.randn(real.shape, dtype=real.dtype, device=real.device, generator=generator)
    around = real + noise * real.std(correction=0) * drawn
    return _distances("dragan_penalty", critic, around, args, target)


def _distances(penalty, critic, images, args, target):
    gradients = _gradients(penalty, critic, images, args)
    # Its derivative at a gradient of zero is zero, where that of a square root would be NaN.
    return (torch.linalg.vector_norm(gradients, dim=1) - target).square().mean()


def _norms(penalty, critic, images, args):
    """Squared norms of the gradients of every image, [B]."""
    return _gradients(penalty, critic, images, args).square().sum(1)


def _gradients(penalty, critic, images, args):
    """grad_x sum_i critic(x)_i, [B, values of an image]."""

    def total(x):
        made = critic(x, *args)
        if not isinstance(made, torch.Tensor) or made.dim() < 1 or len(made) != len(x):
            got = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
            raise ValueError(f"{penalty}: critic must give [B] or [B, ...] with B={len(x)}; got {got}")
        return made.to(wide(made.dtype)).sum()

    gradients = torch.func.grad(total)(images).flatten(1)
    return gradients.to(wide(gradients.dtype))


def _images(penalty, **images):
    for name, value in images.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"{penalty}: {name} must be a float tensor; got {got}")
        if value.dim() < 2 or not value.numel():
            raise ValueError(f"{penalty}: {name} must have shape [B, ...], not empty; got {tuple(value.shape)}")
    return [value.detach() for value in images.values()]
