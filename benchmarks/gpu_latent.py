"""The variational family on a GPU: times beside torch, launches and memory, with what was asked for. Run by gpu.py."""

from functools import partial

import rivals_latent
import torch
from gpu_timing import forward_and_both, launches, median

from genfast import ops, testing
from genfast.reference import MEASURES, SPECS

OPS = (
    "gaussian_latent", "gaussian_nll", "bernoulli_nll", "importance_bound", "vector_quantize", "aggregate_posterior",
)  # fmt: skip
MEASURED = ("codebook_statistics", "nearest_neighbors", "kernel_sum")

# Cases beside those of the SPECs; and how many times as fast as eager a case was asked to be, both ways together.
MORE = {"bernoulli_nll": {"B=256 3x64x64": {"B": 256, "C": 3, "H": 64, "W": 64, "M": 0}}}
WANTED = {
    "gaussian_latent B=4096 Z=256": 4, "gaussian_latent B=128 Z=20": 5, "gaussian_nll B=256 3x64x64": 3.5,
    "bernoulli_nll B=256 3x64x64": 1.8, "importance_bound B=64 S=50": 2.5,
    "vector_quantize N=65536 D=64 K=1024": 5, "vector_quantize N=65536 D=64 K=8192": 10,
    "aggregate_posterior B=256 L=64": 20,
}  # fmt: skip
MOST_LAUNCHES = {"gaussian_latent": 3}
MOST_BYTES = {"nearest_neighbors N=M=50000 D=64 k=5": 10**9}


def rows():
    for op in OPS:
        for case, sizes in {**SPECS[op].bench, **MORE.get(op, {})}.items():
            for dtype in (torch.float32, torch.bfloat16):
                yield from _both_ways(op, f"{op} {case}", sizes, dtype)
    for op in MEASURED:
        spec = MEASURES[op]
        for case, sizes in spec.bench.items():
            inputs = spec.inputs(sizes, device="cuda")
            for contender, function in _contenders(op).items():
                run = partial(function, **inputs)
                row = {"case": f"{op} {case}", "dtype": "float32", "contender": contender, "mode": "forward"}
                yield row | {"us": median(run)} | _memory(row["case"], run)


def _contenders(op):
    return {"genfast": partial(getattr(ops, op), backend="triton"), "eager": getattr(rivals_latent, f"{op}_eager")}


def _both_ways(op, case, sizes, dtype):
    torch._dynamo.reset()
    inputs = SPECS[op].inputs(sizes, dtype=dtype, device="cuda")
    leaves = tuple(tensor.requires_grad_() for tensor in testing.learned(inputs).values())
    contenders = _contenders(op)
    contenders["torch.compile"] = torch.compile(contenders["eager"], dynamic=False)
    for contender, function in contenders.items():
        run = partial(function, **inputs)
        row = {"case": case, "dtype": str(dtype), "contender": contender}
        for mode, took in forward_and_both(run, leaves):
            found = {"mode": mode, "us": took}
            if mode == "forward+backward" and contender == "genfast":
                found |= {"wanted_times_eager": WANTED[case]} if case in WANTED else {}
                found |= {"launches": launches(partial(_step, run, leaves))}
                found |= {"most_launches": MOST_LAUNCHES[op]} if op in MOST_LAUNCHES else {}
            yield row | found


def _step(run, leaves):
    made = run()
    outputs = [t for t in (made if isinstance(made, tuple) else (made,)) if t.requires_grad]
    return torch.autograd.grad(outputs, leaves, [torch.empty_like(t) for t in outputs], allow_unused=True)


def _memory(case, run):
    """Bytes beside the arguments, at most."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    found = {"bytes": torch.cuda.max_memory_allocated() - before}
    return found | ({"most_bytes": MOST_BYTES[case]} if case in MOST_BYTES else {})
