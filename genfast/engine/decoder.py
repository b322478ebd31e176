"""The engine for models that draw whole images, such as from latents; `genfast.sample` uses it beside `Engine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genfast._native import backends
from genfast.engine.arguments import check_images, check_labels
from genfast.engine.calling import evaluating
from genfast.engine.conventions import refuse_conventions
from genfast.engine.engine import Engine, check_finite, refuse_beside_engine
from genfast.engine.program import Drawn
from genfast.engine.protocols import Density, Generator, ImageSpec, Translator, device_of
from genfast.engine.request import SampleRequest
from genfast.engine.wrappers import unwrapped, unwraps

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords

# Images are decoded in blocks of this size, aligned by image number. Matrix products of another size round differently:
# a level within rounding of its boundary would depend on how the images are split.
BLOCK = 64


@unwraps
def engine_of(
    model: nn.Module | Engine | DecodingEngine, *, backend: str = "auto", **keywords: Unpack[Keywords]
) -> Engine | DecodingEngine:
    """The engine of a model, `DecodingEngine` for a `Generator`, else `Engine`; an engine as it is.

    Raises: as these.
    """
    if isinstance(model, (Engine, DecodingEngine)):
        refuse_beside_engine(backend, keywords)
        return model
    if isinstance(model, Translator):
        expected = "able to draw images without a source (genfast.translate takes one)"
        raise TypeError(f"sample: model must be {expected}; got {type(model).__name__}")
    if isinstance(model, nn.Module) and isinstance(model, Generator):
        return DecodingEngine(model, backend=backend, **keywords)
    return Engine(model, backend=backend, **keywords)


@dataclass(frozen=True)
class Drawer:
    """The properties of a model that a call needs, as `FullForward` has them."""

    spec: ImageSpec
    device: torch.device
    likelihood: None = None


class DecodingEngine:
    """Draws images by `sample_images` of a `Generator`, in evaluation mode.

    Args: model (a `torch.nn.Module` that is a `Generator`); backend ("auto" or "torch"); keywords (those of
        `Engine`, each None: the model states them).
    Raises: RuntimeError for another backend; ValueError for a convention, or a weight that is not finite.
    """

    backend = "torch"

    def __init__(self, model: Any, *, backend: str = "auto", **keywords: Unpack[Keywords]) -> None:
        model = unwrapped(model)
        kind = type(model).__name__
        refuse_conventions(kind, keywords=keywords)
        if backend not in ("auto", "torch"):
            why = f"{kind} draws whole images by torch"
            raise RuntimeError(
                f"sample: backend must be able to serve this model; got {backend!r} ({why}); can serve: torch"
            )
        check_finite(model)
        self.model: Any = model
        self.network = Drawer(model.spec, device_of(model))

    @property
    def explanation(self) -> backends.Explanation:
        """The backend, and why not the others."""
        why = f"{type(self.model).__name__} draws whole images by torch"
        others = dict.fromkeys(("cpp", "triton", "full_forward"), why)
        return backends.Explanation("sample", self.backend, others)

    @property
    def batch_size(self) -> int:
        """Images to draw in one call: about 8 million values."""
        return max(64, min(4096, 2**23 // self.network.spec.values // 64 * 64))

    def log_prob(self, images: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """`model.log_prob` in batches: float64 [n]. TypeError for a model without a likelihood, such as a GAN."""
        spec, device, model = self.network.spec, self.network.device, self.model
        if not isinstance(self.model, Density):
            raise TypeError(f"log_prob: model must have a likelihood; got {type(model).__name__}")
        images = check_images("log_prob", "images", images, spec)
        labels = check_labels("log_prob", labels, spec, len(images), device)
        parts = [torch.zeros(0, dtype=torch.float64, device=device)]
        with torch.no_grad(), evaluating(model):
            for start in range(0, len(images), 256):
                part = slice(start, start + 256)
                given = () if labels is None else (labels[part],)
                parts.append(model.log_prob(images[part].to(device), *given, first=start).double())
        return torch.cat(parts)

    def execute(self, request: SampleRequest) -> Drawn:
        """Draw the images of a checked request."""
        if request.given is not None:
            raise ValueError(
                f"sample: given and mask must be None for a {type(self.model).__name__}, whose values have no order "
                "(genfast.inpaint fills them in); got values"
            )
        r = request
        with torch.no_grad(), evaluating(self.model):
            images = self.model.sample_images(
                r.n, seed=r.seed, first=r.first, temperature=r.temperature, labels=r.labels
            )
        return Drawn(images)
