"""Sampling by a full forward for every draw of a pixel: slow, but right for every model; tests compare with it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genfast._native import backends
from genfast.engine.calling import (
    PROBES,
    at_work,
    call,
    call_error,
    copied,
    entered,
    forget_batch,
    inputs_of,
    probe_images,
    scale_of,
)
from genfast.engine.conventions import ARE_FLAT, Conventions, rows_of
from genfast.engine.program import Drawn
from genfast.engine.protocols import Autoregressive, ImageSpec
from genfast.engine.request import SampleRequest, uniforms
from genfast.engine.sequences import misread
from genfast.likelihoods import Likelihood, Reading, read_output
from genfast.likelihoods.reading import PROBABILITIES

Choose = Callable[["FullForward", list[Reading]], list[Reading]]
NUMBERS = 1 << 15  # random numbers that are computed at once
CLOSE = 1e-5  # of the size of outputs: more is no rounding
OUTSTANDING = 100.0  # times the median: what is larger is no measure of the others


class FullForward:
    """A model as a function from levels to the parameters of all conditionals.

    Args:
        model: an `Autoregressive` model; or a foreign one, which is copied: forward may cache, count or change weights.
        conventions: of a foreign model, its input range known; else None.
        choose: picks the possible readings of its output, where the shape leaves several.

    Attributes:
        spec, likelihood: of the images and their values.
        reading: how the output is read, for a model that is not `Autoregressive`; else None.
        scale, shift: turn levels into inputs.
        device, dtype: of the model.
        delay: the number of first columns of which the model says nothing, and which must be given.
    """

    def __init__(self, model: nn.Module, conventions: Conventions | None = None, choose: Choose | None = None) -> None:
        weight = next(model.parameters(), torch.zeros((), dtype=torch.float32, device="cpu"))
        self.device, self.dtype = weight.device, weight.dtype
        self.conventions, self.reading, self.delay = conventions, None, 0
        self.seconds, self.asked_head = 0.0, None
        if conventions is None:
            assert isinstance(model, Autoregressive)  # or conventions had been asked for
            self.model: Any = model
            self.spec: ImageSpec = model.spec
            self.likelihood: Likelihood = model.likelihood
            self.scale, self.shift = 2 / (self.spec.levels - 1), -1.0
            return
        self.original, self.model = model, copied(model).eval()
        self.spec = conventions.spec
        self.scale, self.shift = scale_of(conventions)
        self._singles: bool | None = None
        self._crops: bool | None = None
        output = self.probe()
        spec = self.spec
        sizes = {"channels": spec.channels, "height": spec.height, "width": spec.width, "levels": spec.levels}
        choice = None if choose is None else partial(choose, self)
        try:
            reading = read_output(
                "sample", output, **sizes, head=conventions.head, layout=conventions.output, choose=choice
            )
        except ValueError as error:
            if conventions.sequences is None:
                raise
            raise misread(conventions.sequences, error, output) from error
        self.delay = 0 if conventions.sequences is None else conventions.sequences.delay
        reading = self.reading = replace(reading, delay=self.delay)
        self.likelihood = reading.likelihood
        self.asked_head = conventions.head
        self._look(reading.outputs(output))

    def _look(self, outputs: Tensor) -> None:
        """Note whether outputs for random images look like probabilities."""
        assert self.reading is not None
        letters, levels = self.reading.layout.letters, self.spec.levels
        within = bool(((outputs >= 0) & (outputs <= 1 + CLOSE)).all())
        sums = outputs.double().unflatten(1, (-1, levels)).sum(2) if "L" in letters else None
        self.sums_to_one = within and sums is not None and bool(((sums - 1).abs() < 1e-3).all())
        self.in_unit_interval = within and not set(letters) & set("LP")

    @property
    def looks_like_probabilities(self) -> bool:
        """Whether outputs that are read as logits, with no head named, look like probabilities."""
        if self.asked_head is not None or self.reading is None or self.reading.head == "probabilities":
            return False
        return self.sums_to_one or self.in_unit_interval

    def refuse_probabilities(self) -> None:
        """ValueError where outputs look like probabilities and no head was named: as logits they would be noise."""
        if self.looks_like_probabilities:
            seen = "sum to 1 over the levels" if self.sums_to_one else "lie in 0..1"
            kind = "categorical" if self.sums_to_one else "bernoulli"
            raise ValueError(
                f"sample: head must be named for a model whose outputs {seen} on random images, 'probabilities' or, if "
                f"they are logits all the same, '{kind}'; got None"
            )

    def probe(self) -> Any:
        """What a foreign model returns for `PROBES` random images, labels and the first rows of the condition."""
        with torch.no_grad(), at_work(self.model):
            images, labels = probe_images(self.spec)
            start = time.perf_counter()
            output = self._call(self.inputs(images.to(self.device)), labels, self.probe_condition(PROBES), explain=True)
            self.seconds = time.perf_counter() - start
            return output

    @property
    def order(self) -> np.ndarray:
        """The values, (row * W + column) * C + channel, in the order in which they are drawn."""
        asked = None if self.conventions is None else self.conventions.pixel_order
        return np.arange(self.spec.values) if asked is None else asked

    def condition(self, first: int, n: int) -> dict[str, Tensor]:
        """The condition of the images first .. first + n - 1, on the device of the model."""
        if self.conventions is None:
            return {}
        rows = rows_of("sample", self.conventions.condition, first, n)
        return {name: value.to(self.device) for name, value in rows.items()}

    def probe_condition(self, n: int) -> dict[str, Tensor]:
        """The condition of n images of a probe: its rows, again and again."""
        condition = {} if self.conventions is None else self.conventions.condition
        rows = torch.arange(n, dtype=torch.int64, device="cpu")
        return {name: value[(rows % len(value)).to(value.device)].to(self.device) for name, value in condition.items()}

    def comparable(self, parameters: Tensor) -> Tensor:
        """Parameters as they are, or, of a model that gives probabilities, these: their logits are free by a number."""
        if self.reading is None or self.reading.head not in PROBABILITIES:
            return parameters
        if "L" not in self.reading.layout.letters:
            return parameters.sigmoid()
        return parameters.unflatten(1, (-1, self.spec.levels)).softmax(2).flatten(1, 2)

    def rows(self, row: int) -> int:
        """The number of rows of an image that a forward needs to draw in row `row`."""
        if self.reading is None:
            rows: int = self.model.rows(row)
            return rows
        if self._crops is None:
            self._crops = self._proves_crops()
        return row + 1 if self._crops else self.spec.height

    def inputs(self, images: Tensor) -> Tensor:
        """What the model is given for levels [B, C, R, W]."""
        if self.conventions is not None:
            return inputs_of(self.conventions, images, self.dtype)
        # A half type has no number for each of more than 256 levels.
        wide = self.dtype if self.spec.levels <= 256 else torch.promote_types(self.dtype, torch.float32)
        return (images.to(wide) * self.scale + self.shift).to(self.dtype)

    def parameters(
        self, images: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The parameters of all draws, [B, P, R, W], one draw after the other, of levels [B, C, R, W]."""
        if self.reading is None:
            return self.model.network(self.inputs(images), labels)
        return self.reading.parameters(self._output(self.inputs(images), labels, condition or {}), images.shape[2])

    def parameters_at(
        self, x: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor], place: tuple[int, int], rows: int
    ) -> Tensor:
        """The parameters of one pixel, [B, P], of inputs x of images of so many rows."""
        if self.reading is None:
            return self.model.network(x, labels)[:, :, place[0], place[1]]
        return self.reading.parameters(self._output(x, labels, condition), rows, place)

    def _output(self, x: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor]) -> Any:
        if len(x) > 1 or self._takes_one():
            return self._call(x, labels, condition)
        twice = None if labels is None else torch.cat((labels, labels))
        pairs = {name: torch.cat((value, value)) for name, value in condition.items()}
        return self._call(torch.cat((x, x)), twice, pairs)

    def _call(self, x: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor], explain: bool = False) -> Any:
        assert self.conventions is not None
        labels = None if labels is None else labels.to(self.device)
        # One row for all is expanded, which `view` in a forward does not take.
        condition = {name: value.contiguous() for name, value in condition.items()}
        try:
            return call(self.model, entered(self.conventions, x), labels, condition)
        except Exception as error:
            # It may keep something of the size of its first batch: a new copy has none, unless its original has.
            if not explain:
                with suppress(Exception):
                    return self._call_anew(x, labels, condition)
            entering = entered(self.conventions, x)
            if not forget_batch(self.original, entering, labels, condition):
                raise call_error(self.model, self.conventions, entering, labels, condition, error) from error
        return self._call_anew(x, labels, condition)

    def _call_anew(self, x: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor]) -> Any:
        assert self.conventions is not None
        self.model = copied(self.original).eval()
        return call(self.model, entered(self.conventions, x), labels, condition)

    def fresh(self) -> FullForward:
        """The same with a foreign model that was never called."""
        other = copy.copy(self)
        other.model = copied(self.original).eval()
        return other

    def _takes_one(self) -> bool:
        """Whether the model gives a single image what it gives it among others."""
        if self._singles is None:
            self._singles = self._agrees(entries=1)
        return self._singles

    def _proves_crops(self) -> bool:
        """Whether the model gives the rows so far what it gives them in a whole image."""
        height = self.spec.height
        crops = height > 1 and self.conventions is not None and self.conventions.inputs not in ARE_FLAT
        return crops and all(self._agrees(rows=rows) for rows in sorted({1, 2, height // 2, height - 1} - {0}))

    def _agrees(self, entries: int = PROBES, rows: int | None = None) -> bool:
        """Whether so many images of the probe, and rows of them, get the outputs that they get within the whole."""
        assert self.reading is not None and self.conventions is not None
        test = self.fresh()
        images, labels = probe_images(self.spec)
        images = images.to(self.device)
        condition = test.probe_condition(PROBES)
        with torch.no_grad(), at_work(test.model):
            whole = self.reading.parameters(test._call(test.inputs(images), labels, condition))
            some, some_labels = images[:entries, :, :rows], None if labels is None else labels[:entries]
            of_some = {name: value[:entries] for name, value in condition.items()}
            try:
                got = self.reading.parameters(test._call(test.inputs(some), some_labels, of_some), some.shape[2])
                again = self.reading.parameters(test._call(test.inputs(images), labels, condition))
            except Exception:  # whatever it raises: the model does not take such images
                return False
        expected = whole[:entries, :, : some.shape[2]]
        return got.shape == expected.shape and is_close(got, expected) and is_close(again, whole)


def is_close(got: Tensor, expected: Tensor) -> bool:
    """Whether parameters are equal but for rounding; infinite ones must be equal."""
    return not bool(differ(got, expected, CLOSE).any())


def differ(got: Tensor, expected: Tensor, tolerance: float) -> Tensor:
    """Where parameters differ by more than a part of their size; infinite ones where they are not equal.

    Their size is that of most of them: the logit of a symbol that is never drawn may be -1e9.
    """
    sizes = expected[expected.isfinite() & (expected != 0)].abs()
    most = torch.minimum(sizes.amax(), OUTSTANDING * sizes.median()) if sizes.numel() else expected.new_ones(())
    limit = torch.where(expected.isfinite(), tolerance * torch.maximum(expected.abs(), most), 0.0)
    return (got != expected) & ~((got - expected).abs() <= limit)


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
    with at_work(network.model):
        if request.n:
            with torch.inference_mode():  # operations take less time than without gradients
                _fill(network, images, request)
        return _measure(network, images, request)


def _order(network: FullForward) -> Iterator[tuple[int, int, int, int]]:
    """(number, row, column, draw) of every draw in its order; `number` counts the values that come before."""
    spec, draws = network.spec, network.likelihood.draws
    order = None if network.conventions is None else network.conventions.pixel_order
    each = spec.channels // draws
    for number in range(0, spec.values, each):
        value = number if order is None else int(order[number])
        pixel, channel = divmod(value, spec.channels)
        yield number, *divmod(pixel, spec.width), channel // each


def _fill(network: FullForward, images: Tensor, request: SampleRequest) -> None:
    """Draw, in place, the values that are not known."""
    spec, likelihood, known = network.spec, network.likelihood, request.known
    ends = [sum(likelihood.counts[: k + 1]) for k in range(likelihood.draws)]
    in_order = network.conventions is None or network.conventions.pixel_order is None
    # What all images of the batch know is not drawn.
    settled = None if known is None else known.all(0).tolist()
    inputs, condition = Inputs(network, images), network.condition(request.first, request.n)
    # Random numbers for many draws at once: a call takes as long for one as for a thousand.
    least, most = spec.width * spec.channels, spec.values
    block, start, u = min(most, max(least, NUMBERS // (request.n * least) * least)), -1, images
    for number, i, j, k in _order(network):
        channels = likelihood.drawn_channels(k)
        if settled is not None and all(of_channel[i][j] for of_channel in settled[channels]):
            continue
        if start != number - number % block:
            start = number - number % block
            u = uniforms(likelihood, request, start, min(block, spec.values - start), images.device)
        rows = network.rows(i) if in_order else spec.height
        parameters = network.parameters_at(inputs.of_rows(rows), request.labels, condition, (i, j), rows)
        part = parameters[:, ends[k] - likelihood.counts[k] : ends[k]]
        numbers = u[:, :, number - start : number - start + channels.stop - channels.start]
        evidence = None if request.evidence is None else request.evidence[:, k, i, j]
        levels = likelihood.draw_levels(part, numbers, request.temperature, evidence)
        if known is not None:
            levels = torch.where(known[:, channels, i, j], images[:, channels, i, j], levels)
        images[:, channels, i, j] = levels
        inputs.write(channels, i, j, levels)


class Inputs:
    """The inputs of a model for images of which one value after another is drawn."""

    def __init__(self, network: FullForward, images: Tensor) -> None:
        self.whole = network.inputs(images)
        conventions = network.conventions
        self.flat = conventions is not None and conventions.inputs in ARE_FLAT
        self.codes = conventions is not None and conventions.inputs == "codes"
        self.maps = self.whole.view_as(images) if self.flat or self.codes else self.whole  # [B, C, H, W]
        levels = torch.arange(network.spec.levels, dtype=torch.int32, device=images.device)
        one = levels.view(-1, 1, 1, 1).expand(-1, network.spec.channels if self.flat else 1, 1, 1)
        self.table = network.inputs(one).reshape(len(levels), -1)[:, 0]

    def of_rows(self, rows: int) -> Tensor:
        """The inputs of the first rows."""
        if self.flat:
            return self.whole
        return self.whole[:, :rows] if self.codes else self.whole[:, :, :rows]

    def write(self, channels: slice, i: int, j: int, levels: Tensor) -> None:
        """Set the values of a pixel, [B, channels]."""
        self.maps[:, channels, i, j] = self.table[levels.long()]


def _measure(network: FullForward, images: Tensor, request: SampleRequest) -> Drawn:
    """The `Drawn` of finished images."""
    drawn, want, likelihood = Drawn(images), request.want, network.likelihood
    if not want:
        return drawn
    places = (network.spec.height, network.spec.width)
    shape = (len(images), likelihood.draws, *places)
    maps = torch.zeros(len(images), likelihood.parameters, *places, device=images.device, dtype=torch.float32)
    if len(images):
        maps = network.parameters(images, request.labels, network.condition(request.first, request.n))
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
