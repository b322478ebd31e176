"""Other conventions of a model, by full forwards: which of them agree with its author's loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from genfast.engine.calling import at_work, call, copied, inputs_of
from genfast.engine.compiler import NotCausal
from genfast.engine.compiler.proof import check_causal
from genfast.engine.conventions import INPUTS, OF_FLOATS, Conventions, Keywords
from genfast.engine.engine import Engine
from genfast.engine.full_forward import FullForward
from genfast.engine.protocols import ImageSpec, dtype_of
from genfast.likelihoods import Likelihood, Reading, heads, read_output
from genfast.likelihoods.layout import Layout
from genfast.likelihoods.reading import PROBABILITIES
from genfast.random.levels import level_dtype
from genfast.tasks._loss import Loss

# Nats a value. Losses are sums of float32: rounding moves them by some 1e-7, a wrong convention by 1e-3 at least.
BOUND = 1e-5
# The same for losses that approximate, in float32: on which side of a threshold they are is a matter of rounding.
APPROXIMATE = 1e-4
MOST_CHANGES = 2  # conventions that are changed at a time
SCREENED = 2  # images on which alternatives are compared first

Change = tuple[int, dict[str, Any]]  # how many conventions are changed, and the keywords that say so


@dataclass(frozen=True)
class Arrangement:
    """Other levels than the images: what enters the model, and what is scored.

    Attributes:
        text: of the other levels, as an expression of `images`; why: what the model or its loss does.
        inputs, targets: functions of levels, int64 [n, C, H, W].
        of_integers: whether it is for integer inputs alone: floats have an `input_range` that does the same.
    """

    text: str
    why: str
    inputs: Callable[[Tensor], Tensor]
    targets: Callable[[Tensor], Tensor]
    of_integers: bool = False

    @property
    def is_of_both(self) -> bool:
        return self.inputs is self.targets

    @property
    def phrase(self) -> str:
        if self.is_of_both:
            return f"{self.text} in place of images"
        place = "targets" if self.inputs is _same else "inputs"
        return f"{self.text} as {place} beside images as {'inputs' if place == 'targets' else 'targets'}"


@dataclass(frozen=True)
class Alternative:
    """Conventions that may be meant: the keywords that differ, and how the output is read."""

    conventions: Conventions
    changed: dict[str, Any]
    arrangement: Arrangement | None
    reading: Reading

    def __str__(self) -> str:
        words = [f"{name}={_text(value)}" for name, value in self.changed.items()]
        return " and ".join(words + ([self.arrangement.phrase] if self.arrangement else [])) or "no change"


class Alternatives:
    """The search among alternatives, one change at a time and in pairs.

    Args:
        model, own: of the check; the range of `own` is known, or None where it cannot be inferred.
        layout: of the output, where it was found in the graph.
        images, labels: levels [n, C, H, W] and int64 [n] or None, on the device of the model.
        loss: of these images.

    Attributes:
        tried: how many were compared; closest: the difference and the text of the one nearest to the loss.
        not_causal: why an alternative that agrees cannot be drawn from.
    """

    def __init__(
        self,
        model: nn.Module,
        own: Conventions,
        layout: Layout | None,
        images: Tensor,
        labels: Tensor | None,
        loss: Loss,
    ) -> None:
        self.model, self.own, self.layout, self.labels = model, own, layout, labels
        self.images, self.loss = images.long(), loss
        self.dtype = dtype_of(model)
        # Of the model, one for each number of images: a forward may keep what depends on it.
        self.copies: dict[int, Any] = {}
        self.readings: dict[Any, list[tuple[Change, Reading]]] = {}
        self.tried, self.closest, self.not_causal = 0, (float("inf"), ""), ""

    def agrees_as_it_is(self, nats: Tensor) -> bool | None:
        """Whether the engine, which gives these nats per image, agrees with a forward that agrees with the loss without
        any change; None if the forward does not."""
        with at_work(self.model), torch.no_grad():
            for alternative in self._agreeing(0):
                return self._follows(alternative, nats)
        return None

    def find(self) -> str | None:
        """What makes the model agree with the loss, a sentence; None if nothing does."""
        with at_work(self.model), torch.no_grad():
            for changes in range(MOST_CHANGES + 1):
                for alternative in self._agreeing(changes):
                    found = self._confirmed(alternative)
                    if found is not None or self.not_causal:
                        return found
        return None

    def _agreeing(self, changes: int) -> Iterator[Alternative]:
        """The alternatives with so many changes that agree with the loss, by full forwards."""
        few = self.loss.first(SCREENED)
        n, loss = (SCREENED, few) if few else (len(self.images), self.loss)
        # First those that keywords can say.
        forwards = product((None, *_arrangements(self.own.spec)), _entrances(self.own))
        for arrangement, ((count, changed), conventions) in forwards:
            left = changes - count - (arrangement is not None)
            if left < 0 or arrangement is not None and arrangement.of_integers and conventions.input_range:
                continue
            output = self._output(conventions, arrangement, n)
            for (more, named), reading in [] if output is None else self._known_readings(output):
                if more != left:  # fewer changes were tried before
                    continue
                alternative = Alternative(conventions, changed | named, arrangement, reading)
                difference, agrees = self._difference(alternative, output, loss, n)
                self.tried += 1
                if difference < self.closest[0]:
                    self.closest = difference, str(alternative)
                if agrees and self._of_all(alternative)[1]:
                    yield alternative

    def _output(self, conventions: Conventions, arrangement: Arrangement | None, n: int) -> Any:
        """What the model returns for the first n images; None where it does not take such inputs."""
        levels = self.images[:n] if arrangement is None else arrangement.inputs(self.images[:n])
        if conventions.inputs not in OF_FLOATS and not _in_range(levels, self.own.spec):
            return None  # an embedding has no entry for such a level; on a GPU it would end the process
        x, labels = inputs_of(conventions, levels, self.dtype), None if self.labels is None else self.labels[:n]
        condition = {name: value[:n].to(levels.device) for name, value in conventions.condition.items()}
        condition = {name: value.expand(n, *value.shape[1:]) for name, value in condition.items()}
        if n not in self.copies:
            self.copies[n] = copied(self.model).eval()
        try:
            return call(self.copies[n], x, labels, condition)
        except Exception:  # whatever it raises: the model does not take such inputs
            return None

    def _known_readings(self, output: Any) -> list[tuple[Change, Reading]]:
        """`_readings`, which depend on the form of an output alone, and take longer than a small forward."""
        form = _form(output)
        if form not in self.readings:
            self.readings[form] = list(self._readings(output))
        return self.readings[form]

    def _readings(self, output: Any) -> Iterator[tuple[Change, Reading]]:
        """The readings that an output may have, each once, those nearest to the present one first."""
        own, seen = self.own, set()
        names = list(dict.fromkeys((own.head, *heads())))
        for layout, name in product(dict.fromkeys((own.output, None)), names):
            several = self._read(output, name, layout)
            for reading in several:
                changed: dict[str, Any] = {} if name == own.head else {"head": name}
                named = len(several) > 1 and not (name == own.head and reading.layout == self.layout)
                if named or layout != own.output:
                    changed["output"] = str(reading.layout)
                kind = reading.head if reading.head in PROBABILITIES else ""
                key = reading.likelihood, reading.index.tobytes(), reading.layout, kind
                if key not in seen:
                    seen.add(key)
                    yield (len(changed), changed), reading

    def _read(self, output: Any, head: str | None, layout: Layout | None) -> list[Reading]:
        spec, found = self.own.spec, []

        def keep(readings: list[Reading]) -> list[Reading]:
            found.extend(readings)
            return readings[:1]

        sizes = {"channels": spec.channels, "height": spec.height, "width": spec.width, "levels": spec.levels}
        try:
            one = read_output("check", output, **sizes, head=head, layout=layout, choose=keep)
        except ValueError:
            return []
        return found or [one]

    def _nats(self, output: Any, alternative: Alternative, n: int, customary: bool = False) -> Tensor:
        """Nats per image of the first n images, float64 [n]; inf where the alternative does not fit."""
        arrangement, images = alternative.arrangement, self.images[:n]
        targets = images if arrangement is None else arrangement.targets(images)
        spec = self.own.spec
        if not _in_range(targets, spec):
            return torch.full((n,), float("inf"), dtype=torch.float64, device="cpu")
        parameters, likelihood = alternative.reading.parameters(output).double(), alternative.reading.likelihood
        score = likelihood.customary_nll if customary else likelihood.nll
        return score(targets.to(level_dtype(spec.levels)), parameters)

    def _difference(self, alternative: Alternative, output: Any, loss: Loss, n: int) -> tuple[float, bool]:
        """The difference of an alternative from the loss of n images, and whether they agree."""
        exact = loss.difference(self._nats(output, alternative, n))
        approximates = type(alternative.reading.likelihood).customary_nll is not Likelihood.customary_nll
        if exact <= BOUND or not approximates:
            return exact, exact <= BOUND
        customary = loss.difference(self._nats(output, alternative, n, customary=True))
        return min(exact, customary), customary <= APPROXIMATE

    def _of_all(self, alternative: Alternative) -> tuple[float, bool]:
        """`_difference` for all images."""
        return self._difference(alternative, self._output_of_all(alternative), self.loss, len(self.images))

    def _output_of_all(self, alternative: Alternative) -> Any:
        return self._output(alternative.conventions, alternative.arrangement, len(self.images))

    def _follows(self, alternative: Alternative, nats: Tensor) -> bool:
        """Whether the engine, which gives these nats, agrees with the loss or with the forward of an alternative.

        A loss of probabilities takes logarithms of numbers that were rounded near 1, where the engine has the logits:
        these are not compared here, but were when the program was compiled.
        """
        if self.loss.difference(nats) <= BOUND or alternative.reading.head in PROBABILITIES:
            return True
        forward = self._nats(self._output_of_all(alternative), alternative, len(self.images))
        return float((forward - nats).abs().max()) <= BOUND * self.own.spec.values

    def _confirmed(self, alternative: Alternative) -> str | None:
        """The remedy of an alternative that agrees by full forwards: None if the engine does not agree with it."""
        arrangement, changed = alternative.arrangement, dict(alternative.changed)
        difference, _ = self._of_all(alternative)
        if arrangement is not None and not arrangement.is_of_both:
            return f"{_sentence(alternative, difference)}: {arrangement.why}"
        images = self.images if arrangement is None else arrangement.targets(self.images)
        try:
            nats = self._by_engine(alternative, images, changed)
        except NotCausal as error:
            order = self._order(alternative)
            if order is None:
                self.not_causal = str(error)
                return None
            changed["pixel_order"] = _Expression(order[0])
            nats = self._by_engine(alternative, images, changed | {"pixel_order": order[1]})
        except ValueError:
            if "head" in changed:
                return None
            changed["head"] = alternative.reading.head  # as the shape implies, but it must be named
            try:
                nats = self._by_engine(alternative, images, changed)
            except ValueError:
                return None
        alternative = replace(alternative, changed=changed)
        if not self._follows(alternative, nats):
            return None
        return _sentence(alternative, difference) + (f": {arrangement.why}" if arrangement else "")

    def _by_engine(self, alternative: Alternative, images: Tensor, changed: Any) -> Tensor:
        """Nats per image, float64 [n], by the engine."""
        keywords: Any = keywords_of(alternative.conventions) | changed
        return -Engine(self.model, **keywords).log_prob(images, self.labels)

    def _order(self, alternative: Alternative) -> tuple[str, Tensor] | None:
        """An order of the pixels in which the model is causal, with its text."""
        known = replace(alternative.conventions, head=alternative.reading.head, output=alternative.reading.layout)
        for text, order in _orders(self.own.spec):
            network = FullForward(self.model, replace(known, pixel_order=order.numpy()))
            try:
                with at_work(network.model):
                    check_causal(network)
                return text, order
            except NotCausal:
                pass
        return None


def keywords_of(conventions: Conventions) -> Keywords:
    """The keywords that describe conventions."""
    spec, layout, sequences = conventions.spec, conventions.output, conventions.sequences
    if sequences is not None:
        letters = str(layout).replace("(H W)", "T").replace("H W", "T").replace("L", "V")
        return {
            "length": sequences.length,
            "vocabulary": sequences.vocabulary,
            "predicts": sequences.predicts,
            "start": sequences.start,
            "classes": spec.classes,
            "inputs": sequences.inputs,
            "input_range": conventions.input_range,
            "head": conventions.head,
            "output": None if layout is None else letters,
            "condition": conventions.condition,
        }
    return {
        "shape": spec.shape,
        "levels": spec.levels,
        "classes": spec.classes,
        "inputs": conventions.inputs,
        "input_range": conventions.input_range,
        "head": conventions.head,
        "output": None if layout is None else str(layout),
        "condition": conventions.condition,
        "pixel_order": None if conventions.pixel_order is None else torch.from_numpy(conventions.pixel_order),
    }


class _Expression(str):
    """Code that makes a value which is too long to be written out."""


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "({:.10g}, {:.10g})".format(*value)
    return value if isinstance(value, _Expression) else repr(value)


def _sentence(alternative: Alternative, difference: float) -> str:
    several = len(alternative.changed) + (alternative.arrangement is not None) > 1
    return f"{alternative} {'make' if several else 'makes'} them agree (difference {difference:.0e})"


def _entrances(own: Conventions) -> Iterator[tuple[Change, Conventions]]:
    """What may enter the model. A range that is not known costs nothing: it must be given anyway."""
    top = float(own.spec.levels - 1)
    usual = ((0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (0.0, top), (0.0, 255.0))
    # x / 256, x / 128 - 1, x / 256 - 0.5, and MNIST less its mean over its standard deviation.
    part = top / (top + 1)
    others = ((0.0, part), (-1.0, 2 * part - 1), (-0.5, part - 0.5), (-0.1307 / 0.3081, 0.8693 / 0.3081))
    ranges = [own.input_range] * (own.input_range is not None)
    ranges += [*usual, *((high, low) for low, high in usual), *others]
    for inputs in dict.fromkeys((own.inputs, *INPUTS)):
        if inputs == "codes" and own.spec.channels > 1:
            continue
        changed: dict[str, Any] = {} if inputs == own.inputs else {"inputs": inputs}
        if inputs not in OF_FLOATS:
            yield (len(changed), changed), replace(own, inputs=inputs, input_range=None)
            continue
        for one in dict.fromkeys(ranges):
            differs = one != own.input_range
            named = changed | ({"input_range": one} if differs else {})
            count = len(changed) + (differs and own.input_range is not None)
            yield (count, named), replace(own, inputs=inputs, input_range=one)


def _form(output: Any) -> Any:
    """The shapes and dtypes of an output, and their places in a tuple or dict."""
    if isinstance(output, Tensor):
        return output.shape, output.dtype
    if isinstance(output, Mapping):
        return tuple((name, _form(value)) for name, value in output.items())
    return tuple(map(_form, output)) if isinstance(output, (tuple, list)) else None


def _same(images: Tensor) -> Tensor:
    return images


def _arrangements(spec: ImageSpec) -> Iterator[Arrangement]:
    top = spec.levels - 1
    places: list[tuple[str, str, Callable[[Tensor], Tensor]]] = []
    if spec.channels > 1:
        places.append(("images.flip(1)", "the model takes the channels in reverse, as BGR", lambda x: x.flip(1)))
    if spec.height == spec.width > 1:
        places.append(("images.transpose(2, 3)", "it takes columns as rows", lambda x: x.transpose(2, 3)))
    places.append(("images.flip(2, 3)", "it takes the pixels in reverse", lambda x: x.flip(2, 3)))
    for text, why, function in places:
        yield Arrangement(text, why, function, function)
    levels: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
        (f"{top} - images", "the loss reverses the levels", lambda x: top - x),
        ("images + 1", "the loss shifts the levels by one", lambda x: x + 1),
        ("images - 1", "the loss shifts the levels by one", lambda x: x - 1),
    ]
    for text, why, function in levels:
        yield Arrangement(text, why, function, function)
        yield Arrangement(text, why, _same, function)
        yield Arrangement(text, why, function, _same, of_integers=text.endswith("- images"))


def _in_range(levels: Tensor, spec: ImageSpec) -> bool:
    return bool(((levels >= 0) & (levels < spec.levels)).all())


def _orders(spec: ImageSpec) -> Iterator[tuple[str, Tensor]]:
    """Orders other than that of rows, each with the code that makes it."""
    channels, height, width = spec.shape
    pixels = torch.arange(height * width, dtype=torch.int64, device="cpu")
    grid = pixels.view(height, width)
    text = f"torch.arange({height * width})"
    rows = f"{text}.view({height}, {width})"
    each = torch.arange(channels, dtype=torch.int64, device="cpu")

    def values(order: Tensor) -> Tensor:
        return (order.reshape(-1, 1) * channels + each).flatten()

    yield f"{text}.flip(0)", values(pixels.flip(0))
    yield f"{rows}.T.flatten()", values(grid.T)
    yield f"{rows}.T.flatten().flip(0)", values(grid.T.flip(0, 1))
    yield f"{rows}.flip(1).flatten()", values(grid.flip(1))
    yield f"{rows}.flip(0).flatten()", values(grid.flip(0))
    if channels > 1:
        every = torch.arange(spec.values, dtype=torch.int64, device="cpu").view(-1, channels)
        text = f"torch.arange({spec.values}).view({height * width}, {channels})"
        yield f"{text}.flip(1).flatten()", every.flip(1).flatten()
        yield f"{text}.T.flatten()", every.T.flatten()
