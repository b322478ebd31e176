"""The calls of the CPU kernels on this machine, once more on aarch64 under an emulator: the same bits (make aarch64).

    python tests/support/aarch64.py [--out FILE.json]

The ops in the shapes of their SPEC, the engine through small programs and models: what every call of csrc/ops.def is
given, and the memory that it leaves, is recorded here. The same calls are made again on each isa of this machine, and
on those of aarch64 by tests/native/run_calls.cpp, which needs no Python; what then stands in memory is compared.
"""

import argparse
import contextlib
import ctypes
import functools
import itertools
import os
import subprocess
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from support import many_levels, pixel_programs
from support.op_matrix import innermost

import genfast
from genfast import models, testing
from genfast._native import backends
from genfast.engine import cpp
from genfast.io import write_json
from genfast.likelihoods import LogisticMixture
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS
from genfast.train.run_folder import machine

ROOT = Path(__file__).resolve().parents[2]
PROCESSOR = "aarch64"
COMPILER, EMULATOR = f"{PROCESSOR}-linux-gnu-g++", f"qemu-{PROCESSOR}-static"
CROSS = {
    "GENFAST_RUNNER": "ON",
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": PROCESSOR,
    "CMAKE_CXX_COMPILER": COMPILER,
    "CMAKE_EXE_LINKER_FLAGS": "-static",
}
LINE = 64  # bytes; between the blocks of memory lie as many that no kernel reads or writes: NaN in every type
# Integers of the size of a float type, and its infinity: a NaN is above it, its sign apart.
NAN = {"float32": (np.int32, 0x7F800000), "float64": (np.int64, 0x7FF0000000000000), "bfloat16": (np.int16, 0x7F80)}
WANT = ("log_probs", "log_evidence", "parameters")
SMALL = {"channels": 1, "height": 7, "width": 6, "levels": 4}
MODELS = {
    "pixelrnn": {"hidden": 9, "layers": 2, "head": 20, **SMALL},
    "pixelrnn row": {"hidden": 9, "layers": 2, "head": 20, "kind": "row", **SMALL},
    "pixelcnn": {"hidden": 18, "layers": 2, "head": 20, **SMALL, "channels": 3, "levels": 256},
    "gated-pixelcnn": {"hidden": 10, "layers": 2, "head": 20, "kernel": 3, "classes": 3, **SMALL, "levels": 2},
    "pixelcnn++": {"filters": 8, "blocks": 1, "resolutions": 2, "mixtures": 3, **SMALL, "height": 8, "width": 8}
    | {"channels": 3, "levels": 256},
}
VAES = (
    {"latent": 5, "hidden": 9, **SMALL, "height": 8, "width": 8, "levels": 2},
    {"latent": 5, "hidden": 20, "network": "mlp", "classes": 3, **SMALL, "channels": 3, "levels": 256},
)


@dataclass(frozen=True)
class Block:
    """`size` bytes of the recorded memory from `at` on: an argument of call number `call`."""

    call: int
    entry: str
    member: str
    kind: str
    at: int
    size: int


class Recorder:
    """Records the calls of the C++ module.

    Attributes:
        lines: the calls as tests/native/run_calls.cpp reads them.
        before, after: the memory of all calls, one after the other.
        blocks: what stands in it.
    """

    def __init__(self) -> None:
        self.module = backends.cpp
        self.lines: list[str] = []
        self.blocks: list[Block] = []
        self.before, self.after = bytearray(), bytearray()

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, every call is made and recorded."""
        entries = {entry: functools.partial(self._call, entry) for entry in self.module.signatures()}
        with mock.patch.object(backends, "cpp", types.SimpleNamespace(**vars(self.module) | entries)):
            yield

    def _call(self, entry: str, dtype: str, *values: float) -> None:
        memory = {}
        for address, size, kind in map(extent, held(sys._getframe(1).f_locals)):
            if address and size >= memory.get(address, (0, ""))[0]:
                memory[address] = size, kind
        places: dict[float, Block] = {}
        words = [f"call {entry} {dtype}"]
        for name, value in zip(self.module.signatures()[entry], values, strict=True):
            if value in memory and value not in places:
                places[value] = self._append(entry, name, int(value), *memory[value])
            number = value.hex() if isinstance(value, float) else str(int(value))
            words.append(f"{name} {f'@{places[value].at}' if value in places else number}")
        vars(self.module)[entry](dtype, *values)
        self.after += self.before[len(self.after) :]
        for address, block in places.items():
            self.after[block.at : block.at + block.size] = ctypes.string_at(int(address), block.size)
        self.lines.append(" ".join(words))

    def _append(self, entry: str, name: str, address: int, size: int, kind: str) -> Block:
        """Append what lies at an address, as far from the beginning of a line as there."""
        at = -(-len(self.before) // LINE) * LINE + address % LINE
        self.before += b"\xff" * (at - len(self.before)) + ctypes.string_at(address, size) + b"\xff" * LINE
        self.blocks.append(Block(len(self.lines), entry, name, kind, at, size))
        return self.blocks[-1]

    def replay(self, isa: str) -> bytes:
        """Make all calls again on an isa of this machine. Returns the memory that they leave."""
        room = np.empty(len(self.before) + LINE, dtype=np.uint8)
        memory = room[-room.ctypes.data % LINE :][: len(self.before)]
        memory[:] = np.frombuffer(self.before, np.uint8)
        active = self.module.isa()
        self.module.set_isa(isa)
        try:
            for line in self.lines:
                _, entry, dtype, *members = line.split()
                vars(self.module)[entry](dtype, *(_value(word, memory.ctypes.data) for word in members[1::2]))
        finally:
            self.module.set_isa(active)
        return memory.tobytes()

    def emulate(self, runner: Path, isa: str, folder: Path) -> bytes:
        """The same by a program of another machine; `folder` is for its files."""
        (folder / "calls").write_text("\n".join(self.lines) + "\n")
        (folder / "memory").write_bytes(self.before)
        ran(EMULATOR, runner, isa, *(folder / name for name in ("calls", "memory", "out")))
        return (folder / "out").read_bytes()

    def differences(self, got: bytes) -> dict[str, int]:
        """What differs from the memory that the calls left here -> the number of bits; nothing if none does.

        Any NaN is the same as any other: which one an operation makes is left to the CPU.
        """
        ends = [np.frombuffer(memory, np.uint8) for memory in (got, self.after)]
        bits = np.bitwise_count(np.bitwise_xor(*ends))
        inside = {}
        for block in self.blocks:
            part = slice(block.at, block.at + block.size)
            if bits[part].any() and block.kind in NAN:
                nan = np.logical_and(*(is_nan(end[part], block.kind) for end in ends))
                bits[part][np.repeat(nan, len(bits[part]) // len(nan))] = 0
            inside[f"call {block.call}: {block.entry}: {block.member}"] = bits[part].sum()
        outside = {"outside of the arguments": bits.sum() - sum(inside.values())}
        return {name: int(count) for name, count in (inside | outside).items() if count}


def held(value: object, depth: int = 4) -> Iterator[torch.Tensor | np.ndarray]:
    """The tensors and arrays of a value: itself, or what it contains."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        yield value
    elif isinstance(value, dict) and depth:
        yield from itertools.chain.from_iterable(held(part, depth - 1) for part in value.values())
    elif isinstance(value, (list, tuple)) and depth:
        yield from itertools.chain.from_iterable(held(part, depth - 1) for part in value)
    elif type(value).__module__.startswith("genfast.") and depth:
        yield from held(vars(value), depth)


def is_nan(memory: np.ndarray, kind: str) -> np.ndarray:
    """Which of the numbers in some bytes are NaN."""
    integer, infinity = NAN[kind]
    return (memory.view(integer) & np.iinfo(integer).max) > infinity


def _value(word: str, memory: int) -> float:
    if word.startswith("@"):
        return memory + int(word[1:])
    return int(word) if word.lstrip("-").isdigit() else float.fromhex(word)


def extent(array: torch.Tensor | np.ndarray) -> tuple[int, int, str]:
    """(address, bytes from the first to the last element, dtype)."""
    if isinstance(array, torch.Tensor):
        last = sum((size - 1) * stride for size, stride in zip(array.shape, array.stride()))
        size = (last + 1) * array.element_size() if array.numel() else 0
        return array.data_ptr(), size, str(array.dtype).removeprefix("torch.")
    low, high = np.lib.array_utils.byte_bounds(array)
    return array.ctypes.data, high - low, str(array.dtype)


def call_ops() -> None:
    """Every op in every shape of its SPEC and in every dtype; and, in a small one, of strides and of extreme values."""
    for op, spec in (SPECS | SAMPLERS | NON_DIFFERENTIABLE).items():
        for dtype in backends.dtypes(op, "cpp"):
            for sizes in spec.shapes:
                call_op(op, spec.inputs(sizes, dtype=dtype))
            small = spec.inputs(spec.gradcheck[0], dtype=dtype)
            for layout in (testing.transposed, testing.sliced, innermost):
                call_op(op, testing.each_tensor(layout, small))
            for scale in (1e4, float(torch.finfo(dtype).smallest_normal) / 8):
                scaled = {name: value * scale for name, value in testing.differentiable(small).items()}
                call_op(op, small | scaled)


def call_op(op: str, inputs: dict) -> None:
    """An op with its gradient, if it has one; and without, when it saves nothing."""
    function = vars(genfast.ops)[op]
    if op in SPECS:
        testing.evaluate(function, inputs, backend="cpp")
    function(**inputs, backend="cpp")


def call_engine() -> None:
    """Images that are drawn, scored, and filled in; of programs with every kind of instruction, and of models."""
    for program in (*(case.program for case in pixel_programs.CASES), many_levels.of_logits(torch.randn(2, 300))):
        for n in (1, 7, 19):
            labels = pixel_programs.labels_of(program, n)
            settings = {"seed": 2**63 + 5, "first": 2**40, "labels": labels, "want": WANT}
            pixel_programs.run(cpp, program, n, **settings)
            settings |= {"given": pixel_programs.images_of(program, n), "known": pixel_programs.known_of(program, n)}
            if not isinstance(program.likelihood, LogisticMixture):
                settings["evidence"] = torch.randn(n, *program.spec.shape, program.spec.levels)
            pixel_programs.run(cpp, program, n, **settings, temperature=0.6)
    for name, config in MODELS.items():
        torch.manual_seed(0)
        model = models.build(name.split()[0], **config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        call_model(model, config.get("classes", 0))
    call_model(models.PixelRNN.pretrained("mnist"), 0, 2)
    for config in VAES:
        vae = models.build("vae", **config).eval()
        for parameter in vae.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        images = torch.randint(vae.spec.levels, (9, *vae.spec.shape), dtype=torch.uint8)
        labels = torch.arange(9) % 3 if vae.spec.classes else None
        genfast.decompress(genfast.compress(vae, images, labels=labels, block=5), vae)


def call_model(model: torch.nn.Module, classes: int, n: int = 5) -> None:
    """Draw, score, fill in, and code images of a model."""
    labels = torch.arange(n) % classes if classes else None
    images = genfast.sample(model, n, seed=3, labels=labels, backend="cpp")
    genfast.log_prob(model, images, labels, backend="cpp")
    mask = torch.arange(images.shape[-1]).expand(1, *images.shape[1:]) < 3
    genfast.sample(model, n, seed=4, labels=labels, given=images, mask=mask, backend="cpp")
    genfast.decompress(genfast.compress(model, images, labels=labels, block=3), model)


def call_stack() -> None:
    """The coder of bits back alone: symbols of three kinds, and back."""
    cumulative = np.tile(np.array([0, 5, 2**23, 2**24], np.uint32), (100, 1))
    symbols, left, count = np.arange(100) % 3, np.zeros(1, np.int64), np.zeros(1, np.int64)
    starts = cumulative[np.arange(100), symbols]
    intervals = np.stack((starts, cumulative[np.arange(100), symbols + 1] - starts), 1)
    words = np.zeros(102, np.uint32)
    pushed = intervals.ctypes.data, words.ctypes.data, count.ctypes.data
    backends.cpp.ans_push("float32", *pushed, len(intervals), len(words))
    popped = cumulative.ctypes.data, words.ctypes.data, symbols.ctypes.data, left.ctypes.data
    backends.cpp.ans_pop("float32", *popped, len(symbols), 3, int(count[0]))


def built() -> Path:
    """tests/native/run_calls.cpp with the kernels, compiled for aarch64."""
    folder, programs = ROOT / "build" / PROCESSOR, Path(sys.executable).parent
    variables = CROSS | {"CMAKE_MAKE_PROGRAM": programs / "ninja"}
    defines = [f"-D{variable}={value}" for variable, value in variables.items()]
    ran(programs / "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *defines)
    ran(programs / "cmake", "--build", folder)
    return folder / "run_calls"


def ran(*command: object) -> str:
    """What a command prints; its exit code is 0, or it raises."""
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where the result goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds: dict[str, float] = {}
    recorder = Recorder()

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        before = sum(os.times()[:4])
        yield
        seconds[name] = round(sum(os.times()[:4]) - before, 1)

    with timed("record"), recorder.recording():
        call_ops()
        call_engine()
        call_stack()
    entries = Counter(line.split()[1] for line in recorder.lines)
    assert entries.keys() == backends.cpp.signatures().keys(), "every entry is called"
    with timed("compile"):
        runner = built()
    different: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        there = functools.partial(recorder.emulate, runner, folder=Path(folder))
        isas = dict.fromkeys(ran(EMULATOR, runner).split(), there)
        for isa, run in (isas | dict.fromkeys(recorder.module.isas(), recorder.replay)).items():
            with timed(f"run {isa}"):
                found = recorder.differences(run(isa=isa))
            different[isa] = sum(found.values())
            print(f"{isa}: {len(recorder.lines)} calls, {different[isa]} bits differ")
            for name, bits in itertools.islice(found.items(), 20):
                print(f"{isa}: {name}: {bits} bits differ", file=sys.stderr)
    if options.out:
        versions = [ran(program, "--version").splitlines()[0] for program in (COMPILER, EMULATOR)]
        counts = {"calls": dict(sorted(entries.items())), "bytes": len(recorder.after), "bits that differ": different}
        about = {"processor seconds": seconds, "versions": versions, "machine": machine(torch.device("cpu"))}
        write_json(options.out, counts | about)
    return 1 if any(different.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
