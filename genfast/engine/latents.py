"""Which models have latents, and what is asked of them: sizes, batches, and the checks of the arguments of a call."""

from dataclasses import dataclass

import torch

from genfast.engine.arguments import check_count, check_images, check_labels, check_whole

PARTS = ("encode", "decode", "nll", "expected", "draw")


def is_latent(model):
    """Whether a model has Gaussian latents: `encode`, `decode`, `nll`, `expected`, `draw`, and `config.latent`, Z.

    Then encode(x, labels) gives the mean and log-variance of q(z | x), each [B, Z]; decode(z, labels) the parameters
    of p(x | z), [B, P, H, W]; nll(x, parameters, weight) nats [B]; expected(parameters) the mean of p(x | z) in
    levels, float [B, C, H, W]; draw(parameters, seed, first) levels, uint8. The prior of z is N(0, I).
    """
    if not isinstance(model, torch.nn.Module) or not hasattr(getattr(model, "config", None), "latent"):
        return False
    return all(callable(getattr(model, part, None)) for part in PARTS)


@dataclass(frozen=True)
class Description:
    """What a call has to know of a model with latents.

    Attributes:
        channels, height, width, levels: of its images.
        classes: of its labels, 0 without.
        head: the kind of its likelihood, `model.pixels.kind`, None where it has none; of a "mixture" the channels of a
            pixel depend on each other.
        latents: Z.
        device: of its parameters.
    """

    channels: int
    height: int
    width: int
    levels: int
    classes: int
    head: str | None
    latents: int
    device: torch.device

    @property
    def batch_size(self):
        """Images of a batch: of 28x28 about 500, fewer of more values."""
        return max(16, min(4096, 400_000 // (self.channels * self.height * self.width)))

    @property
    def coupled(self):
        """Whether the channels of a pixel depend on each other given z."""
        return self.head == "mixture" and self.channels > 1


def describe(call, model):
    """The `Description` of a model; TypeError for a model without latents."""
    if not is_latent(model):
        got = type(model).__name__
        raise TypeError(f"{call}: model must have Gaussian latents, as genfast.models.VAE has; got {got}")
    c, kind = model.config, getattr(getattr(model, "pixels", None), "kind", None)
    return Description(
        c.channels, c.height, c.width, c.levels, getattr(c, "classes", 0), kind, c.latent,
        next(model.parameters()).device,
    )  # fmt: skip


def refuse_codes(call, model):
    """TypeError for a model that makes whole images from something other than Gaussian latents, as a VQ-VAE does."""
    makes_images = any(callable(getattr(model, name, None)) for name in ("sample_images", "translated"))
    if makes_images and not is_latent(model):
        expected = "autoregressive, as genfast.models.PixelCNN is, or have Gaussian latents, as genfast.models.VAE has"
        raise TypeError(f"{call}: model must be {expected}; got {type(model).__name__}")


def refuse_engine_options(call, model, backend="auto", **options):
    """RuntimeError or ValueError for an option of the engine of autoregressive models that has a value."""
    kind = type(model).__name__
    if backend not in ("auto", "torch"):
        why = f"{kind} has latents, and its chains run by torch"
        raise RuntimeError(
            f"{call}: backend must be able to serve this model; got {backend!r} ({why}); can serve: torch"
        )
    if named := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"{call}: {named[0]} must be None for a {kind}, whose config has it; got a value")


def check_call(call, network, n, *, first=0, seed=0, labels=None, batch_size=None):
    """(first, seed, labels int64 [n] or None, batch size), checked."""
    _, first, seed = check_count(call, n, first, seed)
    if batch_size is not None:
        check_whole(call, "batch_size", batch_size, 1)
    return first, seed, check_labels(call, labels, network, n, network.device), batch_size or network.batch_size


def check_levels(call, name, images, network):
    """Images, uint8 [n, C, H, W] in 0..L-1."""
    return check_images(call, name, images, network)


def batches(n, size):
    """Slices of 0..n-1, `size` at a time."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def part_of(labels, part):
    """The labels of a batch, or None."""
    return None if labels is None else labels[part]
