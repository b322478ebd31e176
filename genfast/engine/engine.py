"""One model and the backend that draws from it."""

import threading
import warnings
from weakref import WeakKeyDictionary

import torch

from genfast._native import backends
from genfast.engine import cpp, eager, full_forward
from genfast.engine.arguments import check_count, check_images, check_known, check_labels, check_whole
from genfast.engine.compiler import compile_program
from genfast.engine.compiler.plan import NotCausal, NotIncremental
from genfast.engine.compiler.proof import check_causal

BACKENDS = ("cpp", "triton", "torch", "reference")
WANTED = ("log_probs", "log_evidence", "parameters")
# Of each model, by its options: the weights that a program was compiled from, and the program or why there is none.
_PROGRAMS = WeakKeyDictionary()
# Tracing a model changes state of torch that all threads share.
_LOCK = threading.RLock()


class Engine:
    """Draws images from an autoregressive model, every pixel computed once.

    Args:
        model: a model of `genfast.models`, or another `torch.nn.Module` that maps images [B, C, H, W] to the
            parameters of all conditionals, [B, P, H, W] or [B, C, L, H, W].
        backend: "cpp" (CPU), "triton" (CUDA), "torch" (step by step, any device), "reference" (a full forward for each
            draw), or "auto": the first that serves the model.
        shape: (C, H, W), of a model that is none of `genfast.models`; the next three are for such a model too.
        levels: of a channel, 2 to 256.
        input_range: what the lowest and the highest level enter the model as; (0, 1) if not given.
        head: how the output is read, "bernoulli", "categorical", "categorical-levels-first" or "mixture", as
            `genfast.engine.compiler.compile_program` says; None: what its shape says.
    Raises: RuntimeError for a backend that cannot serve this model, with the reason; ValueError for an option that
        does not fit the model, or a weight that is not finite.

    The model may be trained on. A new engine, and so every `genfast.sample`, compares all weights with those that it
    knows; `run` of an engine that is kept notices what torch records, which are assignments and operations in place,
    but no change through `.data` and no step of a fused optimizer. Of what a forward reads beside its weights, such as
    a Python number, nothing is noticed.
    """

    def __init__(self, model, *, backend="auto", shape=None, levels=None, input_range=None, head=None):
        if not isinstance(model, torch.nn.Module):
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
        self._options = {"shape": shape, "levels": levels, "input_range": input_range, "head": head}
        self._key = tuple(self._options.values())
        self._seen = None, None
        self._current(thorough=True)

    @property
    def network(self):
        """`FullForward` of the model as it is now."""
        return self._current()[1]

    @property
    def backend(self):
        """The name of the backend that serves the model as it is now."""
        return self._choose(*self._current())

    @property
    def explanation(self):
        """`Explanation`: the backend that serves the model, and why not each of the others."""
        (now, network), others = self._current(), {}
        chosen = self._choose(now, network)
        for name in BACKENDS:
            if name != chosen:
                reason = self._refusal(name, now, network)
                others[name] = reason or f"could serve, but {chosen} was asked for or comes first"
        return backends.Explanation("sample", chosen, others)

    @property
    def program(self):
        """The `Program` of the model as it is now.

        Raises: NotIncremental where it has none.
        """
        program = self._compiled(*self._current())
        if isinstance(program, str):
            raise NotIncremental(program)
        return program

    @property
    def batch_size(self):
        """Images to draw in one call: few enough for little memory and for calls of a second or two."""
        backend = self.backend
        if backend == "reference":
            return 64
        if backend == "triton" or self.network.device.type == "cuda":
            return 1024
        return max(32, min(4096, 20_000_000_000 // work(self.program) // 32 * 32)) if backend == "cpp" else 256

    def run(
        self, n, *, seed, first=0, temperature=1.0, labels=None, given=None, known=None, evidence=None, draw=0,
        want=(),
    ):  # fmt: skip
        """Draw n images in one call; memory grows with n.

        Args:
            seed, first, draw: value `element` of image b is drawn by `uniform(seed, first + b, element, draw)`, where
                element = (row * W + column) * C + channel; a mixture takes the numbers 2 draw and 2 draw + 1.
            temperature: divides the logits; a mixture's scales are multiplied by it.
            labels: integers [n], or one int, of a conditional model.
            given, known: uint8 and bool [n or 1, C, H, W]: where known, the level is not drawn but the one given.
            evidence: float32 [n, C, H, W, L], log-likelihood of what was observed given each level; none for a
                mixture. Level l is drawn with weight p(l) exp(evidence[l]).
            want: of "log_probs", "log_evidence" (of evidence) and "parameters".
        Returns: `Drawn`, on the device of the model.
        Raises: TypeError or ValueError for an argument that does not fit.
        """
        now, network = self._current()
        n, first, seed = check_count("sample", n, first, seed, temperature)
        check_whole("sample", "draw", draw, 0)
        labels = check_labels("sample", labels, network, n, network.device)
        given, known = check_known("sample", given, known, network, n)
        self._check_want(network, evidence, want)
        if evidence is not None:
            check_evidence("sample", evidence, network, n)
        return self._execute(
            now, network, n, seed=seed, first=first, temperature=temperature, labels=labels, given=given, known=known,
            evidence=evidence, draw=draw, want=want,
        )  # fmt: skip

    def log_prob(self, images, labels=None):
        """Log-probability of each image in nats: uint8 [n, C, H, W] -> float64 [n].

        On one backend it is made of the same numbers as the samples. Errors as `run`.
        """
        network = self.network
        images = check_images("log_prob", "images", images, network)
        labels = check_labels("log_prob", labels, network, len(images), network.device)
        parts, size = [images.new_zeros(0, dtype=torch.float64, device=network.device)], self.batch_size
        for start in range(0, len(images), size):
            part = images[start : start + size].to(network.device)
            chosen = None if labels is None else labels[start : start + size]
            known = torch.ones_like(part, dtype=torch.bool)
            drawn = self._run(len(part), seed=0, labels=chosen, given=part, known=known, want=("log_probs",))
            parts.append(drawn.log_probs.flatten(1).sum(1))
        return torch.cat(parts)

    def _run(self, n, **arguments):
        """`run` of checked arguments."""
        return self._execute(*self._current(), n, **arguments)

    def _execute(self, now, network, n, **arguments):
        backend, device = self._choose(now, network), network.device
        for name in ("given", "known", "evidence", "labels"):
            if arguments.get(name) is not None:
                arguments[name] = arguments[name].to(device)
        if backend == "reference":
            return full_forward.run(network, n, **arguments)
        run = {"cpp": cpp.run, "torch": eager.run}.get(backend) or backends.launcher(
            "pixel_program", "pixel_program"
        )
        return run(self._compiled(now, network), n, device=device, **arguments)

    def _check_want(self, network, evidence, want):
        if unknown := sorted(set(want) - set(WANTED)):
            raise ValueError(f"sample: want must be of {', '.join(WANTED)}; got {unknown[0]!r}")
        if network.head is None and (evidence is not None or "log_probs" in want):
            raise ValueError(f"sample: {type(network.model).__name__} draws in its own way; got evidence or log_probs")
        if evidence is None and "log_evidence" in want:
            raise ValueError("sample: evidence must be given where log_evidence is wanted; got None")
        if evidence is not None and network.head == "mixture":
            raise ValueError("sample: evidence must be None for a mixture of logistics; got a value")

    def _choose(self, now, network):
        """The name of the backend, for the weights `now`."""
        chosen = now["chosen"]
        if self.asked not in chosen:
            reasons = {name: self._refusal(name, now, network) for name in BACKENDS}
            able = [name for name, reason in reasons.items() if reason is None]
            if self.asked not in ("auto", *able):
                raise RuntimeError(
                    f"sample: backend must be able to serve this model; got {self.asked!r} ({reasons[self.asked]}); "
                    f"can serve: {', '.join(able)}"
                )
            name = able[0] if self.asked == "auto" else self.asked
            if name == "reference" and not network.known:
                if self.asked == "auto":
                    message = f"sample: every value runs the whole network: {reasons['torch']}"
                    warnings.warn(message, RuntimeWarning, stacklevel=5)
                with torch.no_grad(), full_forward.evaluating(self.model):
                    check_causal(network)
            chosen[self.asked] = name
        return chosen[self.asked]

    def _refusal(self, name, now, network):
        """The reason why a backend cannot serve the model, or None if it can."""
        if name == "reference":
            return None
        device, dtype = network.device, network.dtype
        if dtype == torch.float64:
            return "computes in float32, and the model has the dtype float64"
        if name == "cpp" and not (found := backends.backends()["cpp"]).available:
            return found.reason
        if name == "cpp" and device.type != "cpu":
            return f"needs a model on the CPU, not one on {device}"
        if name == "triton" and not (found := backends.backends()["triton"]).available:
            return found.reason
        if name == "triton" and device.type != "cuda":
            return f"needs a model on a CUDA device, not one on {device}"
        if network.head is None:
            return f"{type(self.model).__name__} draws in its own way"
        program = self._compiled(now, network)
        return program if isinstance(program, str) else None

    def _current(self, thorough=False):
        """What is kept of the model for its weights as they are now, which are finite; and its `FullForward`."""
        weights, kept = _weights(self.model), _PROGRAMS.setdefault(self.model, {})
        now = kept.get(self._key)
        if now is None or now["weights"] != weights or thorough and not _equal(now["values"], self.model):
            with _LOCK:
                kept.pop(self._key, None)
                check_finite(self.model)
                values = [value.detach().clone() for value in _tensors(self.model)]
                now = kept[self._key] = {"weights": weights, "values": values, "chosen": {}}
        if self._seen[0] is not now:
            with _LOCK:
                self._seen = now, full_forward.FullForward(self.model, **self._options)
        return self._seen

    def _compiled(self, now, network):
        """The program, or the reason why there is none."""
        with _LOCK:
            if "program" not in now:
                options = {name: value for name, value in self._options.items() if value is not None}
                if not network.known:
                    options["head"] = network.order
                try:
                    with torch.no_grad(), full_forward.evaluating(self.model):
                        now["program"] = compile_program(self.model, **options)
                except NotCausal:
                    raise  # no backend can draw from it
                except NotIncremental as error:
                    now["program"] = str(error)
            return now["program"]


def check_evidence(call, evidence, network, n):
    """Raise TypeError or ValueError for evidence that is not float32 [n, C, H, W, L] with a possible level for each."""
    if not isinstance(evidence, torch.Tensor) or evidence.dtype != torch.float32:
        got = evidence.dtype if isinstance(evidence, torch.Tensor) else type(evidence).__name__
        raise TypeError(f"{call}: evidence must be a tensor of torch.float32; got {got}")
    expected = (n, network.channels, network.height, network.width, network.levels)
    if evidence.shape != expected:
        raise ValueError(f"{call}: evidence must have shape {expected}; got {tuple(evidence.shape)}")
    if evidence.numel() and (evidence.isnan().any() or not evidence.amax(-1).isfinite().all()):
        raise ValueError(f"{call}: evidence must be finite for a level of each value and below inf for all; got others")


def work(program):
    """Multiplications that an image takes."""
    total = 0
    for it in [*program.row, *(it for part in program.pixel for it in part)]:
        if it.kind == "linear":
            total += it.weight.size * program.height * program.columns // (it.row_modulus * it.column_modulus)
    return max(1, total)


def check_finite(model, call="sample"):
    """ValueError for a weight of a model that is not finite."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and (bad := int((~value.detach().isfinite()).sum())):
            raise ValueError(f"{call}: {name} must be finite; got {bad} values that are not")


def _tensors(model):
    """Every parameter and buffer."""
    modules = [model]
    while modules:  # by hand: at every call of an engine, where `modules()` takes a tenth of an image's time
        module = modules.pop()
        for group in (module._parameters, module._buffers):
            yield from (value for value in group.values() if value is not None)
        modules += [child for child in module._modules.values() if child is not None]


def _weights(model):
    """What changes when torch changes a parameter or buffer."""
    return [(t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in _tensors(model)]


def _equal(values, model):
    tensors = list(_tensors(model))
    return len(tensors) == len(values) and all(map(torch.equal, values, tensors))
