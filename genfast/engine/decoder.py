"""The engine of models that draw whole images, from their latents: one for `genfast.sample`, beside `Engine`."""

from dataclasses import dataclass

import torch

from genfast._native import backends
from genfast.engine.arguments import check_images, check_labels
from genfast.engine.engine import Engine, check_finite
from genfast.engine.full_forward import evaluating
from genfast.engine.program import Drawn


def engine_of(model, *, backend="auto", **options):
    """What draws from a model: `DecodingEngine` for one that has `sample_images`, else `Engine`, with its errors."""
    if callable(getattr(model, "translated", None)):
        expected = "able to draw images without a source (genfast.translate takes one)"
        raise TypeError(f"sample: model must be {expected}; got {type(model).__name__}")
    if isinstance(model, torch.nn.Module) and callable(getattr(model, "sample_images", None)):
        return DecodingEngine(model, backend=backend, **options)
    return Engine(model, backend=backend, **options)


@dataclass(frozen=True)
class Sizes:
    """What a call has to know of the images: as the attributes of `engine.network`."""

    channels: int
    height: int
    width: int
    levels: int
    classes: int
    device: torch.device
    head: None = None


class DecodingEngine:
    """Draws images by `model.sample_images(n, seed=, first=, temperature=, labels=)` -> uint8 [n, C, H, W].

    Image i must depend on (seed, first + i) alone. The model is in evaluation mode meanwhile.

    Args: model (a `torch.nn.Module` with that method, `log_prob` if it has one, and a `config` of the sizes); backend
        ("auto" or "torch"); options (of `Engine`, each None: the config has them).
    Raises: RuntimeError for another backend; ValueError for an option, or a weight that is not finite.
    """

    backend = "torch"

    def __init__(self, model, *, backend="auto", **options):
        kind = type(model).__name__
        if named := [name for name, value in options.items() if value is not None]:
            raise ValueError(f"sample: {named[0]} must be None for a {kind}, whose config has it; got a value")
        if backend not in ("auto", "torch"):
            why = f"{kind} draws whole images by torch"
            raise RuntimeError(
                f"sample: backend must be able to serve this model; got {backend!r} ({why}); can serve: torch"
            )
        check_finite(model)
        self.model, c = model, model.config
        sizes = c.channels, c.height, c.width, c.levels, getattr(c, "classes", 0)
        self.network = Sizes(*sizes, device=next(model.parameters()).device)

    @property
    def explanation(self):
        why = f"{type(self.model).__name__} draws whole images by torch"
        others = dict.fromkeys(("cpp", "triton", "reference"), why)
        return backends.Explanation("sample", self.backend, others)

    @property
    def batch_size(self):
        """Images to draw in one call: about 8 million values."""
        values = self.network.channels * self.network.height * self.network.width
        return max(64, min(4096, 2**23 // values // 64 * 64))

    def log_prob(self, images, labels=None):
        """As `model.log_prob`, in batches: float64 [n]. TypeError for a model without a likelihood, as a GAN is."""
        if not callable(getattr(self.model, "log_prob", None)):
            raise TypeError(f"log_prob: model must have a likelihood; got {type(self.model).__name__}")
        network = self.network
        images = check_images("log_prob", "images", images, network)
        labels = check_labels("log_prob", labels, network, len(images), network.device)
        parts = [torch.zeros(0, dtype=torch.float64, device=network.device)]
        with torch.no_grad(), evaluating(self.model):
            for start in range(0, len(images), 256):
                part = slice(start, start + 256)
                chosen = () if labels is None else (labels[part],)
                parts.append(self.model.log_prob(images[part].to(network.device), *chosen, first=start).double())
        return torch.cat(parts)

    def _run(self, n, *, seed, first=0, temperature=1.0, labels=None, given=None, known=None):
        """`Drawn` of checked arguments."""
        if given is not None:
            raise ValueError(
                f"sample: given and mask must be None for a {type(self.model).__name__}, whose values have no order "
                "(genfast.inpaint fills them in); got values"
            )
        with torch.no_grad(), evaluating(self.model):
            images = self.model.sample_images(n, seed=seed, first=first, temperature=temperature, labels=labels)
        return Drawn(images)
