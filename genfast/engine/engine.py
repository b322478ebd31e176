"""A model and the backend that samples from it."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from genfast._native import backends
from genfast.engine import cpp, eager, full_forward
from genfast.engine.arguments import check_images, check_labels
from genfast.engine.compiler import NotCausal, NotIncremental, compile_program
from genfast.engine.compiler.proof import check_causal, check_outputs
from genfast.engine.conventions import Conventions
from genfast.engine.program import Drawn, Program
from genfast.engine.request import SampleRequest, check_request
from genfast.engine.wrappers import unwrapped

# Of a batch, in a row of images; of a full forward in all rows.
MOST_PARAMETERS = 2**28
BACKENDS = ("cpp", "triton", "torch", "full_forward")
# For each model and its options: the weights, the program compiled from them, or the reason why there is none.
_PROGRAMS: WeakKeyDictionary[nn.Module, dict[Any, dict[str, Any]]] = WeakKeyDictionary()
# Tracing a model changes global state of torch.
_LOCK = threading.RLock()


class Engine:
    """Samples images from an autoregressive model, computing every pixel once.

    Args:
        model: a model of `genfast.models`, or another `torch.nn.Module` that maps images [B, C, H, W] to the
            parameters of all conditionals, [B, P, H, W] or [B, C, L, H, W].
        backend: "cpp" (CPU), "triton" (CUDA), "torch" (step by step, any device), "full_forward" (a full forward for
            each draw), or "auto": the first that serves the model.
        shape: (C, H, W) of the images; this and the next three are for a model that is none of `genfast.models`.
        levels: values of a channel, 2 to 65536; images are uint8 up to 256 of them, else int32.
        input_range: the inputs for the lowest and the highest level; (0, 1) if not given.
        head: how the output is read, "bernoulli", "categorical", "categorical-levels-first" or "mixture", see
            `genfast.engine.compiler.compile_program`; None: as its shape implies.
    Raises: RuntimeError for a backend that cannot serve this model, with the reason; ValueError for an option that
        does not fit the model, or a weight that is not finite.

    The model may be trained further. A new engine, and so every `genfast.sample`, compares all weights with those that
    the program was compiled from. An engine that is kept notices only changes that torch records, assignments and
    in-place operations, but not a change through `.data` or a step of a fused optimizer. No engine notices a change of
    anything but weights, such as a Python number that forward reads.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        backend: str = "auto",
        shape: Sequence[int] | None = None,
        levels: int | None = None,
        input_range: Sequence[float] | None = None,
        head: str | None = None,
    ) -> None:
        model = unwrapped(model)
        if not isinstance(model, nn.Module):
            raise TypeError(f"sample: model must be a torch.nn.Module; got {type(model).__name__}")
        if backend not in ("auto", *BACKENDS):
            raise ValueError(f"sample: backend must be one of auto, {', '.join(BACKENDS)}; got {backend!r}")
        if shape is not None and not isinstance(shape, (tuple, list)):
            raise TypeError(f"sample: shape must be (channels, height, width); got {shape!r}")
        if input_range is not None:
            numbers = isinstance(input_range, (tuple, list)) and [v for v in input_range if isinstance(v, (int, float))]
            if not numbers or len(numbers) != 2 or len(input_range) != 2:
                raise TypeError(f"sample: input_range must be two different numbers; got {input_range!r}")
        shape = shape if shape is None else tuple(shape)
        input_range = input_range if input_range is None else tuple(float(value) for value in input_range)
        self.model, self.asked = model, backend
        self._options: Conventions = {"shape": shape, "levels": levels, "input_range": input_range, "head": head}
        self._key = tuple(self._options.values())
        self._seen: tuple[Any, Any] = None, None
        self._current(thorough=True)

    @property
    def network(self) -> full_forward.FullForward:
        """The `FullForward` of the model as it is now."""
        return self._current()[1]

    @property
    def backend(self) -> str:
        """The name of the backend that runs the model as it is now."""
        return self._choose(*self._current())

    @property
    def explanation(self) -> backends.Explanation:
        """The backend that runs the model, and why not each of the others."""
        (now, network), others = self._current(), {}
        selected = self._choose(now, network)
        for name in BACKENDS:
            if name != selected:
                reason = self._refusal(name, now, network)
                others[name] = reason or f"could serve, but {selected} was asked for or comes first"
        return backends.Explanation("sample", selected, others)

    @property
    def program(self) -> Program:
        """The `Program` of the model as it is now.

        Raises: NotIncremental where it has none.
        """
        program = self._compiled(*self._current())
        if isinstance(program, str):
            raise NotIncremental(program)
        return program

    @property
    def batch_size(self) -> int:
        """Images to draw in one call: few enough for little memory and for calls of one or two seconds."""
        backend, network = self.backend, self.network
        row = network.spec.width * network.likelihood.parameters
        if backend == "full_forward":
            return max(1, min(64, MOST_PARAMETERS // (row * network.spec.height)))
        if backend == "triton" or network.device.type == "cuda":
            return max(1, min(1024, MOST_PARAMETERS // row))
        if backend == "torch":
            return max(1, min(256, MOST_PARAMETERS // row))
        return max(32, min(4096, 20_000_000_000 // work(self.program) // 32 * 32))

    def run(
        self,
        n: int,
        *,
        seed: int,
        first: int = 0,
        temperature: float = 1.0,
        labels: int | Tensor | None = None,
        given: Tensor | None = None,
        known: Tensor | None = None,
        evidence: Tensor | None = None,
        draw: int = 0,
        want: Sequence[str] = (),
    ) -> Drawn:
        """Draw n images in one call; memory grows with n.

        Args:
            seed, first, draw: value `element` of image b is drawn with `uniform(seed, first + b, element, draw)`, where
                element = (row * W + column) * C + channel; a mixture uses the numbers 2 draw and 2 draw + 1.
            temperature: divides the logits; a mixture's scales are multiplied by it.
            labels: integers [n], or one int, of a conditional model.
            given, known: integers and bool [n or 1, C, H, W]: where known, the level is taken from `given`, not drawn.
            evidence: float32 [n, C, H, W, L], log-likelihood of an observation given each level; not for a mixture.
                Level l is drawn with weight p(l) exp(evidence[l]).
            want: names among "log_probs", "log_evidence" (needs evidence) and "parameters".
        Returns: `Drawn`, on the device of the model.
        Raises: TypeError or ValueError for an argument that does not fit.
        """
        now, network = self._current()
        request = check_request(
            "sample",
            network.spec,
            network.likelihood,
            network.device,
            n,
            seed=seed,
            first=first,
            temperature=temperature,
            labels=labels,
            given=given,
            known=known,
            evidence=evidence,
            draw=draw,
            want=want,
        )
        return self._execute(now, network, request)

    def log_prob(self, images: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Log-probability of each image in nats: levels, of any integer dtype, [n, C, H, W] -> float64 [n].

        It is computed from the same parameters as the samples of this backend. Raises: as `run`.
        """
        network = self.network
        images = check_images("log_prob", "images", images, network.spec)
        labels = check_labels("log_prob", labels, network.spec, len(images), network.device)
        known = torch.ones(1, *network.spec.shape, dtype=torch.bool, device="cpu").expand(len(images), -1, -1, -1)
        whole = SampleRequest(len(images), labels=labels, given=images, known=known, want=("log_probs",))
        parts, size = [images.new_zeros(0, dtype=torch.float64, device=network.device)], self.batch_size
        for start in range(0, len(images), size):
            drawn = self.execute(whole.part(start, min(start + size, len(images))))
            parts.append(drawn.log_probs.flatten(1).sum(1))
        total = torch.cat(parts)
        if bad := int(total.isnan().sum()):
            raise ValueError(
                f"log_prob: the model must return finite numbers; got NaN for {bad} of {len(total)} images"
            )
        return total

    def execute(self, request: SampleRequest) -> Drawn:
        """`run` for a request, which is not checked again."""
        return self._execute(*self._current(), request)

    def _execute(self, now: dict[str, Any], network: full_forward.FullForward, request: SampleRequest) -> Drawn:
        backend, device = self._choose(now, network), network.device
        if backend == "full_forward":
            return full_forward.run(network, request)
        program = self._compiled(now, network)
        assert isinstance(program, Program)  # or `_choose` had refused the backend
        run = {"cpp": cpp.run, "torch": eager.run}.get(backend) or backends.launcher("pixel_program", "pixel_program")
        drawn: Drawn = run(program, request.to(device), device)
        return drawn

    def _choose(self, now: dict[str, Any], network: full_forward.FullForward) -> str:
        """The name of the backend for the state `now` of the model."""
        selected: dict[str, str] = now["backends"]
        if self.asked not in selected:
            name = self.asked if self.asked == "full_forward" else self._first_able(now, network)
            if name == "full_forward" and network.reading:
                with torch.no_grad(), full_forward.evaluating(self.model):
                    check_causal(network)
            if network.reading is None:  # otherwise the proof of the program, or that it is causal, has looked
                with torch.no_grad(), full_forward.evaluating(self.model):
                    check_outputs(network)
            selected[self.asked] = name
        return selected[self.asked]

    def _first_able(self, now: dict[str, Any], network: full_forward.FullForward) -> str:
        """The backend that was asked for, or for "auto" the first that serves; a slow one with a warning."""
        reasons = {name: self._refusal(name, now, network) for name in BACKENDS}
        able = [name for name, reason in reasons.items() if reason is None]
        if self.asked not in ("auto", *able):
            raise RuntimeError(
                f"sample: backend must be able to serve this model; got {self.asked!r} ({reasons[self.asked]}); "
                f"can serve: {', '.join(able)}"
            )
        if self.asked == "auto" and able[0] == "full_forward":
            _warn(f"sample: every value runs the whole network: {reasons['torch']}")
        return able[0] if self.asked == "auto" else self.asked

    def _refusal(self, name: str, now: dict[str, Any], network: full_forward.FullForward) -> str | None:
        """The reason why a backend cannot serve the model, or None if it can."""
        if name == "full_forward":
            return None
        device, dtype = network.device, network.dtype
        if dtype == torch.float64:
            return "computes in float32, and the model has the dtype float64"
        if name == "cpp" and not (row := backends.backends()["cpp"]).available:
            return row.reason
        if name == "cpp" and device.type != "cpu":
            return f"needs a model on the CPU, not one on {device}"
        if name == "triton" and not (row := backends.backends()["triton"]).available:
            return row.reason
        if name == "triton" and device.type != "cuda":
            return f"needs a model on a CUDA device, not one on {device}"
        if network.likelihood.case is None:
            return f"{type(self.model).__name__} draws in its own way"
        program = self._compiled(now, network)
        return program if isinstance(program, str) else None

    def _current(self, thorough: bool = False) -> tuple[dict[str, Any], full_forward.FullForward]:
        """The cache for the present weights of the model, which are checked to be finite; and its `FullForward`."""
        weights, kept = _weights(self.model), _PROGRAMS.setdefault(self.model, {})
        now = kept.get(self._key)
        if now is None or now["weights"] != weights or thorough and not _equal(now["values"], self.model):
            with _LOCK:
                kept.pop(self._key, None)
                check_finite(self.model)
                values = [value.detach().clone() for value in _tensors(self.model)]
                now = kept[self._key] = {"weights": weights, "values": values, "backends": {}}
        if self._seen[0] is not now:
            with _LOCK:
                self._seen = now, full_forward.FullForward(self.model, **self._options)
        return self._seen

    def _compiled(self, now: dict[str, Any], network: full_forward.FullForward) -> Program | str:
        """The program, or the reason why there is none."""
        with _LOCK:
            if "program" not in now:
                options = self._options.copy()
                if network.reading:
                    options["head"] = network.reading.head
                try:
                    with torch.no_grad(), full_forward.evaluating(self.model):
                        now["program"] = compile_program(self.model, **options)
                except NotCausal:
                    raise  # no backend can draw from it
                except NotIncremental as error:
                    now["program"] = str(error)
            return now["program"]


def work(program: Program) -> int:
    """Multiplications per image."""
    total = 0
    for it in [*program.row, *(it for part in program.pixel for it in part)]:
        if it.kind == "linear":
            total += it.weight.size * program.spec.height * program.columns // (it.row_modulus * it.column_modulus)
    return max(1, total)


def check_finite(model: Any, call: str = "sample") -> None:
    """ValueError for a weight of the model that is not finite."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and (bad := int((~value.detach().isfinite()).sum())):
            raise ValueError(f"{call}: {name} must be finite; got {bad} values that are not")


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer."""
    modules = [model]
    while modules:  # `modules()` takes a tenth of the time of a small image, at every call of an engine
        module = modules.pop()
        for group in (module._parameters, module._buffers):
            yield from (value for value in group.values() if value is not None)
        modules += [child for child in module._modules.values() if child is not None]


def _weights(model: nn.Module) -> list[tuple[Any, ...]]:
    """A fingerprint that changes when torch changes a parameter or buffer."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in _tensors(model)]


def _equal(values: list[Tensor], model: nn.Module) -> bool:
    tensors = list(_tensors(model))
    return len(tensors) == len(values) and all(map(torch.equal, values, tensors))


def _warn(message: str) -> None:
    """A RuntimeWarning that names the line of the user's code, however deep in genfast it comes up."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "genfast":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)
