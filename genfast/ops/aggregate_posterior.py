"""The density of the aggregate posterior, which the total correlation of a beta-TC VAE is made of."""

from __future__ import annotations

import math

from torch import Tensor

from genfast._native.checks import check_shape, check_tensors, wide
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.aggregate_posterior import aggregate_posterior_ref


def aggregate_posterior(
    z: Tensor, mean: Tensor, log_variance: Tensor, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """The log-density of a sum of diagonal Gaussians at points, of all latents together and of each one alone.

    With lv clamped to [-30, 20], outside which its gradient is 0, and n(j, l) = log N(z[i, l]; mean[j, l], exp(lv))::

        joint[i] = log sum over j of exp(sum over l of n(j, l)),   marginals[i, l] = log sum over j of exp(n(j, l))

    For z drawn from the posteriors of a batch of M of N images, joint - log(N M) estimates log q(z) and
    marginals - log(N M) log q(z_l): minibatch-weighted sampling. Tiled: the [N, M, Z] tensor is never made.

    Args:
        z: [N, Z]; float32, float64, bfloat16 or float16; any strides. Computed in float32 or wider.
        mean: [M, Z], M at least 1.
        log_variance: like mean.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        (joint, marginals): [N] and [N, Z], nats; float32, or float64 for float64 input.

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of z.
        ValueError: a shape does not fit, M = 0, devices differ, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in the three tensors, deterministic; the first is native, the higher ones run the reference.

    Paper:
        Isolating Sources of Disentanglement in Variational Autoencoders, Chen et al. 2018, equation 5 and appendix C.1,
        arXiv 1802.04942.

    Example:
        >>> import torch, genfast
        >>> joint, marginals = genfast.aggregate_posterior(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(3, 2))
        >>> joint, marginals
        (tensor([-0.7393]), tensor([[0.1797, 0.1797]]))
    """
    op = "aggregate_posterior"
    check_tensors(op, z=z, mean=mean, log_variance=log_variance)
    if z.ndim != 2:
        raise ValueError(f"{op}: z must have shape [N, Z]; got {tuple(z.shape)}")
    if mean.ndim != 2 or mean.shape[0] < 1 or mean.shape[1] != z.shape[1]:
        raise ValueError(f"{op}: mean must have shape [M, Z] with M>=1, Z={z.shape[1]}; got {tuple(mean.shape)}")
    check_shape(op, "log_variance", log_variance, mean.shape, "[M, Z]", M=mean.shape[0], Z=z.shape[1])
    return _density(z, mean, log_variance, backend=backend)


def _numbers(z: Tensor, mean: Tensor) -> tuple[int | float, ...]:
    return z.shape[0], mean.shape[0], z.shape[1]


def _allocate(z: Tensor, mean: Tensor, log_variance: Tensor, save: bool) -> Allocated:
    dtype = wide(z.dtype)
    return _numbers(z, mean), (z.new_empty(z.shape[0], dtype=dtype), contiguous_like(z, dtype))


def _allocate_gradients(
    grad_joint: Tensor,
    grad_marginals: Tensor,
    z: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    joint: Tensor,
    marginals: Tensor,
) -> Allocated:
    return _numbers(z, mean), tuple(contiguous_like(t) for t in (z, mean, log_variance))


_density = register(
    OpSchema(
        name="aggregate_posterior",
        arguments={"z": "float [N, Z]", "mean": "float [M, Z]", "log_variance": "float [M, Z]"},
        outputs={"joint": "wide [N]", "marginals": "wide [N, Z]"},
        limits={"M": (1, math.inf)},
        residuals=("z", "mean", "log_variance", "joint", "marginals"),
        numbers=("points", "count", "latents"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    aggregate_posterior_ref,
)
