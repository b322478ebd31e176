"""The training of one model of a comparison, within a budget of time of the CPU."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genfast.train.comparison.families import Recipe
from genfast.train.presets import preset
from genfast.train.run_data import Tell, silent
from genfast.train.start import start

PRIOR = "gated-pixelcnn"


@dataclass(frozen=True)
class Cost:
    """What a training took.

    Attributes:
        minutes: of time of the CPU, of all threads together.
        steps: updates; of a VQ-VAE those of its prior are added.
        memory: bytes of this process at the peak of the training; None where the system does not say.
    """

    minutes: float
    steps: int
    memory: int | None


def train_model(
    recipe: Recipe,
    source: dict[str, Any],
    out: Path,
    *,
    minutes: float,
    seed: int,
    overwrite: bool = False,
    bar: Callable[..., Any],
    tell: Tell = silent,
) -> Cost:
    """Train a model of a family in the run folder `out` for so many minutes of time of the CPU.

    A VQ-VAE has half of them, and its prior, in `out`/prior, the other half.

    Raises: as `start`; KeyboardInterrupt if a signal ends a training, after its checkpoint.
    """
    codes = recipe.family.kind == "codes"
    _forget_peak()
    began, steps = time.process_time(), 0
    shared: Any = {"overwrite": overwrite, "of_cpu": True, "bar": bar, "tell": tell}
    of_training = recipe.train_options | {"seed": seed, "budget": minutes / (2 if codes else 1)}
    steps += _finished(
        out,
        model=recipe.family.model,
        model_options=recipe.model_options,
        train_options=of_training,
        data_options=source,
        conditional=recipe.conditional,
        **shared,
    )
    if codes:
        base = preset(PRIOR, "codes")
        lasts = {"steps": recipe.train_options["steps"], "device": "cpu", "seed": seed, "budget": minutes / 2}
        steps += _finished(
            out / "prior",
            model=PRIOR,
            model_options=dict(base.model),
            train_options=base.train | lasts,
            data_options=dict.fromkeys(source) | {"data": f"codes:{out}"},
            **shared,
        )
    return Cost((time.process_time() - began) / 60, steps, _peak())


def _finished(out: Path, **settings: Any) -> int:
    """The updates of a training. Raises: KeyboardInterrupt for one that a signal ended, after its checkpoint."""
    result = start(out, **settings)
    if result.reason != "finished":
        raise KeyboardInterrupt
    return result.step


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    """The largest resident memory of this process since `_forget_peak`, in bytes."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return 1024 * int(found[1]) if found else None
    return None
