"""Whether the conventions given for a foreign model agree with its author's own loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genfast.engine.arguments import check_images, check_labels
from genfast.engine.calling import at_work, not_given
from genfast.engine.compiler.proof import labels_matter
from genfast.engine.conventions import Conventions, conventions_of, refuse_conventions
from genfast.engine.engine import Engine, check_finite, refuse_beside_engine
from genfast.engine.protocols import Autoregressive, Generator, ImageSpec, Translator, device_of
from genfast.engine.unchecked import checking, remember
from genfast.engine.wrappers import unwraps
from genfast.likelihoods.layout import Layout
from genfast.likelihoods.reading import PROBABILITIES
from genfast.tasks._alternatives import BOUND, Alternatives, keywords_of
from genfast.tasks._loss import Loss, measured
from genfast.tasks._sequence_remedy import sequence_remedy
from genfast.tasks._sequences import as_images, of_sequences
from genfast.tasks.results import Check

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords


@unwraps
def check(
    model: nn.Module | Engine,
    images: Tensor,
    nll: Callable[..., Any],
    *,
    labels: int | Tensor | None = None,
    **keywords: Unpack[Keywords],
) -> Check:
    """Compare the log-probabilities of the engine with the author's own loss, and say what would make them agree.

    What a foreign model takes and returns is described by keywords, and a wrong one, such as another input range or
    order of parameters, gives plausible noise. The loss that the model was trained with knows better. Check a trained
    model: one whose outputs do not depend on the image yet agrees with any input range.

    Args:
        model: an autoregressive `torch.nn.Module`, or an `Engine` made of one.
        images: levels of any integer dtype, [n, C, H, W], n at least 2; a few real ones are enough. Of a model of
            sequences symbols [n, T], which is also what the loss is given.
        nll: the author's loss, a function of images, uint8 up to 256 levels, else int32, on the device of the model; of
            sequences, int64 [n, T];
            and of labels, int64 [n], if these are given and it takes two arguments. It scales the images and calls the
            model itself, and returns a tensor [n] or a single number: nats or bits, as a sum or a mean over values,
            pixels or images. It is called with the model in evaluation mode and without gradients, for a single number
            up to five times.
        labels: for a conditional model: one int for all, or integers [n].
        keywords: the conventions to check, see `Engine`.
    Returns: `Check`. `ok` where they differ by 1e-5 nats a value at most: losses are sums of float32, and their
        rounding moves them by some 1e-7, a wrong convention by far more. Two losses in common use differ more from the
        exact log-probability: that of probabilities, which were rounded near 1 and whose logarithms are clamped, and
        that of a mixture of logistics, which approximates the tails. For these it is enough that the forward of the
        model, scored in their way, agrees with them, and the engine with the forward.
    Raises: TypeError or ValueError for an argument that does not fit, for weights that are not finite, and for a loss
        that fails, with what was called. A model that the engine refuses as described is no error: the remedy says why.

    The model is left as it was, bit for bit, and so is torch's random state.

    Example::

        def nll(images):
            logits = model(2 * images.float() / 255 - 1)
            return torch.nn.functional.cross_entropy(logits, images[:, 0].long())

        genfast.check(model, images, nll, shape=(1, 28, 28), levels=256, input_range=(0, 1))
        # Check(ok=False, difference=0.31, remedy="input_range=(-1, 1) makes them agree (difference 2e-08)")
    """
    model, engine, own, spec = _described(model, keywords)
    if not callable(nll):
        raise TypeError(f"check: nll must be a function of images; got {type(nll).__name__}")
    device = device_of(model)
    sequences = None if own is None else own.sequences
    images = as_images("check", "images", images, sequences)
    images = check_images("check", "images", images, spec).to(device)
    if len(images) < 2:
        raise ValueError(f"check: images must be two at least; got {len(images)}")
    labels = check_labels("check", labels, spec, len(images), device)
    check_finite(model, "check")
    alike = own is None or all(len(value) == 1 for value in own.condition.values())
    nll = nll if sequences is None else of_sequences(nll)
    loss = measured(nll, model, images, labels, alike, sequences is not None)
    with checking(model):
        result = _compared(model, engine, own, images, labels, loss)
    if result.ok and own is not None:
        remember(model, own.key)
    return result


def _described(model: Any, keywords: Keywords) -> tuple[nn.Module, Engine | None, Conventions | None, ImageSpec]:
    """The model, the engine that was given for it, its conventions if it is foreign, and its images."""
    if isinstance(model, Engine):
        refuse_beside_engine("auto", keywords)
        return model.model, model, model.conventions, model.network.spec
    if not isinstance(model, nn.Module) or isinstance(model, (Generator, Translator)):
        raise TypeError(f"check: model must be an autoregressive torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, Autoregressive):
        refuse_conventions(type(model).__name__, "check", keywords=keywords)
        return model, None, None, model.spec
    own = conventions_of("check", model, keywords)
    return model, None, own, own.spec


def _compared(
    model: nn.Module,
    engine: Engine | None,
    own: Conventions | None,
    images: Tensor,
    labels: Tensor | None,
    loss: Loss,
) -> Check:
    """The comparison, and the search for a remedy where they differ."""
    refusal, nats, layout = "", None, None
    try:
        engine = engine or Engine(model, **({} if own is None else keywords_of(own)))
        if own is not None:
            own, layout = _resolved(engine)
        nats = -engine.log_prob(images, labels)
        if own is not None:
            own, layout = _resolved(engine)
    except ValueError as error:
        refusal = str(error)
    difference = math.inf if nats is None else loss.difference(nats)
    if difference <= BOUND:
        return Check(True, difference, None)
    if own is None:
        return Check(False, difference, _reason(loss, nats))
    if own.sequences is not None:
        found = sequence_remedy(model, own, images, labels, loss) or _reason(loss, nats, not_given(model, own))
        return Check(False, difference, f"{found}; as described, {refusal}" if refusal else found)
    search = Alternatives(model, own, layout, images, labels, loss)
    agrees = None if nats is None else search.agrees_as_it_is(nats)
    if agrees:
        return Check(True, difference, None)
    if agrees is False:
        why = "the program differs from the forward of the model; please report it"
        return Check(False, difference, f"backend='full_forward' makes them agree: {why}")
    remedy = search.find()
    if remedy is None:
        remedy = _no_remedy(search, _reason(loss, nats, not_given(model, own), _idle_labels(engine)), refusal)
        return Check(False, difference, remedy)
    return Check(False, difference, f"{remedy}; as described, {refusal}" if refusal else remedy)


def _no_remedy(search: Alternatives, reason: str, refusal: str) -> str:
    """What to say where no other conventions agree."""
    if search.not_causal:
        return (
            "its forward agrees with the loss, but no usual order of pixels is its own: give pixel_order, or look at "
            f"its masks: {search.not_causal}"
        )
    if not search.tried:  # the model takes no other inputs either
        return refusal
    closest, text = search.closest
    near = f" (the nearest: {text}, with a difference of {closest:.1g})" if math.isfinite(closest) else ""
    remedy = f"none of {search.tried} other conventions makes them agree{near}: {reason}"
    return f"{remedy}; as described, {refusal}" if refusal else remedy


def _resolved(engine: Engine) -> tuple[Conventions, Layout]:
    """The conventions with what the engine has found in the graph, and the layout of the output."""
    network = engine.network
    own, reading = network.conventions, network.reading
    assert own is not None and reading is not None  # the model is foreign
    return replace(own, head=reading.head) if reading.head in PROBABILITIES else own, reading.layout


def _idle_labels(engine: Engine | None) -> bool:
    """Whether a foreign model gives the same for any label: forward may know them under another name."""
    if engine is None or engine.conventions is None or engine.conventions.spec.classes < 2:
        return False
    network = engine.network
    with torch.no_grad(), at_work(network.model):
        return not labels_matter(network)


def _reason(loss: Loss, nats: Tensor | None, left_out: Sequence[str] = (), idle_labels: bool = False) -> str:
    """The most likely reason for a difference that no convention explains.

    left_out: arguments that forward also takes, and were not given; idle_labels: whether they change nothing.
    """
    if nats is not None and loss.difference(-nats) <= BOUND:
        return "nll returns the log-probability, and must return its negative"
    if nats is not None and len(loss.numbers) > 1:
        ratios = loss.numbers / loss.averages(nats)
        if bool(((ratios / ratios[0] - 1).abs() < 1e-5).all()):
            ratio, of_value = float(ratios[0]), float(ratios[0]) * loss.values
            return f"nll is {ratio:.6g} times the nats of an image and {of_value:.6g} times those of a value"
    if idle_labels:
        return "forward gives the same for any label: give condition={name: labels} in place of classes"
    given = f", or give forward {', '.join(left_out)} too: see condition and classes" if left_out else ""
    return (
        "the loss may leave out pixels, weight or clamp them, or be a bound; or it may evaluate another model, or this "
        f"one on other inputs{given}"
    )
