"""Time the Triton kernels beside their rivals on this GPU: `python benchmarks/gpu.py` writes results/<gpu>.json.

Medians of CUDA events; forward, and forward + backward through autograd; bfloat16 and float32. No speed is reported
unless the tests of the kernels pass first, and the results of the ops of CHECKED at full size.
`gpu_check.sh` builds the package before.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import torch
import triton
from torch import Tensor, nn

from genfast import losses, ops, testing
from genfast import nn as layers
from genfast.benchmarks import cases, gate, rivals
from genfast.benchmarks.rivals import COMPILED, COMPILED_STEP, EAGER, OURS, REFERENCE
from genfast.io import write_bytes
from genfast.models import PixelRNN, PixelRNNConfig
from genfast.reference import NON_DIFFERENTIABLE, SPECS

ROOT = Path(__file__).resolve().parent.parent
DTYPES = (torch.bfloat16, torch.float32)
# The step of training measures it.
LEFT_OUT = ("diagonal_block",)
# Scans of which torch.compile takes the loop whole: 28 or 32 steps.
UNROLLED = ("row_lstm",)
# Ops whose results at the benchmark's sizes, larger than those of the tests, are held against float64.
CHECKED = ("minibatch_discrimination", "minibatch_stddev", "bias_act", "upfirdn2d", "spectral_norm")
TRAINING, CRITIC = "PixelRNN training step, B=64", "discriminator step, B=64 3x64x64"


def main() -> None:
    options = _options()
    about = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    print(about)
    if not options.ungated:
        gate.check(ROOT, "the kernels", "triton", ["triton/test_triton.py"])
        if importlib.util.find_spec("genfast._C") and importlib.util.find_spec("hypothesis"):
            gate.check(ROOT, "the ops", "triton", gate.tests_of_ops(), "-k", "triton")
        for op in CHECKED:
            check_results(op)
    result = {"machine": about, "rows": []}
    for row in rows(options.only):
        result["rows"].append(row)
        print(*(f"{v:.1f}" if isinstance(v, float) else v for v in row.values()), sep=" | ", flush=True)
    if options.ungated or options.only:
        print("\nnot gated by the tests, or not all cases: nothing was written")
    else:
        folder = ROOT / "benchmarks" / "results"
        folder.mkdir(exist_ok=True)
        name = about["gpu"].lower().replace(" ", "-")
        write_bytes(folder / f"{name}.json", (json.dumps(result, indent=1) + "\n").encode())
    if options.table:
        subprocess.run([sys.executable, Path(__file__).with_name("triton_launch_table.py")], check=True)


def rows(only: str = "") -> Iterator[dict]:
    """Every measured row whose case contains `only`: case, dtype, contender, mode, microseconds, and what else."""
    for op in cases.measured_ops():
        for case, sizes in cases.shapes(op).items():
            # A launch of the scan takes both directions.
            served = op not in LEFT_OUT and (op != "diagonal_lstm" or sizes["D"] == 2)
            if served and only in f"{op} {case}":
                yield from _of_op(op, case, sizes)
    for name, steps in ((CRITIC, _discriminator_steps), (TRAINING, _training_step)):
        if only in name:
            for dtype in DTYPES:
                yield from steps(name, dtype)


def _of_op(op, case, sizes):
    if op not in SPECS:
        inputs = cases.spec_of(op).inputs(sizes, device="cuda")
        for contender, function in beside(op).items():
            run = partial(function, **inputs)
            row = {"case": f"{op} {case}", "dtype": "float32", "contender": contender, "mode": cases.modes(op)[0]}
            yield row | {"us": median(run)} | ({"bytes": most_bytes(run)} if op in NON_DIFFERENTIABLE else {})
        return
    for dtype in DTYPES:
        torch._dynamo.reset()
        for contender, (function, leaves) in _both_ways(op, sizes, dtype).items():
            for mode in cases.modes(op):
                run = cases.run_in(mode, function, tuple(leaves))
                row = {"case": f"{op} {case}", "dtype": str(dtype), "contender": contender, "mode": mode}
                yield row | {"us": median(run)} | ({"launches": launches(run)} if contender == OURS else {})


def _both_ways(op, sizes, dtype):
    """Contender -> the call, and what it has gradients of."""
    inputs = SPECS[op].inputs(sizes, dtype=dtype, device="cuda")
    if op == "spectral_norm":
        contenders = cases.normalizations(inputs, "triton")
        return {name: contenders[name] for name in (OURS, EAGER, COMPILED)}
    leaves = cases.leaves_of(op, inputs)
    contenders = {name: (partial(function, **inputs), leaves) for name, function in beside(op).items()}
    if op == "diagonal_lstm":
        # Input-to-state is inside cuDNN's call, and is not in the scan's: one feature makes it nearly free.
        lstm = rivals.SequenceLSTM(*(sizes[letter] for letter in "BHW"), 1, sizes["C"]).to("cuda", dtype)
        contenders["cuDNN nn.LSTM stand-in"] = lstm, tuple(lstm.parameters())
    return contenders


def beside(op: str) -> dict[str, Callable]:
    """genfast, good eager and what torch.compile makes of it."""
    functions = rivals.contenders(op, "triton")
    if op in UNROLLED:
        del functions[COMPILED_STEP]
        functions[COMPILED] = torch.compile(functions[EAGER], dynamic=False)
    names = (OURS, EAGER, COMPILED, COMPILED_STEP) if EAGER in functions else (OURS, REFERENCE)
    return {name: function for name, function in functions.items() if name in names}


class Discriminator(nn.Module):
    """Four blocks of a convolution, a bias with its activation, and a filter that halves the size."""

    def __init__(self, features: int = 64):
        super().__init__()
        widths = [3, *(features * 2**stage for stage in range(4))]
        self.blocks = nn.Sequential()
        for before, after in zip(widths, widths[1:]):
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
            self.blocks.append(layers.BiasAct(after, "leaky_relu"))
            self.blocks.append(layers.Downsample2d())
        self.stddev = layers.MinibatchStddev()
        self.head = nn.Conv2d(widths[-1] + 1, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stddev(self.blocks(x))).flatten()


def _discriminator_steps(case, dtype):
    """Loss, gradients and update, with the R1 penalty and without, eager and with what is compiled in one graph."""
    torch.manual_seed(0)
    critic = Discriminator().to("cuda")
    optimizer = torch.optim.Adam(critic.parameters(), fused=True)
    real, fake = (torch.randn(64, 3, 64, 64, device="cuda") for _ in range(2))

    def objective(penalised: bool) -> Tensor:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = losses.non_saturating_discriminator(critic(real), critic(fake))
            return loss + 5 * losses.r1_penalty(critic, real) if penalised else loss

    def step(objective: Callable, penalised: bool) -> None:
        objective(penalised).backward()
        optimizer.step()
        optimizer.zero_grad()

    for contender, function in ((OURS, objective), (f"{OURS}, torch.compile", torch.compile(objective))):
        took = {}
        for mode, penalised in (("step", False), ("step with R1", True)):
            torch._dynamo.reset()
            took[mode] = median(partial(step, function, penalised))
            row = {"case": case, "dtype": str(dtype), "contender": contender, "mode": mode, "us": took[mode]}
            yield row | ({"times_without": took[mode] / took["step"]} if penalised else {})


def _training_step(case, dtype):
    """PixelRNN of 7 layers and 16 units, 64 binary images: loss, gradients, no optimizer."""
    torch.manual_seed(0)
    model = PixelRNN(PixelRNNConfig()).to("cuda", dtype)
    images = torch.randint(0, 2, (64, 1, 28, 28), dtype=torch.uint8, device="cuda")
    parameters = tuple(model.parameters())

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(-model.log_prob(images).mean(), parameters)

    yield {"case": case, "dtype": str(dtype), "contender": OURS, "us": median(step)}


def check_results(op: str) -> None:
    """Results and gradients of every benchmarked case against float64, in float32 and bfloat16; and their bits."""
    for case, sizes in SPECS[op].bench.items():
        for dtype in DTYPES:
            inputs = SPECS[op].inputs(sizes, dtype=dtype, device="cuda")
            _check_case(f"{op} {case} {dtype}", op, inputs, exact=dtype == torch.float32)


def _check_case(label, op, inputs, exact):
    function, reference = getattr(ops, op), SPECS[op].reference
    with testing.poisoned():
        got, again = (testing.evaluate(function, inputs, backend="triton") for _ in range(2))
    truth = testing.evaluate(reference, testing.doubled(inputs))
    rival = testing.evaluate(reference, inputs)
    for name, value in got.items():
        testing.assert_identical(again[name], value, name=f"{label} {name}")
        if exact:
            # Sums of many terms round: the error scales with the largest.
            largest = max(1.0, truth[name].abs().max().item())
            testing.assert_matches(value, truth[name], name=f"{label} {name}", atol=1e-5 * largest)
        else:
            testing.assert_no_worse(value, rival[name], truth[name], name=f"{label} {name}")


def median(run: Callable) -> float:
    """Microseconds."""
    return 1e3 * triton.testing.do_bench(run, warmup=100, rep=500, return_mode="median")


def launches(run: Callable) -> int:
    """How many kernels one call of `run` starts on the GPU."""
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if not event.key.startswith(("Mem", "cuda")))


def most_bytes(run: Callable) -> int:
    """Memory beside the arguments, at most."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only cases whose name contains this; writes nothing")
    parser.add_argument("--ungated", action="store_true", help="skip the tests and checks; writes nothing")
    parser.add_argument("--table", action="store_true", help="time every candidate of the launch tables as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
