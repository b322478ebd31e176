"""The request to an engine. It is built and checked once, where the user calls; nothing below checks it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genfast.engine.arguments import check_count, check_int, check_known, check_labels, kind_of
from genfast.engine.protocols import ImageSpec
from genfast.likelihoods import Likelihood
from genfast.random import uniform

WANTED = ("log_probs", "log_evidence", "parameters")


@dataclass(frozen=True)
class SampleRequest:
    """Images to draw, to complete or to score.

    Attributes:
        n: images.
        seed, first, draw: value `element` of image b is drawn with `uniform(seed, first + b, element, draw)`, where
            element = (row * W + column) * C + channel; a mixture uses the numbers 2 draw and 2 draw + 1.
        temperature: divides the logits; a mixture's scales are multiplied by it; 1e-250 to
            1e250.
        labels: int64 [n], of a conditional model.
        given, known: levels, of `ImageSpec.dtype`, and bool [n, C, H, W]: where known, the level is taken from `given`,
            not drawn.
        evidence: float32 [n, C, H, W, L], log-likelihood of an observation given each level: level l is drawn with
            weight p(l) exp(evidence[l]). None for a likelihood that takes none.
        fields: float32 [n, T], what a `Program` of T fields reads of each image before it is drawn.
        want: names of `WANTED`: what is returned beside the images.
    """

    n: int
    seed: int = 0
    first: int = 0
    temperature: float = 1.0
    labels: Tensor | None = None
    given: Tensor | None = None
    known: Tensor | None = None
    evidence: Tensor | None = None
    draw: int = 0
    want: tuple[str, ...] = ()
    fields: Tensor | None = None

    def part(self, start: int, end: int) -> SampleRequest:
        """The request for images start .. end - 1 of this one."""
        return replace(self, n=end - start, first=self.first + start, **self._tensors(lambda tensor: tensor[start:end]))

    def repeated(self, start: int, end: int) -> SampleRequest:
        """The request for images start .. end - 1 of an endless stream, each like the single image of this request."""
        n = end - start
        expanded = self._tensors(lambda tensor: tensor.expand(n, *tensor.shape[1:]))
        return replace(self, n=n, first=self.first + start, **expanded)

    def to(self, device: torch.device) -> SampleRequest:
        """The request with its tensors on a device."""
        return replace(self, **self._tensors(lambda tensor: tensor.to(device)))

    def _tensors(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        tensors = {name: getattr(self, name) for name in ("labels", "given", "known", "evidence", "fields")}
        return {name: None if tensor is None else change(tensor) for name, tensor in tensors.items()}


def check_request(
    call: str,
    spec: ImageSpec,
    likelihood: Likelihood | None,
    device: torch.device,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
    temperature: float = 1.0,
    labels: int | Tensor | None = None,
    given: Tensor | None = None,
    known: Tensor | None = None,
    evidence: Tensor | None = None,
    draw: int = 0,
    want: Sequence[str] = (),
    delay: int = 0,
) -> SampleRequest:
    """The request of these arguments, checked. A single label is expanded; unknown values are set to 0.

    delay: the number of first symbols, of which the model says nothing.

    Raises: TypeError or ValueError for an argument that does not fit the images `spec` and their likelihood.
    """
    n, first, seed = check_count(call, n, first, seed, temperature)
    check_int(call, "draw", draw, 0)
    labels = check_labels(call, labels, spec, n, device)
    given, known = check_known(call, given, known, spec, likelihood, n)
    if unknown := sorted(set(want) - set(WANTED)):
        raise ValueError(f"{call}: want must be of {', '.join(WANTED)}; got {unknown[0]!r}")
    if evidence is None and "log_evidence" in want:
        raise ValueError(f"{call}: evidence must be given where log_evidence is wanted; got None")
    if evidence is not None:
        if likelihood is None or not likelihood.takes_evidence:
            raise ValueError(f"{call}: evidence must be None for a mixture of logistics; got a value")
        check_evidence(call, evidence, spec, n)
    request = SampleRequest(n, seed, first, temperature, labels, given, known, evidence, draw, tuple(want))
    check_first(call, delay, request)
    return request


def check_first(call: str, delay: int, request: SampleRequest) -> None:
    """ValueError where the first symbols, of which a model says nothing, are not known."""
    if delay and request.n and (request.known is None or not bool(request.known[..., :delay].all())):
        expected = "given must hold the first symbol of a model of the next one, or start name the symbol before it"
        raise ValueError(f"{call}: {expected}; got neither")


def check_evidence(call: str, evidence: Tensor, spec: ImageSpec, n: int) -> None:
    """Evidence must be float32 [n, C, H, W, L], with a possible level for each value (TypeError or ValueError)."""
    if not isinstance(evidence, Tensor) or evidence.dtype != torch.float32:
        raise TypeError(f"{call}: evidence must be a tensor of torch.float32; got {kind_of(evidence)}")
    expected = (n, *spec.shape, spec.levels)
    if evidence.shape != expected:
        raise ValueError(f"{call}: evidence must have shape {expected}; got {tuple(evidence.shape)}")
    if evidence.numel() and (evidence.isnan().any() or not evidence.amax(-1).isfinite().all()):
        raise ValueError(f"{call}: evidence must be finite for a level of each value and below inf for all; got others")


def row_uniforms(
    spec: ImageSpec, likelihood: Likelihood, request: SampleRequest, row: int, device: torch.device
) -> Tensor:
    """The random numbers for row `row` of the images of a request, float64 [numbers per draw, n, W, C]."""
    count = spec.width * spec.channels
    return uniforms(likelihood, request, row * count, count, device).unflatten(2, (spec.width, spec.channels))


def uniforms(likelihood: Likelihood, request: SampleRequest, element: int, count: int, device: torch.device) -> Tensor:
    """The random numbers for the elements from `element` on of the images of a request, float64 [numbers, n, count]."""
    image = request.first + torch.arange(request.n, device=device, dtype=torch.int64)[:, None]
    elements = torch.arange(element, element + count, device=device, dtype=torch.int64)
    first = likelihood.numbers * request.draw
    draws = range(first, first + likelihood.numbers)
    return torch.stack([uniform(request.seed, image, elements, number) for number in draws])
