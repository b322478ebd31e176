"""Images a second that are drawn from autoregressive models, beside a forward pass for each value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from genfast.benchmarks import matching, sampling_cases, sampling_rates
from genfast.benchmarks.rows import EAGER, OURS
from genfast.benchmarks.runner import Case, Prepared
from genfast.benchmarks.sampling_cases import ROWS, plain, plus_plus, preset
from genfast.engine.engine import Engine

BATCHES = (1, 16, 64, 256)
# Name -> how the model is made, and what the engine must be told of one that is not of `genfast.models`.
FAMILIES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "PixelRNN, Diagonal BiLSTM, 7 layers of 16": ((preset, "pixelrnn", 7, 16, "diagonal"), {}),
    "PixelRNN, Row LSTM, 7 layers of 16": ((preset, "pixelrnn", 7, 16, "row"), {}),
    "PixelCNN, 15 layers of 32": ((preset, "pixelcnn", 15, 32), {}),
    "Gated PixelCNN, 12 layers of 32": ((preset, "gated-pixelcnn", 12, 32), {}),
    "7 masked convolutions of 3x3, 32 features": (
        (plain, 32, 2),
        {"shape": (1, 28, 28), "input_range": (0, 1), "levels": 2},
    ),
    "PixelCNN++ of 160 filters, 32x32x3": ((plus_plus,), {}),
}
SLOW = "PixelCNN++ of 160 filters, 32x32x3"  # seconds for an image: in no large batch
# The same with a fifth of the layers.
QUICK: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "PixelRNN, Diagonal BiLSTM, 2 layers of 16": ((preset, "pixelrnn", 2, 16, "diagonal"), {}),
    "PixelCNN, 3 layers of 32": ((preset, "pixelcnn", 3, 32), {}),
    "Gated PixelCNN, 3 layers of 32": ((preset, "gated-pixelcnn", 3, 32), {}),
}
QUICK_RIVAL_SECONDS = 0.03


def cases(quick: bool, against: Sequence[str]) -> list[Case]:
    """A case for each family and batch; `quick`: one batch of 16."""
    made = []
    seconds = QUICK_RIVAL_SECONDS if quick else sampling_rates.RIVAL_SECONDS
    for name, (model, options) in (QUICK if quick else FAMILIES).items():
        for batch in (16,) if quick else BATCHES[:2] if name == SLOW else BATCHES:
            case = sampling_cases.Case(name, "", model, batch, options=options, rivals=(ROWS,))
            if name == SLOW:
                case = replace(case, rival_images=1)
            prepare = partial(_prepare, case, tuple(against), seconds)
            made.append(Case("sampling", name, f"B={batch}", "float32", "draw", prepare))
    return made


@cache
def _engine(model: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Engine:
    """Kept over the passes and batches: a model is traced once."""
    return Engine(sampling_cases.untrained(*model), **dict(options))


def _prepare(case: sampling_cases.Case, against: Sequence[str], seconds: float) -> Prepared:
    engine = _engine(case.model, tuple(case.options.items()))
    contenders: dict[str, Callable[[], Any]] = {OURS: partial(engine.run, case.batch, seed=0)}
    scales = {}
    if EAGER in against:
        contenders[EAGER], images, share = sampling_rates.rival(ROWS, case, engine, seconds)
        scales[EAGER] = case.batch / (images * share)
    missing = {name: "a loop of draws is not compiled" for name in against if name != EAGER}

    def check() -> matching.Match:
        difference = sampling_rates.difference(engine)
        return matching.Match(difference < sampling_rates.ALLOWED, difference)

    flops = case.batch * sampling_rates.flops(engine.program)
    return Prepared(contenders, scales, missing, case.batch, check, lambda: (flops, 0))
