"""What is said of an op once: the names of its tensors and numbers, and what makes room for its results."""

from __future__ import annotations

import functools
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from genfast._native.kinds import Kind, Limits, Sizes, make_checker

# The numbers that the C++ function takes after the addresses, and the empty tensors that it fills.
Allocated = tuple[tuple[int | float, ...], tuple[Tensor, ...]]
# What the native backends serve unless a schema says otherwise.
DTYPES = {
    "cpp": (torch.float32, torch.float64, torch.bfloat16),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
}

AUTOCAST = ("widest", "lower", "float32", "as given")


@dataclass(frozen=True, eq=False)
class OpSchema:
    """An op in terms of its names. `register` makes the native ops, their derivatives and the call from it.

    An op with a gradient is two native functions, `<name>_forward` and `<name>_backward`. A sampler or a statistic has
    no gradient and is one, `<name>`: it leaves out `allocate_gradients` and all that is said of gradients.

    Attributes:
        name: of the op.
        arguments: the tensors of the call by name, and what each must be, as `Kind` reads it. The first differentiable
            one chooses the backend.
        outputs: what the call returns, in the same way. Those of whole numbers have no gradient.
        numbers: names of what the C++ functions take after the addresses, in this order; both take the same.
        allocate: (*arguments, *settings, save) -> (numbers, empty outputs and saved tensors). Without `save` the saved
            tensors are empty, of shape [0]. An op without a gradient has no `save`.
        allocate_gradients: (*gradients of the differentiable outputs, *residuals, *settings) -> (numbers, empty
            gradients of the differentiable arguments). With several outputs the gradient of one that was not used has
            the shape [0].
        saved: what the forward function also makes for the backward function, if it is told to save; as outputs.
        residuals: what the backward function reads after the gradients of the outputs, in its order: names of
            arguments, outputs and saved tensors.
        constants: the arguments that have no gradient.
        optional: the arguments whose gradient is only made where it is wanted. `allocate_gradients` and the backward
            function then end with the setting `wanted`: bit i stands for the i-th differentiable argument.
        settings: name -> type in torch's schema language (int, float, bool, str; SymInt for a size) of the arguments
            after the tensors.
        limits: the least and greatest value of every number among the settings, and of sizes by their letters.
        check: (op, *arguments, *settings) -> sizes that letters of the outputs stand for, or None. It raises for what
            kinds and limits cannot say.
        dtypes: backend -> the dtypes that it serves.
        adjoint: for an op that is linear in its one differentiable argument, and whose gradient is the op itself:
            (gradient of the output, *arguments, *settings) -> the (arguments, settings) of the call that is the
            gradient. The higher derivatives are then native too.
        arrange: what brings a tensor into a memory layout that the native functions read.
        autocast: what torch.autocast casts the float tensors of the call to: their "widest" dtype, as of pointwise
            functions; "lower", its own, as of convolutions and LSTMs; "float32", as of distances and norms; or
            "as given", nothing.
    """

    name: str
    arguments: Mapping[str, str]
    outputs: Mapping[str, str]
    numbers: tuple[str, ...]
    allocate: Callable[..., Allocated]
    allocate_gradients: Callable[..., Allocated] | None = None
    saved: Mapping[str, str] = field(default_factory=dict)
    residuals: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    check: Callable[..., Sizes | None] | None = None
    dtypes: Mapping[str, tuple[torch.dtype, ...]] = field(default_factory=DTYPES.copy)
    adjoint: Callable[..., tuple[Sequence[Tensor], Sequence[Any]]] | None = None
    arrange: Callable[[Tensor], Tensor] = Tensor.contiguous
    autocast: str = "widest"

    def __post_init__(self) -> None:
        names = (*self.arguments, *self.settings, *self.results)
        wrong = [n for n in names if not n.isidentifier() or keyword.iskeyword(n) or names.count(n) > 1]
        for field_name, known in (
            ("residuals", (*self.arguments, *self.results)),
            ("constants", self.arguments),
            ("optional", self.differentiable),
        ):
            wrong += [f"{field_name}: {n}" for n in getattr(self, field_name) if n not in known]
        wrong += [] if self.autocast in AUTOCAST else [f"autocast: {self.autocast}"]
        if wrong:
            raise ValueError(f"{self.name}: names must be known, distinct identifiers; got {', '.join(wrong)}")
        free = [n for n, kind in self.settings.items() if kind not in ("bool", "str") and n not in self.limits]
        if free:
            raise ValueError(f"{self.name}: limits must be given for every number; got none for {', '.join(free)}")
        if self.check and self.has_gradient and not self.is_complete:
            raise ValueError(f"{self.name}: check must be None where the backward function reads not all arguments")

    @property
    def has_gradient(self) -> bool:
        return self.allocate_gradients is not None

    @property
    def native_functions(self) -> tuple[str, ...]:
        """The functions of the native modules, which are also the names of the ops in torch.ops.genfast."""
        return (f"{self.name}_forward", f"{self.name}_backward") if self.has_gradient else (self.name,)

    @property
    def results(self) -> tuple[str, ...]:
        """What the forward function returns."""
        return *self.outputs, *self.saved

    @functools.cached_property
    def kinds(self) -> dict[str, Kind]:
        """What every argument, result and gradient of an output must be."""
        kinds = {name: Kind.of(text) for name, text in {**self.arguments, **self.outputs, **self.saved}.items()}
        for output in self.outputs:
            # That of one of several outputs may be missing.
            kinds[f"grad_{output}"] = replace(kinds[output], optional=len(self.outputs) > 1)
        return kinds

    def checker(self, way: int) -> Callable[..., None]:
        """The check of all that the forward function (0) or the backward function (1) is given, in order."""
        tensors = (*self.incoming, *self.residuals) if way else tuple(self.arguments)
        return make_checker(
            self.native_functions[way],
            self.backward_lead if way else self.lead,
            {name: self.kinds[name] for name in tensors},
            tuple(self.settings),
            self.limits,
            [name for name in self.arguments if name in tensors],
            self.check,
        )

    @functools.cached_property
    def differentiable(self) -> tuple[str, ...]:
        """The arguments that have a gradient."""
        return tuple(argument for argument in self.arguments if argument not in self.constants)

    @functools.cached_property
    def differentiable_outputs(self) -> tuple[str, ...]:
        return tuple(output for output in self.outputs if not self.kinds[output].is_integer)

    @property
    def non_differentiable(self) -> tuple[str, ...]:
        """The results that have no gradient."""
        return tuple(result for result in self.results if result not in self.differentiable_outputs)

    @property
    def lead(self) -> str:
        """The argument that chooses the backend, and whose dtype is that of the call."""
        return self.differentiable[0]

    @property
    def backward_lead(self) -> str:
        """The same of the backward function. The gradient of an output may be wider than the arguments are."""
        return self.lead if self.lead in self.residuals else self.incoming[0]

    @property
    def incoming(self) -> tuple[str, ...]:
        """The gradients that the backward function is given."""
        return tuple(f"grad_{output}" for output in self.differentiable_outputs)

    @property
    def gradients(self) -> tuple[str, ...]:
        """The gradients that it makes."""
        return tuple(f"grad_{argument}" for argument in self.differentiable)

    @property
    def kept(self) -> tuple[str, ...]:
        """What is kept for the backward pass: the arguments, and the results that it reads."""
        return *self.arguments, *(residual for residual in self.residuals if residual in self.results)

    @property
    def forward_settings(self) -> dict[str, str]:
        return {**self.settings, "save": "bool"} if self.has_gradient else dict(self.settings)

    @property
    def backward_settings(self) -> dict[str, str]:
        return {**self.settings, "wanted": "int"} if self.optional else dict(self.settings)

    @functools.cached_property
    def is_complete(self) -> bool:
        """Whether the backward function is given all that its own derivatives need."""
        return set(self.arguments) <= set(self.residuals)
