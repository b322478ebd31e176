"""Sampling by a full forward for every draw of a pixel: slow, but right for every model; tests compare with it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genfast._native import backends
from genfast.engine.conventions import Conventions
from genfast.engine.program import Drawn
from genfast.engine.protocols import Autoregressive, ImageSpec
from genfast.engine.request import SampleRequest, row_uniforms
from genfast.likelihoods import Likelihood, Reading, read_output
from genfast.random.levels import MOST_LEVELS

# For each model that is in `evaluating`: how many are inside, and the modules that were in training mode before.
_EVALUATING: dict[Any, tuple[int, list[nn.Module]]] = {}
_MODES = threading.Lock()


class FullForward:
    """A model as a function from levels to the parameters of all conditionals.

    Attributes:
        spec, likelihood: of the images and their values.
        reading: how the output is read, for a model that is not `Autoregressive`; else None.
        scale, shift: turn levels into inputs.
        device, dtype: of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        shape: Sequence[int] | None = None,
        levels: int | None = None,
        input_range: Sequence[float] | None = None,
        head: str | None = None,
    ) -> None:
        self.model: Any = model
        weight = next(model.parameters(), torch.zeros((), dtype=torch.float32, device="cpu"))
        self.device, self.dtype = weight.device, weight.dtype
        self.reading: Reading | None = None
        if isinstance(model, Autoregressive):
            conventions: Conventions = {"shape": shape, "levels": levels, "input_range": input_range, "head": head}
            refuse_conventions(type(model).__name__, conventions=conventions)
            self.spec: ImageSpec = model.spec
            self.likelihood: Likelihood = model.likelihood
            self.scale, self.shift = 2 / (self.spec.levels - 1), -1.0
        else:
            self.spec = check_foreign_spec("sample", model, shape, levels)
            low, high = check_input_range("sample", input_range)
            self.scale, self.shift = (high - low) / (self.spec.levels - 1), low
            features = self._output_shape()[1:-2]
            self.reading = read_output("sample", features, self.spec.channels, self.spec.levels, head)
            self.likelihood = self.reading.likelihood

    def _output_shape(self) -> torch.Size:
        """The shape of the output for one image."""
        shape = self.spec.shape
        with torch.no_grad(), evaluating(self.model):
            output = self.model(torch.zeros(1, *shape, device=self.device, dtype=self.dtype))
        if not torch.is_tensor(output) or output.dim() not in (4, 5) or output.shape[-2:] != shape[1:]:
            expected = f"[B, P, H, W] or [B, C, L, H, W] for images {shape}"
            got = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
            raise ValueError(f"sample: the model must return {expected}; got {got}")
        return output.shape

    def rows(self, row: int) -> int:
        """The number of rows of an image that a forward needs to draw in row `row`."""
        rows: int = self.spec.height if self.reading else self.model.rows(row)
        return rows

    def parameters(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The parameters of all draws, [B, P, R, W], one draw after the other, of levels [B, C, R, W]."""
        if self.reading is None:
            # A half type has no number for each of more levels.
            wide = self.dtype if self.spec.levels <= 256 else torch.promote_types(self.dtype, torch.float32)
            x = (images.to(wide) * self.scale + self.shift).to(self.dtype)
            return self.model.network(x, labels)
        x = images.float() * torch.tensor(self.scale, dtype=torch.float32, device="cpu") + self.shift
        output = self.model(x.to(self.dtype)).flatten(1, -3)
        return output if self.reading.is_ordered else output[:, torch.from_numpy(self.reading.index)]


def refuse_conventions(kind: str, call: str = "sample", *, conventions: Conventions) -> None:
    """ValueError for a convention that is not None: a model of this kind states them itself."""
    if named := [name for name, value in conventions.items() if value is not None]:
        raise ValueError(f"{call}: {named[0]} must be None for a {kind}, whose config has it; got a value")


def check_foreign_spec(call: str, model: nn.Module, shape: Sequence[int] | None, levels: int | None) -> ImageSpec:
    """The `ImageSpec` of a model that does not state it."""
    if shape is None or len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        kind = type(model).__name__
        raise ValueError(f"{call}: shape must be (channels, height, width) for a {kind}; got {shape}")
    if type(levels) is not int or not 2 <= levels <= MOST_LEVELS:
        raise ValueError(f"{call}: levels must be an int, 2 to {MOST_LEVELS}; got {levels!r}")
    channels, height, width = shape
    return ImageSpec(channels, height, width, levels)


def check_input_range(call: str, input_range: Sequence[float] | None) -> tuple[float, float]:
    """(low, high), the inputs for the lowest and the highest level; (0, 1) for None."""
    low, high = (0.0, 1.0) if input_range is None else map(float, input_range)
    if not math.isfinite(low) or not math.isfinite(high) or low == high:
        raise ValueError(f"{call}: input_range must be two different numbers; got {input_range}")
    return low, high


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A context with the model in evaluation mode; afterwards each module is in its previous mode.

    Of several threads with one model the last that leaves restores the modes: another may still be computing.
    """
    with _MODES:
        users, training = _EVALUATING.pop(model, (0, []))
        training = training + [module for module in model.modules() if module.training]
        _EVALUATING[model] = users + 1, training
        model.eval()
    try:
        yield
    finally:
        with _MODES:
            users, training = _EVALUATING.pop(model)
            if users > 1:
                _EVALUATING[model] = users - 1, training
            else:
                for module in training:
                    module.training = True


@backends.float_mode()
@torch.no_grad()
def run(network: FullForward, request: SampleRequest) -> Drawn:
    """Draw the images of a request, on the device of the model.

    One more forward over the finished images computes what else the request wants.
    """
    shape = (request.n, *network.spec.shape)
    request = request.to(network.device)
    if request.given is None or request.known is None:
        images = torch.zeros(shape, dtype=network.spec.dtype, device=network.device)
    else:
        images = torch.where(request.known, request.given, 0)
    with evaluating(network.model):
        if request.n:
            _fill(network, images, request)
        return _measure(network, images, request)


def _fill(network: FullForward, images: Tensor, request: SampleRequest) -> None:
    """Draw, in place, the values that are not known."""
    spec, likelihood, known = network.spec, network.likelihood, request.known
    ends = [sum(likelihood.counts[: k + 1]) for k in range(likelihood.draws)]
    for i in range(spec.height):
        # Columns where all images of the batch know all channels are skipped.
        open_columns = list(range(spec.width))
        if known is not None:
            open_columns = (~known[:, :, i]).any(0).any(0).nonzero()[:, 0].tolist()
        if not open_columns:
            continue
        u = row_uniforms(spec, likelihood, request, i, images.device)
        for j in open_columns:
            for k, end in enumerate(ends):
                channels = likelihood.drawn_channels(k)
                parameters = network.parameters(images[:, :, : network.rows(i)], request.labels)
                part = parameters[:, end - likelihood.counts[k] : end, i, j]
                evidence = None if request.evidence is None else request.evidence[:, k, i, j]
                levels = likelihood.draw_levels(part, u[:, :, j, channels], request.temperature, evidence)
                place = images[:, channels, i, j]
                place.copy_(levels if known is None else torch.where(known[:, channels, i, j], place, levels))


def _measure(network: FullForward, images: Tensor, request: SampleRequest) -> Drawn:
    """The `Drawn` of finished images."""
    drawn, want, likelihood = Drawn(images), request.want, network.likelihood
    if not want:
        return drawn
    places = (network.spec.height, network.spec.width)
    shape = (len(images), likelihood.draws, *places)
    maps = torch.zeros(len(images), likelihood.parameters, *places, device=images.device, dtype=torch.float32)
    if len(images):
        maps = network.parameters(images, request.labels)
    if "parameters" in want:
        drawn.parameters = maps.float()
    if "log_probs" in want:
        drawn.log_probs = torch.empty(shape, dtype=torch.float64, device=images.device)
    if "log_evidence" in want:
        drawn.log_evidence = torch.empty(shape, dtype=torch.float64, device=images.device)
    values = images.flatten(2).transpose(1, 2)
    for k, part in enumerate(maps.split(likelihood.counts, 1)):
        part = part.flatten(2).transpose(1, 2)
        if drawn.log_probs is not None:
            log_probs = likelihood.log_prob(part, values[:, :, likelihood.drawn_channels(k)])
            drawn.log_probs[:, k] = log_probs.view(shape[0], *places)
        if drawn.log_evidence is not None and request.evidence is not None:
            evidence = request.evidence[:, k].flatten(1, 2)
            sums = likelihood.log_evidence(part, request.temperature, evidence)
            drawn.log_evidence[:, k] = sums.view(shape[0], *places)
    return drawn
