"""Time the Triton kernels beside their rivals on this GPU: `python benchmarks/gpu.py` writes results/<gpu>.json.

Medians of CUDA events; forward, and forward + backward through autograd; bfloat16 and float32.
"""

import itertools
import json
import os
import platform
from datetime import date
from functools import partial
from pathlib import Path

import gpu_adversarial
import gpu_latent
import rivals
import torch
import triton
from gpu_timing import forward_and_both, median

from genfast import ops, testing
from genfast.models import PixelRNN, PixelRNNConfig
from genfast.reference import SAMPLERS, SPECS

# B, H, W, C and the microseconds wanted, both directions, forward and forward + backward.
TARGETS = [((64, 28, 28, 16), 83, 220), ((64, 32, 32, 64), 130, 300), ((16, 32, 32, 128), 190, 600)]

RIVALS = {
    "row_lstm": rivals.row_lstm_eager,
    "categorical_nll": rivals.categorical_nll_eager,
    "gated_activation": rivals.gated_activation_eager,
}


def scans(sizes, dtype):
    batch, height, width, size = sizes
    inputs = SPECS["diagonal_lstm"].inputs(
        {"B": batch, "H": height, "W": width, "D": 2, "C": size}, dtype=dtype, device="cuda"
    )
    leaves = tuple(tensor.requires_grad_() for tensor in inputs.values())
    yield "genfast", partial(ops.diagonal_lstm, backend="triton", **inputs), leaves
    gates, weight = leaves[:2]
    yield "good eager", partial(rivals.diagonal_lstm_eager, gates, weight), (gates, weight)
    compiled = torch.compile(rivals.step, dynamic=False)
    graph = partial(rivals.diagonal_lstm_eager, gates, weight, step=compiled)
    yield "torch.compile of its step", graph, (gates, weight)
    # Input-to-state is inside cuDNN's call, and is not in the scan's: one feature makes it nearly free.
    lstm = rivals.SequenceLSTM(batch, height, width, 1, size).to("cuda", dtype)
    yield "cuDNN nn.LSTM stand-in", lstm, tuple(lstm.parameters())


def others():
    """The row scan, the pixelwise ops and the samplers, at the sizes of their SPECs beside what torch makes of them."""
    families = *gpu_latent.OPS, *gpu_adversarial.OPS
    for op in (op for op in SPECS if not op.startswith("diagonal") and op not in families):
        eager = RIVALS.get(op, SPECS[op].reference)
        for (case, sizes), dtype in itertools.product(SPECS[op].bench.items(), (torch.bfloat16, torch.float32)):
            torch._dynamo.reset()
            inputs = SPECS[op].inputs(sizes, dtype=dtype, device="cuda")
            leaves = {name: tensor.requires_grad_() for name, tensor in testing.learned(inputs).items()}
            given = {name: value for name, value in inputs.items() if op != "row_lstm" or name in ("gates", "weight")}
            contenders = {
                "genfast": partial(getattr(ops, op), backend="triton"),
                "eager": eager,
                "torch.compile": torch.compile(eager, dynamic=False),
            }
            for contender, function in contenders.items():
                row = {"case": f"{op} {case}", "dtype": str(dtype), "contender": contender}
                for mode, took in forward_and_both(partial(function, **given), tuple(leaves.values())):
                    yield row | {"mode": mode, "us": took}
    for op, spec in SAMPLERS.items():
        for case, sizes in spec.bench.items():
            inputs = spec.inputs(sizes, device="cuda")
            for contender, backend in (("genfast", "triton"), ("eager", "reference")):
                took = median(partial(getattr(ops, op), **inputs, backend=backend))
                yield {"case": f"{op} {case}", "dtype": "float32", "contender": contender, "mode": "draw", "us": took}


def training_step():
    """PixelRNN of 7 layers and 16 units, 64 binary images: loss, gradients, no optimizer."""
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = PixelRNN(PixelRNNConfig()).to("cuda", dtype)
        images = torch.randint(0, 2, (64, 1, 28, 28), dtype=torch.uint8, device="cuda")
        parameters = tuple(model.parameters())

        def step(model=model, images=images, parameters=parameters):
            return torch.autograd.grad(-model.log_prob(images).mean(), parameters)

        yield {"case": "PixelRNN training step, B=64", "dtype": str(dtype), "contender": "genfast", "us": median(step)}


def rows():
    for sizes, *wanted in TARGETS:
        for dtype in (torch.bfloat16, torch.float32):
            for contender, function, leaves in scans(sizes, dtype):
                for (mode, took), target in zip(forward_and_both(function, leaves), wanted):
                    row = {"case": "B={} {}x{} C={}".format(*sizes), "dtype": str(dtype), "contender": contender}
                    row |= {"mode": mode, "us": took}
                    yield row | ({"target_us": target} if contender == "genfast" and dtype == torch.bfloat16 else {})
    yield from others()
    yield from gpu_latent.rows()
    gpu_adversarial.check()
    yield from gpu_adversarial.rows()
    yield from training_step()


def main():
    about = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
        "cuda": torch.version.cuda, "python": platform.python_version(), "date": date.today().isoformat(),
    }  # fmt: skip
    print(about)
    result = {"machine": about, "rows": []}
    for row in rows():
        result["rows"].append(row)
        print(*(f"{v:.1f}" if isinstance(v, float) else v for v in row.values()), sep=" | ", flush=True)
    folder = Path(__file__).resolve().parent / "results"
    name = about["gpu"].lower().replace(" ", "-")
    temporary = folder / f".{name}.tmp"
    folder.mkdir(exist_ok=True)
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, folder / f"{name}.json")


if __name__ == "__main__":
    main()
