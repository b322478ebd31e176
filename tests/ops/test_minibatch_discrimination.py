"""What is special to `minibatch_discrimination`: the paper's formula, images of elsewhere, ties, memory, errors."""

import subprocess
import sys

import pytest
import torch

from genfast import minibatch_discrimination, testing

BACKENDS = ("reference", "cpp")
MEGABYTE = 2**20
SCRIPT = """
import re
import torch
from genfast import minibatch_discrimination
def memory(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
def run(rows):
    features = torch.randn(rows, 8, requires_grad=True)
    minibatch_discrimination(features, torch.randn(8, 32, 8), backend="cpp").sum().backward()
run(2)
before = memory("VmRSS")
run(3000)
print(memory("VmHWM") - before)
"""


def sample(rows=9, size=4, kernels=5, dim=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((rows, size), (size, kernels, dim))
    ]
    return [tensor.to(dtype) for tensor in tensors]


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_the_formula_of_the_paper(backend):
    """o(x_i)_b = sum over j = 1..n of exp(-|M_ib - M_jb|_1), j = i with it; a loop over every index."""
    features, kernel = sample()
    expected = torch.zeros(9, 5, dtype=torch.float64)
    for b in range(5):
        rows = features @ kernel[:, b]
        for i in range(9):
            expected[i, b] = sum(torch.exp(-(rows[i] - rows[j]).abs().sum()) for j in range(9))
    testing.assert_matches(minibatch_discrimination(features, kernel, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_is_a_sum_over_distances_of_torch(backend):
    """Values and gradients by torch.cdist, which is written otherwise."""
    features, kernel = sample(70, 5, 17, 4)

    def judge(features, kernel):
        m = torch.einsum("na,abc->bnc", features, kernel)
        return (-torch.cdist(m, m, p=1)).exp().sum(2).T

    inputs = {"features": features, "kernel": kernel}
    got = testing.evaluate(minibatch_discrimination, inputs, backend=backend)
    for name, value in testing.evaluate(judge, inputs).items():
        testing.assert_matches(got[name], value, name=name, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_others_are_rows_of_one_batch(backend):
    """Two halves that know of each other give the whole, to the gradients."""
    features, kernel = sample(12)
    inputs = {"features": features, "kernel": kernel}

    def halves(features, kernel, backend):
        one, two = features[:5], features[5:]
        parts = (one, two), (two, one)
        return torch.cat([minibatch_discrimination(a, kernel, b, backend=backend) for a, b in parts])

    got = testing.evaluate(halves, inputs, backend=backend)
    for name, value in testing.evaluate(minibatch_discrimination, inputs, backend=backend).items():
        testing.assert_matches(got[name], value, name=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_images_push_nothing(backend):
    """Of whole numbers, so that torch's product has no rounding, which would make them unequal."""
    features, kernel = sample(1)
    features = (8 * features).round().expand(6, -1).clone().requires_grad_()
    closeness = minibatch_discrimination(features, (8 * kernel).round(), backend=backend)
    assert (closeness == 6).all()
    (gradient,) = torch.autograd.grad(closeness.sum(), features)
    assert not gradient.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_far_images_are_alone_and_nan_shows(backend):
    features, kernel = sample(5, dtype=torch.float32)
    features[2] += 1e4
    closeness = minibatch_discrimination(features, kernel, backend=backend)
    assert (closeness[2] == 1).all()
    features[2] = torch.nan
    assert minibatch_discrimination(features, kernel, backend=backend).isnan().all()


def test_memory_grows_with_the_images_not_with_their_pairs():
    """The tensor of differences would take 9.2 GB here. What importing torch takes is not counted."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50 * MEGABYTE


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors(backend):
    features, kernel = sample()
    cases = {
        r"features must have shape \[N, A\] with A>=1; got \(4,\)": (features[0], kernel),
        r"kernel must have shape \[A, B, C\] with A=4, B>=1, C>=1; got \(3, 5, 3\)": (features, kernel[1:]),
        r"kernel must have shape \[A, B, C\] with A=4, B>=1, C>=1; got \(4, 0, 3\)": (features, kernel[:, :0]),
        r"others must have shape \[M, A\] with A=4; got \(9, 3\)": (features, kernel, features[:, 1:]),
    }
    for text, args in cases.items():
        with pytest.raises(ValueError, match=f"minibatch_discrimination: {text}"):
            minibatch_discrimination(*args, backend=backend)
    with pytest.raises(TypeError, match="kernel must have the dtype of features, torch.float64; got torch.float32"):
        minibatch_discrimination(features, kernel.float(), backend=backend)
