"""The comparisons of the variational family: genfast beside good eager and torch.compile of it."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import rivals_latent
import torch
from cases import EAGER, REFERENCE, Comparison, both_ways
from sklearn.neighbors import NearestNeighbors

from genfast import ops
from genfast.reference import MEASURES, SPECS

GROUPS = {
    "gaussian_latent": "the Gaussian latent, draw and KL divergence",
    "gaussian_nll": "the Gaussian likelihood",
    "bernoulli_nll": "the Bernoulli likelihood",
    "importance_bound": "the importance-weighted bound",
    "vector_quantize": "vector quantisation with its losses",
    "aggregate_posterior": "the aggregate posterior of beta-TC",
    "codebook_statistics": "sums of a codebook's moving averages",
    "nearest_neighbors": "nearest neighbours",
    "kernel_sum": "sums of a kernel, as MMD and KID need them",
}
# Cases beside those of the SPECs.
MORE = {"bernoulli_nll": {"B=256 3x64x64": {"B": 256, "C": 3, "H": 64, "W": 64, "M": 0}}}
SKLEARN = "scikit-learn, brute force"
OPS = [op for op in GROUPS if op in SPECS]


def comparisons(only=""):
    """Yield every `Comparison` whose name contains `only`, each built when its turn comes."""
    for op in OPS:
        for case, sizes in {**SPECS[op].bench, **MORE.get(op, {})}.items():
            modes = [mode for mode in ("forward", "forward+backward") if only in f"{GROUPS[op]} {case} {mode}"]
            # x is data of a likelihood, but what is learned before a codebook.
            fixed = ("x",) if op.endswith("_nll") else ()
            yield from both_ways(GROUPS[op], op, case, sizes, modes, contenders(op), fixed)
    for op in (op for op in GROUPS if op in MEASURES):
        for case, sizes in MEASURES[op].bench.items():
            if only in f"{GROUPS[op]} {case} forward":
                yield _measure(op, case, sizes)


def _measure(op, case, sizes):
    inputs = MEASURES[op].inputs(sizes)
    functions = contenders(op)
    bound = {name: partial(function, **inputs) for name, function in functions.items()}
    peak = partial(_peak_bytes, op, sizes) if op == "nearest_neighbors" else None
    return Comparison(GROUPS[op], case, "forward", bound, images=sizes["B"], peak_bytes=peak)


def contenders(op):
    """The functions to compare, by name; on the reference backend where good eager is another computation."""
    functions = {"genfast": partial(getattr(ops, op), backend="cpp"), EAGER: getattr(rivals_latent, f"{op}_eager")}
    if op == "nearest_neighbors":
        return functions | {SKLEARN: _sklearn_neighbors}
    return functions | {REFERENCE: partial(getattr(ops, op), backend="reference")}


def _sklearn_neighbors(x, y, k):
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(y.numpy()).kneighbors(x.numpy())


def _peak_bytes(op, sizes, contender):
    """The most memory that a process of its own ever held, torch and the arguments included."""
    command = [sys.executable, Path(__file__), json.dumps([op, sizes, contender, torch.get_num_threads()])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _run_alone(op, sizes, contender, threads):
    torch.set_num_threads(threads)
    contenders(op)[contender](**MEASURES[op].inputs(sizes))
    # Not getrusage: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.split("VmHWM:")[1].split()[0]))


if __name__ == "__main__":
    _run_alone(*json.loads(sys.argv[1]))
