"""Which implementation serves a call, and why. Only this file imports `genfast._C` or reads the environment.

`GENFAST_REQUIRE=cpp,triton` turns a missing native backend into an error at import: a test run that must be
native then cannot pass on the fallback.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import importlib
import importlib.util
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

cpp: Any
_CPP_MISSING: str | None = None
try:
    cpp = importlib.import_module("genfast._C")
except ImportError as error:
    cpp = None
    _CPP_MISSING = f"not compiled: {error}; install where there is a C++ compiler"

NATIVE = ("cpp", "triton")
NAMES = ("auto", "reference", *NATIVE)
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# op -> backend -> the dtypes it serves, and op -> the name of its files; `register` fills them.
_DTYPES: dict[str, Mapping[str, tuple[torch.dtype, ...]]] = {}
_STEMS: dict[str, str] = {}
_is_compiling = torch.compiler.is_dynamo_compiling
_TRACING = contextvars.ContextVar("tracing", default=False)
_only_reference = False


@dataclass(frozen=True)
class Backend:
    """One row of `genfast.backends()`; `isas` are the instruction sets of the C++ kernels, best last."""

    name: str
    available: bool
    reason: str
    isa: str | None = None
    isas: tuple[str, ...] = ()

    def __str__(self) -> str:
        state = "available" if self.available else "not available"
        isas = f", isa {self.isa} of {', '.join(self.isas)}" if self.isa else ""
        return f"{self.name}: {state} ({self.reason}){isas}"


@dataclass(frozen=True)
class Explanation:
    """The answer of `genfast.explain()`: the backend that would serve, and why not each of the others."""

    op: str
    backend: str
    others: dict[str, str]

    def __str__(self) -> str:
        others = [f"  not {name}: {why}" for name, why in self.others.items()]
        return "\n".join([f"{self.op}: {self.backend}", *others])


def backends() -> dict[str, Backend]:
    """Every backend by name: whether it can run on this machine, and the reason."""
    native_cpp = Backend("cpp", False, _CPP_MISSING or "")
    if cpp is not None:
        native_cpp = Backend("cpp", True, "compiled, CPU tensors", cpp.isa(), tuple(cpp.isas()))
    missing = _triton_missing() or _triton_idle()
    serving = "interpreted on the CPU" if _interpreting() else "CUDA tensors"
    triton = Backend("triton", not missing, missing or serving)
    reference = Backend("reference", True, "pure PyTorch, any device")
    return {"reference": reference, "cpp": native_cpp, "triton": triton}


def explanation(name: str, *args: Any, **kwargs: Any) -> Explanation:
    """The `Explanation` of a call of the op `name`."""
    if name not in _DTYPES:
        names = ", ".join(sorted([*_DTYPES, "genfast.sample"]))
        raise ValueError(f"explain: op must be one of {names}; got {name!r}")
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    # The levels of an image decide nothing: the float tensors do.
    tensors = [tensor for tensor in tensors if tensor.dtype in FLOATS] or tensors
    if not tensors:
        raise TypeError(f"explain: {name} must be given the tensors of the call; got {args!r}")
    backend = select(name, tensors[0], kwargs.get("backend", "auto"))
    others = {}
    for other in (*NATIVE, "reference"):
        if other != backend:
            why = refusal(name, other, tensors[0])
            others[other] = why or f"could serve, but {backend} was asked for or comes first"
    return Explanation(name, backend, others)


def set_isa(name: str) -> None:
    """Make the C++ kernels use the CPU instruction set `name`, one of `backends()["cpp"].isas`."""
    if cpp is None:
        raise RuntimeError(f"set_isa: the backend must be available; got {_CPP_MISSING}")
    cpp.set_isa(name)


@contextlib.contextmanager
def float_mode() -> Iterator[None]:
    """Inside, torch and NumPy compute in the mode that the kernels are written for, on this thread and on those that it
    lends work to: subnormal numbers are numbers, whatever torch.set_flush_denormal or another library has set."""
    modes = cpp.exchange_float_modes([], torch.get_num_threads()) if cpp else []
    try:
        yield
    finally:
        if modes:
            cpp.exchange_float_modes(modes, len(modes))


def check_signature(entry: str, names: Sequence[str]) -> None:
    """Compare by name what Python passes to `entry` of the C++ module with what that reads: a swap would be silent."""
    expected = cpp.signatures().get(entry, []) if cpp else names
    if list(expected) != list(names):
        raise ImportError(f"{entry}: expected ({', '.join(expected)}) as in csrc; got ({', '.join(names)})")


def serves(op: str, by_backend: Mapping[str, tuple[torch.dtype, ...]], stem: str) -> None:
    """Declare the dtypes of each native backend of `op`, and the name of its files."""
    _DTYPES[op], _STEMS[op] = by_backend, stem


def dtypes(op: str, backend: str) -> tuple[torch.dtype, ...]:
    """The dtypes that a native backend serves."""
    return _DTYPES[op].get(backend, ())


def refusal(op: str, backend: str, tensor: Tensor) -> str | None:
    """The reason why `backend` cannot serve `op` for `tensor`, or None if it can."""
    why = _refusal(op, backend, tensor.device.type, tensor.layout, tensor.dtype)
    return _CPP_MISSING if why is None and backend == "cpp" else why


def _refusal(op: str, backend: str, device: str, layout: torch.layout, dtype: torch.dtype) -> str | None:
    if backend == "reference":
        return None
    if layout != torch.strided:
        return f"needs a strided tensor, not {layout}"
    if backend == "cpp" and device != "cpu":
        return f"needs a CPU tensor, not one on {device}"
    if backend == "triton" and device not in ("cuda", "cpu"):
        return f"needs a CUDA tensor, not one on {device}"
    served = dtypes(op, backend)
    if not served:
        return "has no kernel of this op"
    if dtype not in served:
        return f"serves {', '.join(_short(d) for d in served)}, not {_short(dtype)}"
    missing = _triton_missing() if backend == "triton" else None
    if backend == "triton" and device == "cpu" and not missing and not _interpreting():
        return "needs a CUDA tensor (or TRITON_INTERPRET=1, for tests), not one on cpu"
    return missing


def select(op: str, tensor: Tensor, backend: str = "auto", candidates: tuple[str, ...] = (*NATIVE, "reference")) -> str:
    """The backend that serves `op` for `tensor`: the one asked for, or for "auto" the first that can."""
    if backend not in NAMES:
        raise ValueError(f"{op}: backend must be one of {', '.join(NAMES)}; got {backend!r}")
    if backend == "auto" and _only_reference:
        return "reference"
    compiling = _is_compiling()
    if backend == "auto" and not compiling and _TRACING.get():
        return candidates[0]
    # Dynamo warns of what is cached, and looks through it anyway.
    cached = _selected.__wrapped__ if compiling else _selected
    selected = cached(op, backend, candidates, tensor.device, tensor.layout, tensor.dtype, cpp is None)
    if selected:
        return selected
    reasons = {name: refusal(op, name, tensor) for name in candidates}
    able = [name for name, why in reasons.items() if why is None]
    listed = "; ".join(f"{name}: {why}" for name, why in reasons.items() if why)
    raise RuntimeError(
        f"{op}: backend must be able to serve {_short(tensor.dtype)} on {tensor.device}; got {backend!r}; "
        f"can serve: {', '.join(able) or 'none'} ({listed})"
    )


@functools.cache
def _selected(
    op: str,
    backend: str,
    candidates: tuple[str, ...],
    device: torch.device,
    layout: torch.layout,
    dtype: torch.dtype,
    without_cpp: bool,
) -> str | None:
    """The backend that serves, or None."""
    for name in candidates if backend == "auto" else (backend,) if backend in candidates else ():
        # Triton's interpreter is a test tool, far slower than the reference: never chosen unasked.
        interpreted = backend == "auto" and name == "triton" and device.type == "cpu"
        missing = name == "cpp" and without_cpp
        if not interpreted and not missing and _refusal(op, name, device.type, layout, dtype) is None:
            return name
    return None


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """While a model is traced, "auto" takes the registered op, which the graph then names, even where it cannot run."""
    token = _TRACING.set(True)
    try:
        yield
    finally:
        _TRACING.reset(token)


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Inside, "auto" takes the reference in the whole process: what a model costs without the kernels."""
    global _only_reference
    before, _only_reference = _only_reference, True
    try:
        yield
    finally:
        _only_reference = before


def stem(op: str) -> str:
    """The name of the files of an op, which is that of its reference's: a sampler stands beside its likelihood."""
    return _STEMS[op]


def launcher(op: str, name: str) -> Callable:
    """The Triton launcher `genfast.kernels.<stem>.<name>`."""
    return getattr(_kernels(op), name)


@functools.cache
def _kernels(op: str) -> types.ModuleType:
    return importlib.import_module(f"genfast.kernels.{stem(op)}")


@functools.cache
def _triton_missing() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if importlib.util.find_spec("genfast.kernels") is None:
        return "the package genfast.kernels is not installed"
    return None


def _triton_idle() -> str | None:
    if torch.cuda.is_available() or _interpreting():
        return None
    return "no CUDA device (TRITON_INTERPRET=1 interprets the kernels on the CPU, for tests)"


@functools.cache
def _interpreting() -> bool:
    if _triton_missing():
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _share_threads() -> None:
    """Lend torch's threads to the C++ kernels: two OpenMP runtimes in one process fight over the cores."""
    # A lookup through the extension module finds libtorch_cpu, whatever its file is called.
    function: Any = getattr(ctypes.CDLL(torch._C.__file__), "torch_parallel_for", None)
    cpp.set_parallel_for(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _require(names: str) -> None:
    for name in filter(None, names.split(",")):
        if name not in NATIVE:
            raise ValueError(f"GENFAST_REQUIRE: expected backends among {', '.join(NATIVE)}; got {name!r}")
        missing = _CPP_MISSING if name == "cpp" else _triton_missing() or _triton_idle()
        if missing:
            raise ImportError(f"GENFAST_REQUIRE: expected {name}; got {missing}")


if cpp is not None:
    _share_threads()
    # OpenMP's workers do not survive a fork, and a child that calls them hangs: a forked child runs serially.
    os.register_at_fork(after_in_child=functools.partial(cpp.set_parallel_for, 0))
_require(os.environ.get("GENFAST_REQUIRE", ""))
