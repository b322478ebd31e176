"""The training loop: batches, averaged weights, interruption, and a checkpoint of the whole state."""

from __future__ import annotations

import copy
import re
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from genfast._config import from_json
from genfast._native.checks import wide
from genfast._tensors import Kind
from genfast._text import shown
from genfast.data import ImageData, PairData
from genfast.engine.wrappers import unwrapped
from genfast.train.checkpoint import (
    Tensors,
    checkpoint_bytes,
    checkpoint_path,
    copy_into,
    open_checkpoint,
    prefixed,
    read_tensors,
    save_checkpoint,
    unprefixed,
)
from genfast.train.config import RunConfig, rounds_of, steps_per_epoch
from genfast.train.inputs import inputs, training_data
from genfast.train.memory import keep_freed_memory
from genfast.train.metrics_log import MetricsLog
from genfast.train.restore import (
    TrainState,
    check_finite,
    check_moments,
    check_reach,
    idle_parameters,
    moment_kinds,
)
from genfast.train.run_folder import begin_run
from genfast.train.signals import stop_signals

Data = ImageData | PairData
Progress = Callable[[dict[str, Any]], object]


@dataclass
class RunResult:
    """What a training returns.

    Attributes:
        step, steps: the last step, and how many there are.
        reason: why the call ended: "finished", "interrupted" or "minutes".
    """

    step: int
    steps: int
    reason: str


def run_training(
    kind: Callable[..., Loop],
    model: Any,
    train: Any,
    valid: Any,
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool,
    minutes: float | None,
    progress: Progress | None,
    settings: dict[str, Any] | None = None,
) -> Any:
    """Run a `Loop` of class `kind` in `out`, which `run_writer` holds. The random state of torch does not change.

    `settings`: the content of RUN/config.json; None: it is not written.
    """
    model = _of_one_process(model)
    train, valid = training_data("fit", model, train, valid)
    keep_freed_memory()
    device = pick_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = kind(model.to(device), train, valid, config, Path(out), progress)
        if resume:
            run.restore()
        else:
            begin_run(run.out, settings, checkpoint_bytes(run.tensors(), run.state()))
        run.prepare()
        return run.run(minutes)


def _of_one_process(model: Any) -> Any:
    """The model without torch's wrappers. ValueError for one that is spread over processes."""
    spread = isinstance(model, nn.Module) and any(
        isinstance(m, nn.parallel.DistributedDataParallel) for m in model.modules()
    )
    if spread and (processes := torch.distributed.get_world_size()) > 1:
        raise ValueError(f"fit: model must be trained by one process; got a DistributedDataParallel over {processes}")
    return unwrapped(model)


def folder_of_run(call: str, out: str | Path | None) -> str | Path:
    """`out`. ValueError if there is none."""
    if out is None:
        raise ValueError(f"{call}: out must be a folder for the run; got None")
    return out


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one. Raises: ValueError; RuntimeError for a missing device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"device: expected auto, cpu or cuda; got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"device: expected a device of this machine; got {name}, which it has not")
    return device


class Loop(ABC):
    """The whole state of a training run, which `save` and `restore` write and read.

    A subclass sets `optimizers` (by their prefix in the checkpoint), `averages` and the `averaged_parameters` that they
    follow, and defines the abstract methods. State of its own it adds to `tensors` and `state`, and restores in `load`,
    which checks those tensors whose names begin with one of `own_checks`: their shapes are not known beforehand.
    """

    own_checks: ClassVar[tuple[str, ...]] = ()
    averages: list[Tensor]
    averaged_parameters: list[Tensor]

    @property
    def has_model(self) -> bool:
        """Whether RUN/model stays unchanged when the run is interrupted."""
        return False

    @abstractmethod
    def update(self) -> None:
        """One step; it ends with `advance`."""

    @abstractmethod
    def after_update(self, last: bool) -> None:
        """Log, evaluate and save, if due; `last`: whether this was the last step of the run."""

    @abstractmethod
    def check_finite(self) -> None:
        """FloatingPointError if a loss or a gradient is not finite."""

    @abstractmethod
    def save_model(self) -> None:
        """Write RUN/model."""

    @abstractmethod
    def result(self, reason: str) -> RunResult:
        """The result of the run."""

    def __init__(
        self, model: Any, train: Data, valid: Data, config: RunConfig, out: Path, progress: Progress | None
    ) -> None:
        self.model, self.config, self.out = model.train(), config, Path(out)
        self.device = next(model.parameters()).device
        check_images(train, valid)
        self.train, self.valid = inputs(model, train), inputs(model, valid)
        self.fingerprint = [_fingerprint(self.train), _fingerprint(self.valid)]
        self.images = len(train)
        self.steps = config.total_steps(self.images, rounds_of(model))
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        if wide(next(model.parameters()).dtype) != next(model.parameters()).dtype:
            self.averaged.float()  # an average with a decay of 0.999 stands still in a half type
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.log = MetricsLog(self.out / "metrics.jsonl", progress)
        # Steps since the last record, and those of them in this process.
        self.step, self.counted, self.timed = 0, 0, 0
        # Seconds of training until `mark`, a time of this process, and until the end of the last step.
        self.seconds, self.mark, self.trained = 0.0, 0.0, 0.0
        self.epoch = -1  # of `order`; none yet
        self.order = torch.zeros(0, dtype=torch.int64, device=self.device)
        # Of the present step, for the diagnosis of one that fails.
        self.batch: tuple[Tensor, ...] = ()
        self.random: Tensor | None = None

    def prepare(self) -> None:  # noqa: B027  most need nothing
        """What a loop writes to RUN before its first step, once RUN is this run's."""

    def run(self, minutes: float | None) -> RunResult:
        """Train until the end of the run, a signal, or the end of so many minutes.

        A signal and the minutes stop this call alone, and leave no trace in the run: nothing is logged or evaluated for
        them.
        """
        reason, over = "finished", self.is_over()
        started = self.mark = time.perf_counter()
        with stop_signals() as stop:
            while not over and reason == "finished":
                self.update()
                now = time.perf_counter()
                self.trained = self.seconds + now - self.mark
                over = self.is_over()
                if stop.is_set() and not over:
                    reason = "interrupted"
                elif minutes is not None and now - started >= 60 * minutes and not over:
                    reason = "minutes"
                self.after_update(last=over)
            if reason != "finished" and not self.has_model:
                self.save_model()
            self.save()
        if over:
            self.steps = self.step
        return self.result(reason)

    def is_over(self) -> bool:
        """Whether the last step is done, or the budget of minutes is spent."""
        return self.step >= self.steps or 0 < 60 * self.config.budget <= self.trained

    @property
    def planned(self) -> int:
        """The number of steps that the learning rate assumes: `steps`, or what the budget allows at the mean speed
        until now."""
        share = self.trained / (60 * self.config.budget) if self.config.budget else 0.0
        return min(self.steps, max(self.step + 1, round(self.step / share))) if share else self.steps

    def is_due(self, every: int, last: bool) -> bool:
        """Whether what is done every so many steps, and at the end, is done after this step."""
        return last or self.step % every == 0

    def precision(self) -> torch.autocast:
        """The context of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def batch_number(self, number: int) -> tuple[Tensor, ...]:
        """Batch `number` since the start: the tensors of `inputs`, which are the arguments of the losses."""
        size, per_epoch = self.config.batch, steps_per_epoch(self.images, self.config.batch)
        epoch, index = divmod(number, per_epoch)
        if epoch != self.epoch:
            # It depends on (seed, epoch) alone, so that a checkpoint need not hold it.
            order = np.random.RandomState([self.config.seed, epoch]).permutation(self.images)
            self.epoch, self.order = epoch, torch.from_numpy(order).to(self.device)
        rows = self.order[index * size : (index + 1) * size]
        return tuple(tensor.index_select(0, rows) for tensor in self.train)

    def advance(self) -> None:
        """Count the step, and update the moving average of the weights: the end of every `update`."""
        self.step, self.counted, self.timed = self.step + 1, self.counted + 1, self.timed + 1
        decay, parameters = min(self.config.ema, self.step / (self.step + 9)), self.averaged_parameters
        if parameters[0].dtype != self.averages[0].dtype:
            parameters = [parameter.to(self.averages[0].dtype) for parameter in parameters]
        with torch.no_grad():  # otherwise the averages would keep the graph of the whole run
            torch._foreach_lerp_(self.averages, parameters, 1 - decay)

    def count(self, images: int) -> dict[str, Any]:
        """The fields of a record for progress and speed; `images`: those of each step."""
        now = time.perf_counter()
        self.seconds += now - self.mark
        record = {
            "step": self.step,
            "images": self.step * images,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.timed * images / max(now - self.mark, 1e-9), 1),
        }
        self.counted, self.timed, self.mark = 0, 0, now
        return record

    def copy_buffers(self) -> None:
        """Copy the buffers to the averaged model: what a model updates itself, such as a codebook, is not averaged."""
        for copied, buffer in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)

    def tensors(self) -> Tensors:
        """The tensors of the checkpoint, by name."""
        tensors = prefixed("model", self.model.state_dict())
        tensors |= prefixed("averaged", self.averaged.state_dict())
        for prefix, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= prefixed(f"{prefix}.{index}", values)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def state(self) -> dict[str, Any]:
        """The rest of the checkpoint, as JSON values."""
        return {
            "step": self.step,
            "counted": self.counted,
            "seconds": self.trained,
            "train": self.config.to_dict(),
            "images": self.fingerprint,
            "idle": idle_parameters(self.optimizers) if self.step else [],
        }

    def save(self) -> None:
        """Write the checkpoint."""
        self.check_finite()
        self.log.sync()
        save_checkpoint(self.out, self.tensors(), self.state())

    def restore(self) -> None:
        """Read the checkpoint. ValueError for other settings or images, and for what no run like this one has saved."""
        with open_checkpoint(self.out) as (file, values):
            path = shown(file.path)
            state = from_json(TrainState, values, path)
            # Settings that are newer than the run have their default.
            settings = from_json(type(self.config), state.train, path)
            for what, saved, given in (
                ("settings", _as_long(settings.to_dict(), self.config.to_dict()), self.config.to_dict()),
                ("training and validation images", state.images, self.fingerprint),
            ):
                if saved != given:
                    raise ValueError(f"{path}: expected the same {what} to resume; got {_changes(saved, given)}")
            own = {name: kind for name, kind in file.kinds.items() if name.startswith(self.own_checks)}
            file.check(self.kinds(state, file.kinds), {**own, "rng.cuda": Kind((16,), torch.uint8)})
            tensors = read_tensors(file)
        try:
            check_reach(state, self.steps, self.train[0][0].numel())
            for name, tensor in tensors.items():
                if name not in own:
                    check_finite(name, tensor)
                    check_moments(name, tensor, state.step * rounds_of(self.model))
            self.load(tensors, state)
        except (ValueError, RuntimeError) as error:  # RuntimeError: a state of a generator that torch refuses
            raise ValueError(f"{path}: expected a checkpoint of this run; got {shown(error)}") from None
        self.log.forget_after(self.step)

    def kinds(self, state: TrainState, there: Iterable[str]) -> dict[str, Kind]:
        """Shapes and dtypes of the tensors of a checkpoint, but for those of `own_checks`; `there`: those it has."""
        kinds = {name: Kind.of(tensor) for name, tensor in self.tensors().items()}
        kinds = {name: kind for name, kind in kinds.items() if not name.startswith((*self.own_checks, "rng.cuda"))}
        return kinds | moment_kinds(self.optimizers, state, there)

    def load(self, tensors: Tensors, state: TrainState) -> None:
        """Restore what `tensors` and `state` returned. ValueError for tensors of `own_checks` that cannot be."""
        path = str(checkpoint_path(self.out))
        copy_into(self.model, unprefixed("model", tensors), path)
        copy_into(self.averaged, unprefixed("averaged", tensors), path)
        for prefix, optimizer in self.optimizers.items():
            moments: dict[int, Tensors] = {}
            for name, tensor in unprefixed(prefix, tensors).items():
                index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step, self.counted, self.seconds = state.step, state.counted, state.seconds
        self.trained = self.seconds


def of_cpu_time(kind: type[Loop]) -> type[Loop]:
    """A loop whose budget is of time of the CPU, of all threads together, from its first step on."""

    class OfCPUTime(kind):  # type: ignore[valid-type, misc]
        began: float | None = None

        def update(self) -> None:
            self.began = time.process_time() if self.began is None else self.began
            super().update()

        def is_over(self) -> bool:
            self.trained = time.process_time() - self.began if self.began is not None else 0.0
            return super().is_over()

    return OfCPUTime


def check_images(train: Data, valid: Data) -> None:
    """ValueError for images that are no levels, or training and validation images of different shape or levels."""
    for data in (train, valid):
        if data.images.dtype != torch.uint8 or data.images.ndim != 4 or len(data.images) == 0:
            got = f"{data.images.dtype} {tuple(data.images.shape)}"
            raise ValueError(f"{data.name}: expected uint8 images [N, C, H, W] with N at least 1; got {got}")
    if train.images.shape[1:] != valid.images.shape[1:] or train.levels != valid.levels:
        one, other = ((tuple(d.images.shape[1:]), d.levels) for d in (train, valid))
        raise ValueError(f"train, valid: expected the same shape and levels; got {one} and {other}")


def saved_state(out: str | Path) -> TrainState:
    """What the last checkpoint of a run holds beside tensors."""
    with open_checkpoint(out) as (file, values):
        return from_json(TrainState, values, shown(file.path))


def check_same_images(out: str | Path, model: Any, train: Data, valid: Data) -> None:
    """ValueError for data that are not those of the run in `out`."""
    saved = saved_state(out).images
    given = [_fingerprint(inputs(model, data)) for data in (train, valid)]
    if saved != given:
        expected = "the same training and validation images to resume"
        raise ValueError(f"{checkpoint_path(out)}: expected {expected}; got {_changes(saved, given)}")


def _as_long(saved: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that goes on for longer: its `steps`, or the `epochs` of one that counts them."""
    name = "epochs" if saved["epochs"] else "steps"
    return saved | {name: max(saved[name], given[name])}


def _fingerprint(parts: Sequence[Tensor]) -> str:
    sums = (f"{tuple(part.shape)} crc32 {zlib.crc32(part.cpu().contiguous().numpy().data):08x}" for part in parts)
    return ", labels ".join(sums)


def _changes(saved: Any, given: Any) -> str:
    if not isinstance(saved, dict):
        return f"{given} instead of {shown(saved, 100)}"
    return ", ".join(f"{k} {given[k]} instead of {shown(saved.get(k), 100)}" for k in given if saved.get(k) != given[k])
