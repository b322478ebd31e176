"""Between images, and along single latents: what lies on a path through the latents of a model."""

from dataclasses import dataclass

import torch

from genfast import ops
from genfast.engine.arguments import check_whole
from genfast.engine.full_forward import evaluating
from genfast.engine.latents import batches, check_call, check_levels, describe, part_of
from genfast.tasks.embed import posteriors

KINDS = ("spherical", "linear")
# Below this sine of the angle between two directions the plane that they span is rounding noise.
SAME_LINE = 1e-9


def linear(a, b, t):
    """The points `(1 - t) a + t b`: a, b [..., Z] and t [T], floats -> [..., T, Z]."""
    a, b, t = a[..., None, :], b[..., None, :], t.to(a)[:, None]
    return (1 - t) * a + t * b


def spherical(a, b, t):
    """The points on the arc from a to b: a, b [..., Z] and t [T], floats -> [..., T, Z].

    The direction turns at a constant rate in the plane of a and b, by t times their angle; the length goes from |a| to
    |b| linearly. Points drawn from a Gaussian in many dimensions all have nearly the same length, which a straight
    line leaves. Computed in float64 from an orthonormal basis of the plane: parallel vectors give the straight line,
    and opposite ones, which span no plane, half a turn in a plane that is always the same for them. A vector of length
    zero, which has no direction, gives the straight line, and so do vectors of one latent.
    """
    dtype = a.dtype
    a, b, t = a.double(), b.double(), t.to(a.device, torch.float64)
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    u, v = a / length_a, b / length_b
    along = (u * v).sum(-1, keepdim=True)
    across = v - along * u
    across = across - (across * u).sum(-1, keepdim=True) * u  # a second time: the first left rounding noise
    sine = across.norm(dim=-1, keepdim=True)
    # The angle by both: its cosine alone loses half of the digits near 0 and pi.
    angle = torch.atan2(sine, along)
    w = torch.where(sine > SAME_LINE, across / sine, _perpendicular(u))
    turn = t[:, None] * angle[..., None, :]
    direction = turn.cos() * u[..., None, :] + turn.sin() * w[..., None, :]
    points = direction * linear(length_a, length_b, t)
    straight = (length_a == 0) | (length_b == 0) | (a.shape[-1] == 1)
    return torch.where(straight[..., None, :], linear(a, b, t), points).to(dtype)


def _perpendicular(u):
    """A unit vector perpendicular to each unit vector u [..., Z]: from the axis that u is farthest from."""
    axis = torch.zeros_like(u).scatter_(-1, u.abs().argmin(-1, keepdim=True), 1)
    across = axis - (axis * u).sum(-1, keepdim=True) * u
    return across / across.norm(dim=-1, keepdim=True)


@torch.no_grad()
def interpolate(model, a, b, steps=9, *, kind="spherical", labels=None, batch_size=None):
    """Images on the way from a to b, by the latents of a model.

    Args:
        model: with latents (`genfast.engine.latents.is_latent`).
        a, b: images, uint8 [n, C, H, W], whose posterior means are the ends, or the ends, float [n, Z].
        steps: points, both ends among them, at least 2.
        kind: "spherical" (along an arc) or "linear"; see `spherical`.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
    Returns: float32 [n, steps, C, H, W] in levels, 0..L-1: the mean of p(x | z) at each point.
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.tasks.interpolate(model, images[:4], images[4:8], 9)`
    """
    call, network = "interpolate", describe("interpolate", model)
    check_whole(call, "steps", steps, 2)
    if kind not in KINDS:
        raise ValueError(f"{call}: kind must be one of {', '.join(KINDS)}; got {kind!r}")
    ends = [_latents(call, name, model, network, end, labels, batch_size) for name, end in (("a", a), ("b", b))]
    if len(ends[0]) != len(ends[1]):
        raise ValueError(f"{call}: a and b must be as many; got {len(ends[0])} and {len(ends[1])}")
    _, _, labels, size = check_call(call, network, len(ends[0]), labels=labels, batch_size=batch_size)
    between = {"spherical": spherical, "linear": linear}[kind](*ends, torch.linspace(0, 1, steps))
    return _decoded(model, between, labels, size)


def _latents(call, name, model, network, end, labels, batch_size):
    """The latents of an end, float [n, Z], on the device of the model."""
    if isinstance(end, torch.Tensor) and end.is_floating_point():
        if end.dim() != 2 or end.shape[1] != network.latents:
            raise ValueError(f"{call}: {name} must have shape [n, Z] with Z={network.latents}; got {tuple(end.shape)}")
        return end.to(network.device)
    check_levels(call, name, end, network)
    _, _, labels, size = check_call(call, network, len(end), labels=labels, batch_size=batch_size)
    return posteriors(model, network, end, labels, size)[0]


def _decoded(model, latents, labels, size):
    """The expected images [n, K, C, H, W] of latents [n, K, Z]."""
    n, count, width = latents.shape
    flat = latents.reshape(n * count, width).to(next(model.parameters()).dtype)
    labels = None if labels is None else labels.repeat_interleave(count)
    with evaluating(model):
        parts = [model.expected(model.decode(flat[part], part_of(labels, part))) for part in batches(len(flat), size)]
    if not parts:
        c = model.config
        return torch.zeros(n, count, c.channels, c.height, c.width, device=flat.device)
    return torch.cat(parts).float().unflatten(0, (n, count))


@dataclass
class Traversal:
    """What `traverse` returns.

    Attributes:
        images: float32 [n, K, steps, C, H, W] in levels: latent k of image n at each of the steps.
        latents: int64 [K], which latents these are, the most active first.
        kl: float32 [K], nats that each of them carries: its mean KL divergence from the prior over the images.
        values: float32 [steps], what the latent was set to.
    """

    images: torch.Tensor
    latents: torch.Tensor
    kl: torch.Tensor
    values: torch.Tensor


@torch.no_grad()
def traverse(model, x, *, steps=9, span=3.0, count=None, reference=None, labels=None, batch_size=None):
    """What each latent does: images in which it alone is moved, the others at their posterior mean.

    The latents are in the order of the nats that they carry, the mean over images of KL(q(z_l | x) || N(0, 1)): one
    that the model does not use carries none, and moving it changes nothing.

    Args:
        model: with latents.
        x: the images to begin with, uint8 [n, C, H, W].
        steps: values of a latent, equally spaced from -span to span, at least 2.
        span: in standard deviations of the prior.
        count: how many latents, the most active ones; None: all.
        reference: the images that the order is that of, uint8 [m, C, H, W], of an unconditional model; None: x.
        labels: for a conditional model: one int for all, or integers [n].
        batch_size: images at a time.
    Returns: `Traversal`.
    Raises: TypeError or ValueError for an argument that does not fit.
    Example: `genfast.tasks.traverse(model, images[:1], reference=images, count=10).images`
    """
    call, network = "traverse", describe("traverse", model)
    check_whole(call, "steps", steps, 2)
    count = network.latents if count is None else count
    check_whole(call, "count", count, 1, network.latents + 1)
    if not isinstance(span, (int, float)) or not 0 < span < float("inf"):
        raise ValueError(f"{call}: span must be positive and finite; got {span!r}")
    if reference is not None and network.classes:
        raise ValueError(f"{call}: reference must be None for a conditional model; got a value")
    check_levels(call, "x", x, network)
    _, _, labels, size = check_call(call, network, len(x), labels=labels, batch_size=batch_size)
    mean, log_variance = posteriors(model, network, x, labels, size)
    about = mean, log_variance
    if reference is not None:
        check_levels(call, "reference", reference, network)
        about = posteriors(model, network, reference, None, size)
    kl = kl_per_latent(*about)
    order = kl.argsort(descending=True, stable=True)[:count]
    values = torch.linspace(-span, span, steps, device=mean.device)
    latents = mean[:, None, None].expand(-1, count, steps, -1).clone()
    latents.scatter_(-1, order.view(1, -1, 1, 1).expand(len(x), -1, steps, 1), values.view(1, 1, -1, 1).expand(
        len(x), count, -1, 1))  # fmt: skip
    images = _decoded(model, latents.flatten(1, 2), labels, size).unflatten(1, (count, steps))
    return Traversal(images, order, kl[order], values)


def kl_per_latent(mean, log_variance):
    """Mean over images of KL(N(mean, exp(log_variance)) || N(0, 1)), nats: [n, Z] each -> float32 [Z]."""
    _, kl = ops.gaussian_latent(mean.double(), log_variance.double(), 0, per_latent=True)
    return kl.sum(0).div(max(1, len(mean))).float()
