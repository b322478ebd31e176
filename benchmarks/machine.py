"""What a figure was measured on, what that machine can do at best, and whether it is at rest."""

from __future__ import annotations

import datetime
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

from genfast._native import backends
from genfast._native.peak import fma_loop
from genfast._version import __version__
from genfast.benchmarks import timing
from genfast.benchmarks.rows import Limits

MATRIX = 2048
COPY_BYTES = 2**28
COPIES = (2**17, 2**20, 2**23, COPY_BYTES)  # what is small stays in a cache
AT_REST = 0.2  # cores that other processes may keep busy: more, and a turn of 20 ms is likely to lose some
LOOKED = 0.5  # seconds
ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def pin(threads: int) -> int:
    """Keep to `threads` cores and as many threads of torch; return how many cores there were."""
    cores = usable_cores()
    if threads > cores:
        raise SystemExit(f"benchmarks: threads must be at most the number of cores, {cores}; got {threads}")
    keep_to(threads)
    return cores


def keep_to(threads: int) -> None:
    """As many threads of torch, on as many cores where the system lets a process choose."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)


def usable_cores() -> int:
    """Cores that this process may use: those of its affinity, as far as its control group pays for them."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def describe(cores: int, threads: int) -> dict[str, Any]:
    """The part that every result carries: machine, versions, date."""
    cpp = backends.backends()["cpp"]
    return {
        "cpu": _cpu(),
        "cores": cores,
        "threads": threads,
        "isa": cpp.isa or "none",
        "isas": list(cpp.isas),
        "cpp": cpp.reason,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "allocator": _allocator(),
        "load_before": round(_load(), 2),
        "genfast": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def slug(machine: dict[str, Any]) -> str:
    """A file name for the machine: its kind, never its network name."""
    words = re.sub(r"\(\w+\)|processor|cpu|@.*|\d+-core", " ", machine["cpu"].lower())
    isa = machine["isa"].removeprefix("x86-64-").replace("-", "_")
    return "-".join([*re.findall(r"[a-z0-9]+", words), isa, f"{machine['threads']}t"])


def sgemm(size: int = MATRIX) -> tuple[Callable[[], Any], int]:
    """torch's own float32 matrix product, the yardstick for the machine's rate; and its FLOPs."""
    a, b, out = (torch.ones(size, size, dtype=torch.float32, device="cpu") for _ in range(3))
    return lambda: torch.mm(a, b, out=out), 2 * size**3


def copy(size: int = COPY_BYTES) -> tuple[Callable[[], Any], int]:
    """A large copy in memory; and the bytes it reads and writes."""
    source = torch.ones(size // 4, dtype=torch.float32, device="cpu")
    target = torch.zeros_like(source)
    return lambda: target.copy_(source), 2 * size


def limits(seconds: float) -> Limits:
    """What this machine reaches now, on as many threads as torch has: the best call of each loop.

    A limit is what it can do: an interruption is no part of it.
    """
    loops = {"sgemm": sgemm(), **{str(size): copy(size) for size in COPIES}}
    fma = fma_loop()
    if fma:
        loops["fma"] = fma
    times = timing.turns({name: run for name, (run, _) in loops.items()}, seconds, {})
    rates = {name: work / min(times[name]) / 1e9 for name, (_, work) in loops.items()}
    copies = {2 * size: rates[str(size)] for size in COPIES}
    return Limits(rates.get("fma"), rates["sgemm"], copies)


def calibration() -> Callable[[], Any]:
    """A loop of a few ms that is the same in every run: arithmetic and memory, each for about half of the time."""
    multiply, _ = sgemm(384)
    move, _ = copy(2**23)

    def run() -> None:
        multiply()
        move()

    return run


class Neighbours:
    """The other processes of this machine, from the making of this object on."""

    def __init__(self) -> None:
        self.busy, self.own, self.start = _busy(), _own(), time.perf_counter()

    def cores(self) -> float | None:
        """How many of the cores that this process may use others kept busy on average; None where nothing tells."""
        busy = _busy()
        if busy is None or self.busy is None:
            return None
        passed = time.perf_counter() - self.start
        return max(0.0, (busy - self.busy - (_own() - self.own)) / max(passed, 1e-9))


def refusal(threads: int) -> str | None:
    """Why no speed should be measured now on so many threads; None if nothing speaks against it."""
    cores = usable_cores()
    if threads > cores:
        expected = f"at most {cores}, as many as the cores that this process may use"
        return f"threads: expected {expected}; got {threads} (--threads {cores}, or --anyway)"
    neighbours = Neighbours()
    time.sleep(LOOKED)
    others = neighbours.cores()
    if others is not None and others > AT_REST:
        got = f"{others:.1f} of {cores} cores busy with others, load average {_load():.1f}"
        return f"load: expected a machine at rest; got {got} (wait, or --anyway)"
    return None


def _busy() -> float | None:
    """Seconds that the cores of this process were busy since the system started; stolen time counts."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}  # where there is /proc/stat, there is affinity
    total = 0
    for name, *counts in (line.split() for line in lines if line.startswith("cpu")):
        if name in mine:
            user, nice, system, _, _, *others = (int(count) for count in counts[:8])
            total += user + nice + system + sum(others)
    return total / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds of a core that this process and its children have used."""
    return sum(os.times()[:4])


def _load() -> float:
    return os.getloadavg()[0] if sys.platform != "win32" else 0.0


def _allocator() -> str:
    """The C library's, or one that was loaded in its place."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        maps = ""
    system = " ".join(platform.libc_ver()).strip() or "of the system"
    return next((name for name in ALLOCATORS if f"lib{name}" in maps), system)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
