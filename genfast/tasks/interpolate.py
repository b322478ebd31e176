"""Interpolation: images on a path through the latents of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genfast.engine.arguments import check_images, check_int
from genfast.engine.calling import evaluating
from genfast.engine.protocols import LatentModel, device_of
from genfast.engine.wrappers import unwraps
from genfast.tasks._latent import Call, check_call, check_latent_model
from genfast.tasks.embed import posteriors

KINDS = ("spherical", "linear")
# Directions with a smaller sine of their angle are parallel up to rounding.
SAME_LINE = 1e-9


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The points `(1 - t) a + t b`: a, b [..., Z] and t [T], floats -> [..., T, Z]."""
    a, b, t = a[..., None, :], b[..., None, :], t.to(a)[:, None]
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The points on the arc from a to b: a, b [..., Z] and t [T], floats -> [..., T, Z].

    The direction turns at a constant rate in the plane of a and b, by t times their angle, and the length changes
    linearly from |a| to |b|. Points of a Gaussian in many dimensions all have nearly the same length, which a straight
    line would leave. Computed in float64 from an orthonormal basis of the plane. Parallel vectors give the straight
    line. Opposite vectors, which span no plane, give half a turn in a plane that is fixed for them. A zero vector,
    which has no direction, gives the straight line, and so do vectors of one latent.
    """
    dtype = a.dtype
    a, b, t = a.double(), b.double(), t.to(a.device, torch.float64)
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    u, v = a / length_a, b / length_b
    along = (u * v).sum(-1, keepdim=True)
    across = v - along * u
    across = across - (across * u).sum(-1, keepdim=True) * u  # again, to remove the rounding error of the first
    sine = across.norm(dim=-1, keepdim=True)
    # From sine and cosine: the cosine alone loses half of the digits near 0 and pi.
    angle = torch.atan2(sine, along)
    w = torch.where(sine > SAME_LINE, across / sine, _perpendicular(u))
    turn = t[:, None] * angle[..., None, :]
    direction = turn.cos() * u[..., None, :] + turn.sin() * w[..., None, :]
    points = direction * linear(length_a, length_b, t)
    straight = (length_a == 0) | (length_b == 0) | (a.shape[-1] == 1)
    return torch.where(straight[..., None, :], linear(a, b, t), points).to(dtype)


def _perpendicular(u: Tensor) -> Tensor:
    """A unit vector perpendicular to each unit vector u [..., Z], from the axis with the smallest component of u."""
    axis = torch.zeros_like(u).scatter_(-1, u.abs().argmin(-1, keepdim=True), 1)
    across = axis - (axis * u).sum(-1, keepdim=True) * u
    return across / across.norm(dim=-1, keepdim=True)


@unwraps
@torch.no_grad()
def interpolate(
    model: LatentModel,
    a: Tensor,
    b: Tensor,
    steps: int = 9,
    *,
    kind: str = "spherical",
    labels: int | Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Images on a path from a to b through the latents of a model.

    Args:
        model: a `genfast.engine.protocols.LatentModel`.
        a, b: the ends: latents, float [n, Z], or images, integers [n, C, H, W], for their posterior means.
        steps: points, including both ends, at least 2.
        kind: "spherical" (along an arc) or "linear"; see `spherical`.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
    Returns: float32 [n, steps, C, H, W] in levels, 0..L-1: the mean of p(x | z) at each point.
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.interpolate(model, images[:4], images[4:8], 9)`
    """
    name, model = "interpolate", check_latent_model("interpolate", model)
    check_int(name, "steps", steps, 2)
    if kind not in KINDS:
        raise ValueError(f"{name}: kind must be one of {', '.join(KINDS)}; got {kind!r}")
    settings: dict[str, Any] = {"labels": labels, "batch_size": batch_size}
    start, stop = _latents_of("a", model, a, settings), _latents_of("b", model, b, settings)
    if len(start) != len(stop):
        raise ValueError(f"{name}: a and b must be as many; got {len(start)} and {len(stop)}")
    call = check_call(name, model, len(start), **settings)
    shares = torch.linspace(0, 1, steps, dtype=torch.float32, device="cpu")
    between = {"spherical": spherical, "linear": linear}[kind](start, stop, shares)
    return expected_images(model, between, call)


def _latents_of(side: str, model: LatentModel, end: Tensor, settings: dict[str, Any]) -> Tensor:
    """The latents of an end, float [n, Z], on the device of the model."""
    name = "interpolate"
    if isinstance(end, Tensor) and end.is_floating_point():
        if end.dim() != 2 or end.shape[1] != model.latent_size:
            expected = f"[n, Z] with Z={model.latent_size}"
            raise ValueError(f"{name}: {side} must have shape {expected}; got {tuple(end.shape)}")
        return end.to(device_of(model))
    end = check_images(name, side, end, model.spec)
    return posteriors(model, end, check_call(name, model, len(end), **settings))[0]


def expected_images(model: LatentModel, latents: Tensor, call: Call) -> Tensor:
    """The expected images [n, K, C, H, W] of latents [n, K, Z], for a call about n images."""
    n, count, width = latents.shape
    module: Any = model
    flat = latents.reshape(n * count, width).to(next(module.parameters()).dtype)
    labels = None if call.labels is None else call.labels.repeat_interleave(count)
    each = replace(call, n=len(flat), labels=labels)
    with evaluating(model):
        parts = [model.likelihood.expected(model.decode(flat[p], each.labels_of(p))) for p in each.batches()]
    if not parts:
        return torch.zeros(n, count, *model.spec.shape, device=flat.device, dtype=torch.float32)
    return torch.cat(parts).float().unflatten(0, (n, count))
