"""Sampling from a model, all images at once or as a stream of batches; and the likelihood of images."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_batch_size, check_int
from genfast.engine.decoder import DecodingEngine, engine_of
from genfast.engine.endless import PROVED
from genfast.engine.engine import Engine
from genfast.engine.full_forward import FullForward
from genfast.engine.request import check_request
from genfast.engine.wrappers import unwraps
from genfast.tasks._sequences import as_images, chunks, prompted, sequences_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords


@unwraps
def sample(
    model: nn.Module | Engine | DecodingEngine,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
    batch_size: int | None = None,
    temperature: float = 1.0,
    labels: int | Tensor | None = None,
    given: Tensor | None = None,
    mask: Tensor | None = None,
    backend: str = "auto",
    **keywords: Unpack[Keywords],
) -> Tensor:
    """Draw images from a model: pixel by pixel if it is autoregressive, by decoding latents from the prior for a `VAE`.

    Sample number i depends on (seed, i) alone: `sample(model, 2, first=5)` is `sample(model, 7)[5:]`, whatever the
    batches. On a CPU with the C++ core this holds bit for bit; elsewhere except for a draw within rounding of a
    boundary between two levels.

    Args:
        model: of `genfast.models`, or another autoregressive `torch.nn.Module`, or an `Engine` made of one.
        n: number of images, at least 0.
        seed: int in [0, 2**64).
        first: index of the first image; first + n is at most 2**63.
        batch_size: images in one call of the engine; chosen by the backend if not given.
        temperature: divides the logits, or multiplies the prior's standard deviation; below 1, likelier samples.
        labels: for a conditional model: one int for all, or integers [n].
        given, mask: integers [n or 1, C, H, W] and bool [n or 1, C or 1, H, W]: where the mask is True, the value is
            taken from `given`. Elsewhere `given` may be any integer, and the value is drawn in raster order, given the
            values before it. `genfast.inpaint` also conditions on the values after it, and takes a VAE. Of sequences
            `given` is a prompt, integers [n or 1, P], and mask may be None.
        backend: "auto", "cpp", "triton", "torch" or "full_forward"; `genfast.explain(genfast.sample, model)` says which
            "auto" selects. A VAE uses "torch".
        keywords: what a model that is none of `genfast.models` takes and returns, see `Engine`.
    Returns: levels [n, C, H, W], uint8 up to 256 of them, else int32, on the device of the model; symbols [n, T] of a
        model of sequences, `sample(model, n, length=T, vocabulary=V)`.
    Raises: TypeError or ValueError for an argument that does not fit, before any work; RuntimeError for a backend
        that cannot serve the model.
    Example: `genfast.sample(genfast.models.PixelRNN.pretrained("mnist"), 16)`
    """
    engine = engine_of(model, backend=backend, **keywords)
    settings = {"seed": seed, "first": first, "temperature": temperature, "labels": labels}
    batches = _batches("sample", engine, n, batch_size, given=given, mask=mask, **settings)
    spec, device = engine.network.spec, engine.network.device
    images = torch.empty(operator.index(n), *spec.shape, dtype=spec.dtype, device=device)
    done = 0
    for batch in batches:
        images[done : done + len(batch)] = batch
        done += len(batch)
    return images if sequences_of(engine) is None else images[:, 0, 0]


@unwraps
def stream(
    model: nn.Module | Engine | DecodingEngine,
    n: int | None = None,
    *,
    batch_size: int | None = None,
    chunk: int | None = None,
    seed: int = 0,
    first: int = 0,
    temperature: float = 1.0,
    labels: int | Tensor | None = None,
    given: Tensor | None = None,
    mask: Tensor | None = None,
    backend: str = "auto",
    **keywords: Unpack[Keywords],
) -> Iterator[Tensor]:
    """The images of `sample` as an iterator of batches, [up to batch_size, C, H, W], in constant memory.

    Of a model of sequences: the symbols of n of them, side by side, as an iterator of chunks, [n, up to chunk]. Chunks
    of any size give the same sequences. Without a length they do not end, in constant memory; that takes a model which
    is the same at every position, such as recurrent layers and causal convolutions are: it is compared with its forward
    over 4,096 symbols.

    Args: as `sample`. n None: an endless stream; then labels must be one int, and given and mask one image. Of
        sequences n None is one. chunk: symbols at a time (256).
    Raises: as `sample`, at once.
    Example: `for images in genfast.stream(model, 100_000): ...`
    """
    settings = {"seed": seed, "first": first, "temperature": temperature, "labels": labels}
    told = keywords.keys() & {"length", "vocabulary"}
    endless = bool(told) and keywords.get("length") is None and not isinstance(model, Engine)
    if endless:
        keywords = {**keywords, "length": PROVED}
    engine = engine_of(model, backend=backend, **keywords)
    if sequences_of(engine) is None:
        if chunk is not None:
            raise ValueError(f"stream: chunk must be None for a model of images; got {chunk!r}")
        return _batches("stream", engine, n, batch_size, given=given, mask=mask, **settings)
    if batch_size is not None:
        raise ValueError(f"stream: batch_size must be None for a model of sequences; got {batch_size!r}")
    assert isinstance(engine, Engine)  # its conventions are those of sequences
    request = _request("stream", engine, 1 if n is None else n, given=given, mask=mask, **settings)
    if chunk is not None:
        check_int("stream", "chunk", chunk, 1)
    return chunks(engine, request, chunk or 256, endless)


@unwraps
def log_prob(
    model: nn.Module | Engine | DecodingEngine,
    images: Tensor,
    labels: int | Tensor | None = None,
    *,
    backend: str = "auto",
    **keywords: Unpack[Keywords],
) -> Tensor:
    """Log-probability of each image in nats, by the engine that samples: [n, C, H, W] -> float64 [n].

    That of a `VAE` is an estimate by 5000 importance samples.

    That of a sequence, [n, T], counts all symbols, but for the first of a model of the next symbol without `start`.

    Args: as `sample`; images, levels of any integer dtype; labels one int or integers [n].
    Raises: as `sample`.
    """
    engine = engine_of(model, backend=backend, **keywords)
    return engine.log_prob(as_images("log_prob", "images", images, sequences_of(engine)), labels)


def _request(call: str, engine: Engine | DecodingEngine, n: int, *, given: Any, mask: Any, **settings: Any) -> Any:
    """The `SampleRequest` of these arguments, checked."""
    network = engine.network
    delay = network.delay if isinstance(network, FullForward) else 0
    given, mask = prompted(call, given, mask, sequences_of(engine))
    settings |= {"given": given, "known": mask, "delay": delay}
    return check_request(call, network.spec, network.likelihood, network.device, n, **settings)


def _batches(
    call: str,
    engine: Engine | DecodingEngine,
    n: int | None,
    batch_size: int | None,
    *,
    given: Tensor | None,
    mask: Tensor | None,
    **settings: Any,
) -> Iterator[Tensor]:
    """An iterator of batches; the arguments are checked before it is returned."""
    if n is None and isinstance(settings["labels"], Tensor):
        raise TypeError(f"{call}: labels must be one int for a stream without end; got {settings['labels'].dtype}")
    request = _request(call, engine, 1 if n is None else n, given=given, mask=mask, **settings)
    size = engine.batch_size if batch_size is None else check_batch_size(call, batch_size, 1)

    def whole() -> Iterator[Tensor]:
        for start in range(0, request.n, size):
            yield engine.execute(request.part(start, min(start + size, request.n))).images

    def endless() -> Iterator[Tensor]:
        last = 2**63 - request.first
        for start in count(0, size):
            if start >= last:
                return
            yield engine.execute(request.repeated(start, min(start + size, last))).images

    return endless() if n is None else whole()
