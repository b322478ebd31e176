"""A program with what lies around it: the arrangement of the images, and what is known of each before it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genfast.engine.program import Drawn, Program
from genfast.engine.protocols import ImageSpec
from genfast.engine.request import SampleRequest

if TYPE_CHECKING:
    from genfast.engine.compiler.known import Known, Source

Run = Callable[[Program, SampleRequest, torch.device], Drawn]


@dataclass
class Compiled:
    """A program for the images of a model.

    Attributes:
        program: its images are those of the model, all pixels in one row, or all values as the channels of one pixel.
        spec: of the images of the model.
        geometry: "grid", "line" or "point".
        order: int64 [C * H * W] for "point": the values in the order in which they are drawn; None: raster order.
        known, sources: what computes the fields of the program, see `Known.fields`.
        are_logits: whether the graph shows that the outputs are no probabilities, whatever they look like.
    """

    program: Program
    spec: ImageSpec
    geometry: str = "grid"
    order: np.ndarray | None = None
    known: Known | None = None
    sources: Sequence[tuple[Source, Callable[[np.ndarray], np.ndarray]]] = field(default_factory=list)
    are_logits: bool = False
    _last: tuple[Any, Tensor, list[Tensor]] | None = None  # the fields of the last call

    def run(self, run: Run, request: SampleRequest, device: torch.device, condition: Mapping[str, Tensor]) -> Drawn:
        """The images of a request, by an engine; `condition` has a row for each."""
        request = self.told(request, device, condition)
        if self.geometry == "grid":
            return run(self.program, request, device)
        changed: dict[str, Any] = {
            name: None if getattr(request, name) is None else self._arranged(getattr(request, name))
            for name in ("given", "known", "evidence")
        }
        drawn = run(self.program, replace(request, **changed), device)
        restored: dict[str, Any] = {
            name: None if getattr(drawn, name) is None else self._restored(getattr(drawn, name))
            for name in ("images", "log_probs", "log_evidence", "parameters")
        }
        return Drawn(**restored)

    def told(self, request: SampleRequest, device: torch.device, condition: Mapping[str, Tensor]) -> SampleRequest:
        """The request with what the program reads of each image before it is drawn."""
        if self.known is None:
            return request
        return replace(request, fields=self._fields(request, device, condition))

    def _fields(self, request: SampleRequest, device: torch.device, condition: Mapping[str, Tensor]) -> Tensor:
        """What is known of each image, computed once for all passes over the same images."""
        assert self.known is not None
        labels = None if request.labels is None else request.labels.cpu().numpy().tobytes()
        # The rows themselves are kept: their memory is not given to others as long as it is compared with.
        key = (request.n, labels, device, [(row.data_ptr(), row._version, row.stride()) for row in condition.values()])
        last = self._last
        if last is None or last[0] != key:
            fields = self.known.fields(self.sources, request.n, request.labels, condition)
            last = self._last = key, torch.from_numpy(fields).to(device), list(condition.values())
        return last[1]

    def _arranged(self, maps: Tensor) -> Tensor:
        """[n, C, H, W, ...] as the images of the program."""
        tail = maps.shape[4:]
        if self.geometry == "line":
            return maps.reshape(len(maps), self.spec.channels, 1, -1, *tail)
        values = maps.movedim(1, 3).reshape(len(maps), self.spec.values, *tail)
        order = self._order(maps)
        return (values if order is None else values[:, order]).reshape(len(maps), -1, 1, 1, *tail)

    def _restored(self, maps: Tensor) -> Tensor:
        """The maps of the program, [n, F, h, w], as [n, F', H, W]."""
        n, (_, height, width) = len(maps), self.spec.shape
        if self.geometry == "line":
            return maps.reshape(n, -1, height, width)
        values = maps.reshape(n, self.spec.values, -1)
        order = self._order(maps)
        if order is not None:
            values = torch.empty_like(values).index_copy_(1, order, values)
        values = values.reshape(n, height, width, self.spec.channels, -1)
        return values.permute(0, 3, 4, 1, 2).reshape(n, -1, height, width)

    def _order(self, maps: Any) -> Tensor | None:
        return None if self.order is None else torch.from_numpy(self.order).to(maps.device)
