"""What a figure was measured on, and what that machine can do at best."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Callable

import numpy
import torch

import genfast

MATRIX = 2048
COPY_BYTES = 2**28


def pin(threads: int) -> int:
    """Keep to `threads` cores and as many threads of torch; return how many cores there were."""
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise SystemExit(f"benchmarks: threads must be at most the number of cores, {len(cores)}; got {threads}")
    os.sched_setaffinity(0, cores[:threads])
    torch.set_num_threads(threads)
    return len(cores)


def describe(cores: int, threads: int) -> dict:
    """The part that every row of a result carries: machine, versions, date."""
    cpp = genfast.backends()["cpp"]
    return {
        "cpu": _cpu(),
        "cores": cores,
        "threads": threads,
        "isa": cpp.isa,
        "load_before": round(os.getloadavg()[0], 2),
        "genfast": genfast.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def slug(machine: dict) -> str:
    """A file name for the machine: its kind, never its network name."""
    words = re.sub(r"\(\w+\)|processor|cpu|@.*|\d+-core", " ", machine["cpu"].lower())
    isa = machine["isa"].removeprefix("x86-64-").replace("-", "_")
    return "-".join([*re.findall(r"[a-z0-9]+", words), isa, f"{machine['threads']}t"])


def sgemm() -> tuple[Callable, int]:
    """torch's own float32 matrix product, the yardstick for the machine's rate; and its FLOPs."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    out = torch.empty(MATRIX, MATRIX)
    return lambda: torch.mm(a, b, out=out), 2 * MATRIX**3


def copy() -> tuple[Callable, int]:
    """A large copy in memory; and the bytes it reads and writes."""
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * COPY_BYTES


def _cpu():
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
