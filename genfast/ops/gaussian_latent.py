"""The Gaussian latent variable: a reparameterised draw and its KL divergence in one native call."""

from __future__ import annotations

from torch import Tensor

from genfast._native.checks import DRAW_LIMITS, check_places, check_shape, check_tensors, check_whole, signed, wide
from genfast._native.kinds import Sizes
from genfast._native.layout import contiguous_like
from genfast._native.register import register
from genfast._native.schema import Allocated, OpSchema
from genfast.reference.gaussian_latent import gaussian_latent_ref

_SETTINGS = dict.fromkeys(("seed", "first_index", "samples", "first_sample"), "SymInt") | {"per_latent": "bool"}


def gaussian_latent(
    mean: Tensor,
    log_variance: Tensor,
    seed: int,
    first_index: int = 0,
    samples: int = 1,
    prior_mean: Tensor | None = None,
    prior_log_variance: Tensor | None = None,
    per_latent: bool = False,
    first_sample: int = 0,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Draw from a diagonal Gaussian by reparameterisation, and take its KL divergence from the prior.

    With the noise e of `genfast.random.philox.normal` and the prior N(m, exp(v)), which is N(0, I) if not given::

        z[b S + s] = mean[b] + exp(log_variance[b] / 2) e[b, s]
        kl[b] = sum over the latents of (exp(lv - v) - 1 - (lv - v) + (mean - m)^2 exp(-v)) / 2

    A log-variance outside [-30, 20] counts as the nearer end, and its gradient is 0. The noise is a function of
    (seed, first_index + b, first_sample + s) and the place of the latent alone: the same for every batch, thread and
    backend, and drawn again in the backward pass instead of being kept.

    Args:
        mean: [B, ...]; float32, float64, bfloat16 or float16; any strides. Computed in float32 or wider.
        log_variance: like mean.
        seed: int in [0, 2**64).
        first_index: index of the first image, int; that of the last is below 2**63.
        samples: S, how many draws of every image, at least 1.
        prior_mean: of the shape of mean or one that broadcasts to it; given together with prior_log_variance.
        prior_log_variance: like prior_mean; clamped as log_variance is.
        per_latent: whether to leave the KL divergence unsummed, as free bits need it.
        first_sample: number of the first draw, int in [0, 2**32): to continue an earlier call.
        backend: "auto", "reference", "cpp" or "triton"; see `genfast.explain`.

    Returns:
        (z, kl). z: [B S, ...] of the dtype of mean, the draws of one image one after the other. kl: nats, [B], or of
        the shape of mean if per_latent; float32, or float64 for float64 input: a half type would overflow.

    Raises:
        TypeError: a tensor is no strided float tensor of the dtype of mean, or a number has another type.
        ValueError: a shape does not fit, a number is out of range, one half of a prior is missing, devices differ, or
            the name of the backend is unknown.
        RuntimeError: the backend asked for cannot serve these tensors.
        NotImplementedError: vmap or forward mode on a native backend that is asked for.

    Gradients:
        Every order in the four tensors, deterministic. The first is native: nothing is saved but the arguments. The
        higher ones run the reference.

    Paper:
        Auto-Encoding Variational Bayes, Kingma and Welling 2013, section 2.4 and appendix B, arXiv 1312.6114.

    Example:
        >>> import torch, genfast
        >>> z, kl = genfast.gaussian_latent(torch.zeros(2, 8), torch.zeros(2, 8), seed=0)
        >>> z.shape, kl
        (torch.Size([2, 8]), tensor([0., 0.]))
    """
    op = "gaussian_latent"
    if (prior_mean is None) != (prior_log_variance is None):
        got = "prior_mean alone" if prior_log_variance is None else "prior_log_variance alone"
        raise ValueError(f"{op}: prior_mean and prior_log_variance must be given together; got {got}")
    priors: dict[str, Tensor] = {}
    if prior_mean is not None and prior_log_variance is not None:
        priors = {"prior_mean": prior_mean, "prior_log_variance": prior_log_variance}
    check_tensors(op, mean=mean, log_variance=log_variance, **priors)
    shape = mean.shape
    if mean.ndim < 1:
        raise ValueError(f"{op}: mean must have shape [B, ...]; got {tuple(shape)}")
    check_shape(op, "log_variance", log_variance, shape, "[B, ...]", B=shape[0])
    flat = shape[0], shape[1:].numel()
    check_whole(op, "first_index", first_index, 0, 2**63)
    check_places(op, *flat, first_index)
    check_whole(op, "samples", samples, 1, 2**31)
    check_whole(op, "first_sample", first_sample, 0, 2**32 - samples + 1)
    seed = signed(op, seed)
    for name, prior in priors.items():
        try:
            priors[name] = prior.expand(shape).reshape(flat)
        except RuntimeError:
            raise ValueError(f"{op}: {name} must broadcast to {tuple(shape)}; got {tuple(prior.shape)}") from None
    if mean.ndim != 2:
        mean, log_variance = mean.reshape(flat), log_variance.reshape(flat)
    both_priors = tuple(priors.values()) or (mean.new_empty(0, flat[1]),) * 2
    settings = (seed, first_index, samples, first_sample, bool(per_latent))
    z, kl = _latent(mean, log_variance, *both_priors, *settings, backend=backend)
    if len(shape) == 2:
        return z, kl
    return z.view(shape[0] * samples, *shape[1:]), kl.view(shape) if per_latent else kl


def _check_draws(
    op: str,
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor,
    prior_log_variance: Tensor,
    seed: int,
    first_index: int,
    samples: int,
    first_sample: int,
    per_latent: bool,
) -> Sizes:
    batch, size = mean.shape
    check_places(op, batch, size, first_index)
    check_whole(op, "first_sample", first_sample, 0, 2**32 - samples + 1)
    if bool(prior_mean.numel()) != bool(prior_log_variance.numel()):
        raise ValueError(f"{op}: prior_mean and prior_log_variance must be given together; got one of them")
    return {"S": samples, "...": (size,) * per_latent}


def _numbers(
    mean: Tensor, seed: int, first_index: int, samples: int, first_sample: int, per_latent: int
) -> tuple[int | float, ...]:
    batch, size = mean.shape
    return batch, size, samples, seed, first_index, first_sample, int(per_latent)


def _allocate(
    mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor, *settings: int
) -> Allocated:
    settings = settings[:-1]  # without `save`
    batch, size = mean.shape
    samples, per_latent = settings[2], settings[4]
    kl = mean.new_empty(batch, *(size,) * per_latent, dtype=wide(mean.dtype))
    return _numbers(mean, *settings), (mean.new_empty(batch * samples, size), kl)


def _allocate_gradients(
    grad_z: Tensor,
    grad_kl: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    prior_mean: Tensor,
    prior_log_variance: Tensor,
    *settings: int,
) -> Allocated:
    tensors = mean, log_variance, prior_mean, prior_log_variance
    return _numbers(mean, *settings), tuple(contiguous_like(t) for t in tensors)


_latent = register(
    OpSchema(
        name="gaussian_latent",
        arguments={
            **dict.fromkeys(("mean", "log_variance"), "float [B, Z]"),
            **dict.fromkeys(("prior_mean", "prior_log_variance"), "float [B, Z] or none"),
        },
        outputs={"z": "float [BS, Z]", "kl": "wide [B, ...]"},
        residuals=("mean", "log_variance", "prior_mean", "prior_log_variance"),
        settings=_SETTINGS,
        limits={**DRAW_LIMITS, "samples": (1, 2**31 - 1), "first_sample": (0, 2**32 - 1)},
        check=_check_draws,
        numbers=("batch", "size", "samples", "seed", "first_index", "first_sample", "per_latent"),
        allocate=_allocate,
        allocate_gradients=_allocate_gradients,
    ),
    gaussian_latent_ref,
)
