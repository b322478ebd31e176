"""The importance-weighted bound on the log-likelihood, and its estimators of the gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genfast._native.checks import check_tensors, wide
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.importance_bound import importance_bound_ref


def importance_bound(log_weights: Tensor, path: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """The logarithm of the mean of importance weights: a lower bound on log p(x) that tightens with their number.

    ::

        bound[b] = log (1/S sum over s of exp(log_weights[b, s])),   log_weights = log p(x, z) - log q(z | x)

    The gradient of log_weights is the normalised weights w = softmax(log_weights). That of the parameters of q is
    then noise for many samples; with `path` it is the doubly reparameterised estimator of Tucker et al.: compute
    log q with the parameters of q detached, so that they are reached through z alone, and give z as `path`: what
    flows back through it is multiplied by w once more. The bound and the gradient of p stay as they are.

    Args:
        log_weights: [B, S], nats, S at least 1; float32, float64, bfloat16 or float16; any scale, -inf too.
        path: None, or the samples z [B S, ...] that log_weights were computed from, those of one image one after the
            other, as `gaussian_latent` returns them.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        bound: [B], nats; float32, or float64 for float64 input. -inf if all weights of an image are 0.

    Raises:
        TypeError: log_weights is no strided float tensor, or path is no tensor.
        ValueError: a shape does not fit, or the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors, or path has no gradient or was given before.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in log_weights, deterministic; the first is native: nothing is saved but the argument. The higher
        ones run the reference. `path` works for backward(), not within torch.func, as it hooks the gradient of z.

    Paper:
        Importance Weighted Autoencoders, Burda et al. 2015, equation 8, arXiv 1509.00519; Doubly Reparameterized
        Gradient Estimators, Tucker et al. 2018, equation 8, arXiv 1810.04152.

    Example:
        >>> import torch, genfast
        >>> genfast.importance_bound(torch.tensor([[-1000.0, -1000.0], [0.0, 0.0]]))
        tensor([-1000.,     0.])
    """
    op = "importance_bound"
    check_tensors(op, log_weights=log_weights)
    if log_weights.ndim != 2 or log_weights.shape[1] < 1:
        raise ValueError(f"{op}: log_weights must have shape [B, S] with S>=1; got {tuple(log_weights.shape)}")
    if path is not None:
        _reweight(op, path, log_weights.detach())
    return _bound(log_weights, backend=backend)


def _reweight(op: str, path: Tensor, log_weights: Tensor) -> None:
    if not isinstance(path, Tensor):
        raise TypeError(f"{op}: path must be a torch.Tensor; got {type(path).__name__}")
    batch, samples = log_weights.shape
    if path.ndim < 1 or path.shape[0] != log_weights.numel():
        expected = f"[B S, ...] with B={batch}, S={samples}"
        raise ValueError(f"{op}: path must have shape {expected}; got {tuple(path.shape)}")
    if not torch.is_grad_enabled():
        return
    if not path.requires_grad:
        raise RuntimeError(f"{op}: path must be what the gradient of q flows through; got a tensor without gradient")
    if getattr(path, "_reweighted", False):
        raise RuntimeError(f"{op}: path must be given once; got one whose gradient is reweighted already")
    path._reweighted = True  # type: ignore[attr-defined]
    weights = log_weights.to(wide(log_weights.dtype)).softmax(1).reshape(-1, *[1] * (path.ndim - 1))
    path.register_hook(lambda grad: grad * weights.to(grad.dtype))


def _allocate(log_weights: Tensor, save: bool) -> Allocated:
    return log_weights.shape, (log_weights.new_empty(log_weights.shape[0], dtype=wide(log_weights.dtype)),)


def _allocate_gradients(grad_bound: Tensor, log_weights: Tensor) -> Allocated:
    return log_weights.shape, (contiguous_like(log_weights),)


_bound = register(
    OpSchema(
        name="importance_bound",
        autocast="as given",
        arguments={"log_weights": "float [B, S]"},
        outputs={"bound": "wide [B]"},
        limits={"S": (1, math.inf)},
        residuals=("log_weights",),
        numbers=("batch", "samples"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    importance_bound_ref,
)
