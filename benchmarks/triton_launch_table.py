"""Find the rows of the launch tables in kernels/_common.py: `python benchmarks/triton_launch_table.py`.

Every candidate of every scan with what it needs of sm_90, and on a GPU its time, the table's own choice marked `*`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
import triton

from genfast.kernels import _common, diagonal_lstm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support import triton_aot  # noqa: E402

# dtype, B, H, W, D, C: the shapes of the benchmarks, then one for every other row of the tables.
CASES = [
    (torch.bfloat16, 64, 28, 28, 2, 16),
    (torch.bfloat16, 64, 32, 32, 2, 64),
    (torch.bfloat16, 16, 32, 32, 2, 128),
    (torch.bfloat16, 64, 64, 64, 2, 32),
    (torch.bfloat16, 16, 64, 64, 2, 128),
    (torch.float32, 64, 28, 28, 2, 16),
    (torch.float32, 16, 32, 32, 2, 64),
]


def candidates(dtype: torch.dtype, height: int, size: int) -> Iterator[_common.Resident | _common.Streamed]:
    rows = max(16, triton.next_power_of_2(height))
    units = max(16, triton.next_power_of_2(size))
    if rows <= 64 and units * dtype.itemsize <= 128:
        for warps in (2, 4, 8, 16):
            yield _common.Resident(rows, units, warps)
    if size > 32:
        for rows in (32, 64):
            for block_n, block_k in ((32, 32), (32, 64), (64, 64), (128, 32), (128, 64)):
                for warps in (4, 8, 16):
                    yield _common.Streamed(rows, block_n, block_k, warps, 3)
                if size <= block_n:
                    yield _common.Streamed(rows, block_n, block_k, 8, 3, keep_side=True)


def calls(dtype: torch.dtype, B: int, H: int, W: int, D: int, C: int, device: str) -> Iterator[tuple[bool, Callable]]:
    """The forward and the backward launcher on new tensors."""

    def tensor(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        if device == "meta":
            return torch.empty(shape, dtype=dtype, device=device)
        return torch.randn(shape, dtype=dtype, device=device) * C**-0.5

    weight, h0, c0 = tensor(D, 2, C, 4 * C), tensor(D, C), tensor(D, C)
    gates, hidden = tensor(B, H, W, D, 4 * C), tensor(B, H, W, D, C)
    saved = tensor(B, H, W, D, 4 * C).sigmoid(), tensor(B, H, W, D, C, dtype=torch.float32)
    yield False, lambda: diagonal_lstm.diagonal_lstm_forward(gates, weight, h0, c0, True)
    yield True, lambda: diagonal_lstm.diagonal_lstm_backward(hidden, hidden, *saved, weight, h0, c0)


def needs(run: Callable) -> tuple[int, int, int]:
    """Registers of a thread, bytes of stack, and of shared memory."""
    with triton_aot.record_launches() as recorded:
        run()
    return triton_aot.resources(triton_aot.compile_launch(*recorded[0], 90))


def report(case: tuple, device: str) -> None:
    dtype, _, height, _, _, size = case
    on_gpu = dict(calls(*case, device)) if device == "cuda" else {}
    for backward, run in calls(*case, "meta"):
        in_table = _common.scan_launch(dtype, height, size, backward)
        for launch in candidates(dtype, height, size):
            with mock.patch.object(diagonal_lstm, "scan_launch", lambda *_, launch=launch: launch):
                registers, stack, shared = needs(run)
                fits = shared <= _common.HOPPER_SHARED and registers * launch.num_warps * 32 <= 65536
                time = triton.testing.do_bench(on_gpu[backward], return_mode="median") if on_gpu and fits else 0
            mark = "*" if launch == in_table else " "
            took = f"{1e3 * time:8.1f} us" if time else "       - us"
            print(f"{mark} {took} | {registers:3} registers, {stack:4} stack, {shared:6} shared | {launch}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="indices into CASES")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "meta"
    print(torch.cuda.get_device_name() if device == "cuda" else "no GPU: only what each launch needs")
    for index in options.cases:
        print("\n", CASES[index])
        report(CASES[index], device)


if __name__ == "__main__":
    main()
