"""How a model is called: a copy of a foreign one, in evaluation mode, with what its conventions say."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from genfast._text import first_line
from genfast.engine.conventions import OF_FLOATS, Conventions
from genfast.engine.protocols import ImageSpec

# What authors call the labels among the arguments of forward.
LABEL_NAMES = ("y", "c", "cls", "label", "labels", "class_label", "class_labels", "class_id", "class_ids", "classes")
PROBES = 2  # images of a probe: with a single one, what squeezes loses its batch
# For each model that is in `evaluating`: how many are inside, and the modules that were in training mode before.
_EVALUATING: dict[Any, tuple[int, list[nn.Module]]] = {}
_MODES = threading.Lock()
MOST_ROWS = 1024  # of a batch that a model may have kept something of
MOST_TRIED = 12  # groups of tensors that are tried as what is kept of an earlier batch
# For each model the tensors that it keeps of an earlier batch: (module, attribute).
_FORGOTTEN: WeakKeyDictionary[nn.Module, list[tuple[str, str]]] = WeakKeyDictionary()


def probe_images(spec: ImageSpec, n: int = PROBES) -> tuple[Tensor, Tensor | None]:
    """Random levels int64 [n, C, H, W], the same at every call, and labels 0, 1, .. of a conditional model, again and
    again."""
    # A generator of its own: the user's would give other numbers after a sampling than before it.
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.randint(spec.levels, (n, *spec.shape), generator=generator, dtype=torch.int64, device="cpu")
    labels = torch.arange(n, dtype=torch.int64, device="cpu") % spec.classes if spec.classes else None
    return images, labels


def scale_of(conventions: Conventions) -> tuple[float, float]:
    """(scale, shift): a level v enters the model as v * scale + shift."""
    if conventions.inputs not in OF_FLOATS:
        return 1.0, 0.0
    assert conventions.input_range is not None  # it was given or inferred
    low, high = conventions.input_range
    return (high - low) / (conventions.spec.levels - 1), low


def inputs_of(conventions: Conventions, images: Tensor, dtype: torch.dtype) -> Tensor:
    """What a foreign model is given for levels [B, C, R, W]."""
    if conventions.inputs == "levels":
        return images.long()
    if conventions.inputs == "codes":
        return images[:, 0].long()
    if conventions.inputs == "flat-levels":
        return images.flatten(1).long()
    scale, shift = scale_of(conventions)
    x = images.float() * torch.tensor(scale, dtype=torch.float32, device="cpu") + shift
    x = x.to(dtype)
    return x.flatten(1) if conventions.inputs == "flat" else x


def entered(conventions: Conventions, x: Tensor) -> Tensor:
    """What forward itself is given for the `inputs_of` images: those of a model of sequences are arranged."""
    sequences = conventions.sequences
    return x if sequences is None else sequences.entered(x, *scale_of(conventions))


def parameters_of(model: Any) -> list[inspect.Parameter]:
    """What forward takes after the images; nothing where Python cannot say."""
    function = model.forward if type(model).__call__ is nn.Module.__call__ else model.__call__
    try:
        return list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):  # a function of another language, or a script
        return []


def call_of(model: Any, condition: Sequence[str], labels: bool) -> tuple[list[str | None], dict[str, str | None]]:
    """How a foreign model takes the labels and the entries of the condition: what is given by its place, after the
    images, and what by the name of an argument; None stands for the labels.

    Labels are the second argument of forward, unless another is called so. `*condition` takes what has no name.
    """
    known, kinds = parameters_of(model), inspect.Parameter
    arguments = [one.name for one in known if one.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    takes_any = not known or any(one.kind == kinds.VAR_KEYWORD for one in known)
    takes_more = any(one.kind == kinds.VAR_POSITIONAL for one in known)
    places: list[str | None] = []
    if takes_more and not takes_any:
        places += [name for name in condition if name not in arguments]
    names: dict[str, str | None] = {name: name for name in condition if name not in places}
    if labels:
        free = [name for name in arguments if name not in condition]
        label = next((name for name in free if name in LABEL_NAMES), None)
        if label is None or label == known[0].name and known[0].kind == kinds.POSITIONAL_OR_KEYWORD:
            places.insert(0, None)
        else:
            names[label] = None
    return places, names


def call(model: Any, x: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor]) -> Any:
    """What a foreign model returns for inputs, labels and a condition."""
    places, names = call_of(model, list(condition), labels is not None)
    given = [labels if one is None else condition[one] for one in places]
    return plain(model(x, *given, **{name: labels if one is None else condition[one] for name, one in names.items()}))


def call_error(
    model: Any,
    conventions: Conventions,
    x: Tensor,
    labels: Tensor | None,
    condition: Mapping[str, Tensor],
    error: Exception,
) -> ValueError:
    """What genfast calls, and what the model raised, such as "model(x) with float32 [2, 3, 32, 32] in input_range
    (-1, 1)"."""
    places, names = call_of(model, list(condition), labels is not None)
    arguments = [*(one or "labels" for one in places), *(f"{name}={one or 'labels'}" for name, one in names.items())]
    others = [labels if one is None else condition[one] for one in (*places, *names.values())]
    kinds = kinds_of([x, *(other for other in others if other is not None)])
    if conventions.input_range:
        kinds[0] += " in input_range ({:g}, {:g})".format(*conventions.input_range)
    vocabulary = conventions.sequences and isinstance(error, IndexError)
    rows = f" (has the embedding rows for vocabulary={conventions.spec.levels} and start?)" if vocabulary else ""
    return ValueError(
        f"sample: genfast calls model({', '.join(('x', *arguments))}) with {', '.join(kinds)}, which must work; got "
        f"{type(error).__name__}: {first_line(error)}{rows}{_missing(model, places, names)}"
    )


def _missing(model: Any, places: Sequence[str | None], names: Mapping[str, str | None]) -> str:
    """How to give the arguments that forward requires and does not get."""
    single = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    required = [one.name for one in parameters_of(model) if one.kind in single and one.default is one.empty]
    left = [name for name in required[len(places) :] if name not in names]
    if not left:
        return ""
    entries = ", ".join(f"{name!r}: ..." for name in left)
    classes = "" if None in (*places, *names.values()) else "classes= and labels=, or "
    return f"; for {', '.join(left)} give {classes}condition={{{entries}}}"


def not_given(model: Any, conventions: Conventions) -> list[str]:
    """The arguments of forward that are None unless they are given, and are not: such as labels that were forgotten."""
    places, names = call_of(model, list(conventions.condition), bool(conventions.spec.classes))
    optional = [one.name for one in parameters_of(model)[len(places) :] if one.default is None]
    return [name for name in optional if name not in names]


def kinds_of(values: Sequence[Tensor]) -> list[str]:
    """The dtype and the shape of each, such as "float32 [2, 3, 32, 32]"."""
    return [f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" for value in values]


def plain(output: Any) -> Any:
    """What forward returned; of an object that holds logits, such as a distribution, a dict of these."""
    if isinstance(output, (Tensor, Mapping, tuple, list)):
        return output
    try:
        logits = output.logits
    except AttributeError:
        return output
    return {"logits": logits} if isinstance(logits, Tensor) else output


def copied(model: nn.Module) -> Any:
    """A deep copy of a model, also of one with weights that hooks have computed, which are no leaves; without what
    `forget_batch` has found."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]:
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    with torch.no_grad():
        copy_of = copy.deepcopy(model, memo)
    for name, attribute in _FORGOTTEN.get(model, ()):
        setattr(copy_of.get_submodule(name), attribute, None)
    return copy_of


def forget_batch(model: nn.Module, x: Tensor, labels: Tensor | None, condition: Mapping[str, Tensor]) -> bool:
    """Whether a model that fails on a batch can be called after all, without tensors that it keeps of an earlier one.

    Some authors make what they pad images with in the first call, and keep it. It is found by its number of rows, and
    must make no difference: a copy without it has to return for the batch what one with it returns for as many rows.
    """
    kept: dict[int, list[tuple[str, str]]] = {}
    for name, module in model.named_modules():
        for attribute, value in (*vars(module).items(), *module._buffers.items()):
            if isinstance(value, Tensor) and value.dim() and 0 < len(value) <= MOST_ROWS and len(value) != len(x):
                kept.setdefault(len(value), []).append((name, attribute))
    # All that have as many rows, then one of them alone.
    groups = list(kept.items())
    groups += [(rows, [one]) for rows, found in kept.items() for one in found if len(found) > 1]
    for rows, found in groups[:MOST_TRIED]:
        index = torch.arange(rows, dtype=torch.int64, device=x.device) % len(x)
        of_labels = None if labels is None else labels[index]
        rows_of = {name: value[index] for name, value in condition.items()}
        before = _FORGOTTEN.get(model, [])
        try:
            expected = call(copied(model).eval(), x[index], of_labels, rows_of)
            _FORGOTTEN[model] = before + found
            if _begin_alike(expected, call(copied(model).eval(), x, labels, condition)):
                return True
        except Exception:  # whatever the model raises: it is no batch
            pass
        _FORGOTTEN[model] = before
    return False


def _begin_alike(some: Any, others: Any) -> bool:
    """Whether what was returned for two batches is the same for the images that both begin with."""
    pairs = list(zip(pytree.tree_leaves(some), pytree.tree_leaves(others)))
    return bool(pairs) and all(
        torch.allclose(a[: len(b)], b[: len(a)], 1e-5, 1e-5) for a, b in pairs if isinstance(b, Tensor)
    )


@contextmanager
def at_work(model: Any) -> Iterator[None]:
    """A context in which a model is in evaluation mode, and after which the random state of torch is as before."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), evaluating(model):
        yield


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


def not_finite(tensor: Tensor) -> int:
    """How many values of a weight are not finite; a buffer may hold minus infinity, as masks of attention do."""
    values = tensor.detach()
    finite = values.isfinite() if isinstance(tensor, nn.Parameter) else values.isfinite() | (values == -torch.inf)
    return int((~finite).sum())
