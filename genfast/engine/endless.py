"""Sequences without an end: what is proved of a model before it draws them."""

from __future__ import annotations

from dataclasses import replace

import torch

from genfast.engine.calling import at_work
from genfast.engine.compiler.proof import TOLERANCE
from genfast.engine.engine import Engine
from genfast.engine.full_forward import FullForward, differ
from genfast.engine.protocols import Sequential
from genfast.engine.request import SampleRequest
from genfast.engine.window import Window, steady

PROVED = 2048  # symbols of the program of which a window is made; it is compared with the forward over twice as many


def check_endless(call: str, engine: Engine) -> None:
    """ValueError for an engine whose model cannot draw sequences without an end, with the reason.

    Its program must be the same in every column but the first ones, and through a window it must give twice as many
    symbols as it was compiled for the distributions that the forward of the model gives them.
    """
    backend, compiled, network = engine.prepared()
    if backend != "cpp" or isinstance(compiled, str):
        why = engine.explanation.others.get("cpp", "not asked for")
        raise ValueError(f"{call}: length must be an int for a model that is drawn by {backend} (cpp: {why}); got None")
    program = compiled.program
    if isinstance(back := steady(program), str):
        raise ValueError(f"{call}: length must be an int for this model: {back}; got None")
    if program.prepared.get("endless") is None:
        program.prepared["endless"] = _difference(engine, network)
    if error := program.prepared["endless"]:
        raise ValueError(
            f"{call}: length must be an int for this model: beyond {PROVED} symbols its forward differs by "
            f"{error:.1e}; got None"
        )


@torch.no_grad()
def _difference(engine: Engine, network: FullForward) -> float:
    """The largest one of a window from the forward over 2 `PROVED` symbols; 0 where all are rounding."""
    length = 2 * PROVED
    forward = _longer(engine, network, length)
    generator = torch.Generator("cpu").manual_seed(1)
    size, spec = (2, 1, 1, length), forward.spec
    x = torch.randint(spec.levels, size, generator=generator, dtype=spec.dtype, device="cpu")
    labels = torch.arange(2, dtype=torch.int64, device="cpu") % spec.classes if spec.classes else None
    condition = forward.probe_condition(2)
    with at_work(forward.model):
        expected = forward.comparable(forward.parameters(x, labels, condition).float())
    known = torch.ones(size, dtype=torch.bool, device="cpu")
    request = SampleRequest(2, labels=labels, given=x, known=known, want=("parameters",))
    _, compiled, _ = engine.prepared()
    assert not isinstance(compiled, str)
    window = Window(compiled.program, compiled.told(request, network.device, condition))
    got = forward.comparable(torch.cat([part.parameters for part in window.parts(length)], 3))
    return float((got - expected).abs().max()) if differ(got, expected, TOLERANCE).any() else 0.0


def _longer(engine: Engine, network: FullForward, length: int) -> FullForward:
    """The model as a function of longer sequences."""
    conventions, reading = network.conventions, network.reading
    if conventions is None or conventions.sequences is None or reading is None:
        assert isinstance(engine.model, Sequential)  # it is one of ours
        return FullForward(engine.model.of_length(length))  # type: ignore[arg-type]  # a module, as the model is
    spec, sequences = replace(conventions.spec, width=length), replace(conventions.sequences, length=length)
    longer = replace(conventions, spec=spec, sequences=sequences, head=reading.head, output=reading.layout)
    return FullForward(engine.model, longer)
