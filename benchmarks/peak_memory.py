"""What a process holds at most in which one contender of an op runs alone; `cases` starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from genfast.benchmarks import rivals
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS


def run_alone(op: str, sizes: dict[str, Any], contender: str, threads: int) -> int:
    """Bytes, torch and the arguments included, after one call."""
    torch.set_num_threads(threads)
    inputs = (SPECS | SAMPLERS | NON_DIFFERENTIABLE)[op].inputs(sizes)
    rivals.contenders(op, "cpp")[contender](**inputs)
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    sys.stdout.write(f"{run_alone(*json.loads(sys.argv[1]))}\n")
