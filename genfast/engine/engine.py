"""A model and the backend that samples from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from genfast._native import backends
from genfast.engine import cpp, eager, full_forward, window
from genfast.engine.arguments import check_images, check_int, check_labels
from genfast.engine.calling import at_work, not_finite
from genfast.engine.compiled import Compiled
from genfast.engine.compiler import NotCausal, NotIncremental, chosen, compile_traced, inferred, shown, trace_model
from genfast.engine.compiler.proof import check_causal, check_outputs, check_repeatable, labels_matter
from genfast.engine.compiler.trace import Trace
from genfast.engine.conventions import OF_FLOATS, Conventions, conventions_of, refuse_conventions
from genfast.engine.predicts import predicting
from genfast.engine.program import Drawn, Program
from genfast.engine.protocols import Autoregressive, ImageSpec, Sequential
from genfast.engine.request import SampleRequest, check_request
from genfast.engine.sequences import Sequences
from genfast.engine.unchecked import UncheckedModel, needs_pointing, warn
from genfast.engine.wrappers import unwrapped
from genfast.likelihoods import Reading

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from genfast.engine.conventions import Keywords

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
        model: a model of `genfast.models`, or another autoregressive `torch.nn.Module`, described by the keywords.
        backend: "cpp" (CPU), "triton" (CUDA), "torch" (step by step, any device), "full_forward" (a full forward for
            each draw), or "auto": the first that serves the model.
        shape: (C, H, W) of the images. This and all below are for a model that is none of `genfast.models`.
        levels: values of a channel, 2 to 65536.
        inputs: what forward takes: "images", floats [B, C, H, W] (the default); "flat", the same as [B, C * H * W];
            "levels", integers [B, C, H, W]; "flat-levels", the same as [B, C * H * W]; "codes", integers [B, H, W] of
            images of one channel.
        input_range: the inputs for the lowest and the highest level, such as (-1, 1). It must be given, unless forward
            shows it by what it does with floats first, such as `x / 255` or `2 * x - 1`.
        head: what the outputs are: "bernoulli" (the logit of level 1), "categorical" or "categorical-levels-first"
            (logits of all levels), "probabilities", "log-probabilities", or the parameters of a mixture of logistics,
            "mixture" (the order of `genfast.ops.logistic_mixture_nll`), "mixture-per-channel" (that of PixelCNN++) or
            "mixture-interleaved"; None: logits, as the shape implies.
        output: how the outputs are laid out, such as "B H W L" or "0: B L (H W)", see `genfast.likelihoods.layout`;
            None: in the only way that fits the shape.
        classes: number of labels, for a `forward(x, labels)` with labels int64 [B].
        condition: further keyword arguments of forward that are known before drawing: name -> tensor [n, ...], row i
            for the image of index i, or [1, ...] for all.
        length: T of a model of sequences, which are then [n, T]; also of one of `genfast.models`.
        vocabulary: V, the number of symbols of another, with a length in place of shape and levels: forward takes
            integers [B, T] and returns logits [B, T, V] or [B, V, T]; `output` is of the letters B, T, V. `inputs` may
            also be "one-hot", floats [B, V, T], "one-hot-last", floats [B, T, V], or "values", floats [B, 1, T] in
            input_range.
        predicts: whether the output at t gives the distribution of symbol t, "own", or of t + 1, "next"; None: it is
            found by changing symbols.
        start: for "next", the symbol before the first, which forward is given first; None: the first symbol is given.
        pixel_order: the H * W pixels, or all C * H * W values, in the order in which they are drawn, as integers in
            raster order with channels last; None: raster order.
    Raises: RuntimeError for a backend that cannot serve this model, with the reason; TypeError or ValueError for an
        option that does not fit the model, or a weight that is not finite.

    The model may be trained further. A new engine, and so every `genfast.sample`, compares all weights with those that
    the program was compiled from. An engine that is kept notices only changes that torch records, assignments and
    in-place operations, but not a change through `.data` or a step of a fused optimizer. No engine notices a change of
    anything but weights, such as a Python number that forward reads.
    """

    def __init__(self, model: nn.Module, *, backend: str = "auto", **keywords: Unpack[Keywords]) -> None:
        model = unwrapped(model)
        if not isinstance(model, nn.Module):
            raise TypeError(f"sample: model must be a torch.nn.Module; got {type(model).__name__}")
        if backend not in ("auto", *BACKENDS):
            raise ValueError(f"sample: backend must be one of auto, {', '.join(BACKENDS)}; got {backend!r}")
        self.model, self.asked = model, backend
        self.conventions: Conventions | None = None
        self.sequences: Sequences | None = None
        length = keywords.get("length")
        if length is not None and isinstance(model, Sequential):
            check_int("sample", "length", length, 1)
            self.model = model = model.of_length(length)  # type: ignore[assignment]  # a module, as the model is
            self.sequences = Sequences(length, model.spec.levels, predicts="own")
            keywords = {**keywords, "length": None}
        if isinstance(model, Autoregressive):
            refuse_conventions(type(model).__name__, keywords=keywords)
        else:
            self.conventions = conventions_of("sample", model, keywords)
            if self.conventions.sequences is not None:
                check_finite(model)
                self.conventions = predicting(model, self.conventions)
                self.sequences = self.conventions.sequences
        self._key = None if self.conventions is None else self.conventions.key
        self._seen: tuple[Any, Any] = None, None
        self._current(thorough=True)
        if self.conventions is not None and needs_pointing(model, self._key):
            check = f"genfast.check(model, images, nll, ...) compares these conventions of {type(model).__name__}"
            warn(f"sample: {check} with your own loss, which has not been done", UncheckedModel)

    @classmethod
    def of(cls, model: nn.Module | Engine, *, backend: str = "auto", **keywords: Unpack[Keywords]) -> Engine:
        """The engine of a model; an engine as it is, with ValueError for a backend or keyword beside it."""
        if not isinstance(model, Engine):
            return cls(model, backend=backend, **keywords)
        refuse_beside_engine(backend, keywords)
        return model

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
        compiled = self._compiled(*self._current())
        if isinstance(compiled, str):
            raise NotIncremental(f"sample: {compiled}")
        return compiled.program

    def prepared(self) -> tuple[str, Compiled | str, full_forward.FullForward]:
        """The backend, the program or the reason why there is none, and the network, of the model as it is now."""
        now, network = self._current()
        return self._choose(now, network), self._compiled(now, network), network

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
            delay=network.delay,
        )
        return self._execute(now, network, request)

    def log_prob(self, images: Tensor, labels: int | Tensor | None = None) -> Tensor:
        """Log-probability of each image in nats: levels, of any integer dtype, [n, C, H, W] -> float64 [n].

        It is computed from the same parameters as the samples of this backend. Of a model of the next symbol without a
        start symbol the first symbol is not counted. Raises: as `run`.
        """
        network = self.network
        images = check_images("log_prob", "images", images, network.spec)
        labels = check_labels("log_prob", labels, network.spec, len(images), network.device)
        known = torch.ones(1, *network.spec.shape, dtype=torch.bool, device="cpu").expand(len(images), -1, -1, -1)
        whole = SampleRequest(len(images), labels=labels, given=images, known=known, want=("log_probs",))
        parts, size = [images.new_zeros(0, dtype=torch.float64, device=network.device)], self.batch_size
        for start in range(0, len(images), size):
            drawn = self.execute(whole.part(start, min(start + size, len(images))))
            parts.append(drawn.log_probs.flatten(1)[:, network.delay :].sum(1))
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
        compiled = self._compiled(now, network)
        assert isinstance(compiled, Compiled)  # or `_choose` had refused the backend
        native = cpp.run if self.sequences is None else window.drawn
        run = {"cpp": native, "torch": eager.run}.get(backend) or backends.launcher("pixel_program", "pixel_program")
        return compiled.run(run, request.to(device), device, network.condition(request.first, request.n))

    def _choose(self, now: dict[str, Any], network: full_forward.FullForward) -> str:
        """The name of the backend for the state `now` of the model."""
        selected: dict[str, str] = now["backends"]
        if self.asked not in selected:
            name = self.asked if self.asked == "full_forward" else self._first_able(now, network)
            if network.looks_like_probabilities:  # the graph may show what they are
                compiled = self._compiled(now, network)
                if isinstance(compiled, str) or not compiled.are_logits:
                    network.refuse_probabilities()
            with torch.no_grad(), at_work(network.model):
                if name == "full_forward" and network.reading:
                    check_repeatable(network)
                    self._check_causal(now, network)
                if network.reading is None:  # otherwise the proof of the program, or that it is causal, has looked
                    check_outputs(network)
                if network.reading and network.spec.classes > 1 and not labels_matter(network):
                    warn(
                        "sample: the outputs of the model should depend on the labels; got the same for any: does "
                        "forward read them under another name? Then give condition={name: labels} in place of classes"
                    )
            self._compare_range(now, network)
            selected[self.asked] = name
        return selected[self.asked]

    def _check_causal(self, now: dict[str, Any], network: full_forward.FullForward) -> None:
        """NotCausal for a model that is not, with what could not be read in its graph."""
        try:
            check_causal(network)
        except NotCausal as error:
            compiled = now.get("program")
            reason = f"; {compiled}" if isinstance(compiled, str) else ""
            raise NotCausal(f"{error}{reason}") from None

    def _compare_range(self, now: dict[str, Any], network: full_forward.FullForward) -> None:
        """Warn where forward shows another range of its inputs than the one that was given."""
        given = None if self.conventions is None else self.conventions.input_range
        traced = now.get("trace")
        if self.conventions is None or given is None or not isinstance(traced, Trace):
            return
        found = shown(traced, self.conventions)
        if found is not None and not np.allclose(found, given):
            low, high = found
            warn(
                f"sample: input_range should be ({low:g}, {high:g}), by what forward does with its input first; got "
                f"({given[0]:g}, {given[1]:g})"
            )

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
            seconds = network.seconds * network.spec.values / network.likelihood.draws
            each = f"; expect {seconds:.1g} s or more for a batch" if seconds > 1 else ""
            warn(f"sample: every value runs the whole network: {reasons['torch']}{each}")
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
        compiled = self._compiled(now, network)
        if isinstance(compiled, str):
            return compiled
        return "runs no attention" if name == "triton" and compiled.program.attention_bytes else None

    def _current(self, thorough: bool = False) -> tuple[dict[str, Any], full_forward.FullForward]:
        """The cache for the present weights of the model, which are checked to be finite; and its `FullForward`."""
        weights, kept = _weights(self.model), _PROGRAMS.setdefault(self.model, {})
        now = kept.get(self._key)
        if now is None or (now["weights"] != weights or thorough) and not _same_model(now, self.model):
            with _LOCK:
                kept.pop(self._key, None)
                check_finite(self.model)
                values = [value.detach().clone() for value in _tensors(self.model)]
                now = kept[self._key] = {"weights": weights, "values": values, "backends": {}}
        now["weights"] = weights  # others with the same values: forward may assign them anew
        if self._seen[0] is not now:
            with _LOCK:
                self._seen = now, self._network(now)
        return self._seen

    def _network(self, now: dict[str, Any]) -> full_forward.FullForward:
        if self.conventions is None:
            return full_forward.FullForward(self.model)
        conventions = self.conventions
        if conventions.input_range is None and conventions.inputs in OF_FLOATS:
            traced = self._traced(now, conventions.spec)
            conventions = inferred("sample", None if isinstance(traced, str) else traced, conventions)

        def choose(network: full_forward.FullForward, readings: list[Reading]) -> list[Reading]:
            traced = self._traced(now, network.spec)
            return readings if isinstance(traced, str) else chosen(traced, network, readings)

        network = full_forward.FullForward(self.model, conventions, choose)
        network.reading = now.get("reading", network.reading)
        return network

    def _traced(self, now: dict[str, Any], spec: ImageSpec) -> Trace | str:
        """The graph of the model, or the reason why there is none."""
        if "trace" not in now:
            try:
                with torch.no_grad():
                    now["trace"] = trace_model(self.model, spec, self.conventions)
            except NotIncremental as error:
                now["trace"] = _reason(error)
        return now["trace"]

    def _compiled(self, now: dict[str, Any], network: full_forward.FullForward) -> Compiled | str:
        """The program, or the reason why there is none."""
        with _LOCK:
            if "program" not in now:
                now["program"] = traced = self._traced(now, network.spec)
                if not isinstance(traced, str):
                    try:
                        with torch.no_grad():
                            now["program"] = compile_traced(traced, network)
                    except NotCausal:
                        del now["program"]
                        raise  # no backend can draw from it
                    except NotIncremental as error:
                        now["program"] = _reason(error)
                if isinstance(now["program"], Compiled) and network.reading is not None:
                    now["called"] = network.model  # a copy, which was called
                now["reading"] = network.reading
            network.reading = now["reading"]  # another engine may have compiled it
            return now["program"]


def _reason(error: NotIncremental) -> str:
    """What a refusal says, to be part of another message."""
    return str(error).removeprefix("sample: ")


def refuse_beside_engine(backend: str, keywords: Keywords) -> None:
    """ValueError for a backend or keyword beside an engine, which has its own."""
    named = [name for name, value in keywords.items() if value is not None]
    if named or backend != "auto":
        what = named[0] if named else "backend"
        raise ValueError(
            f"sample: {what} must be given to the Engine where one takes the place of the model; got a value"
        )


def work(program: Program) -> int:
    """Multiplications per image."""
    total = 0
    for it in [*program.row, *(it for part in program.pixel for it in part)]:
        if it.kind == "linear":
            total += it.weight.size * program.spec.height * program.columns // (it.row_modulus * it.column_modulus)
        if it.attention is not None:
            total += it.attention.heads * (it.attention.depth + it.attention.width) * it.attention.positions**2 // 2
    return max(1, total)


def check_finite(model: Any, call: str = "sample") -> None:
    """ValueError for a weight of the model that is not finite."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and (bad := not_finite(value)):
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
    """Whether the parameters and buffers of a model are these; equal numbers of another dtype are others."""
    tensors = list(_tensors(model))
    return len(tensors) == len(values) and all(map(_same, values, tensors))


def _same_model(now: dict[str, Any], model: nn.Module) -> bool:
    """Whether a model has the weights of a cache, or those that they become when forward masks them."""
    called = now.get("called")
    return _equal(now["values"], model) or called is not None and _equal(list(_tensors(called)), model)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
