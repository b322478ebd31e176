"""`pip install .` on a machine without a compiler."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "genfast", "kernels", "benchmarks", "csrc")
USE = """
import genfast, torch
from genfast.models import PixelRNN, PixelRNNConfig
assert genfast.__file__.startswith(r"{target}"), genfast.__file__
found = genfast.backends()
assert not found["cpp"].available and "compiler" in found["cpp"].reason, found["cpp"]
gates, weight = torch.randn(2, 3, 4, 2, 20), torch.randn(2, 2, 5, 20)
answer = genfast.explain("diagonal_lstm", gates, weight)
assert answer.backend == "reference" and "compiler" in answer.others["cpp"], answer
hidden = genfast.diagonal_lstm(gates, weight)
assert hidden.shape == (2, 3, 4, 2, 5) and hidden.isfinite().all() and hidden.abs().min() > 0
try:
    genfast.diagonal_lstm(gates, weight, backend="cpp")
except RuntimeError as error:
    assert "compiler" in str(error), error
else:
    raise AssertionError("an explicit cpp was served")
model = PixelRNN(PixelRNNConfig(height=3, width=4, hidden=2, layers=1, head=4))
model.log_prob(torch.zeros(2, 1, 3, 4, dtype=torch.uint8)).sum().backward()
assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
print("computed")
"""


def run(command, folder, **environment):
    dropped = ("GENFAST_", "SKBUILD_", "PYTHONPATH", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    done = subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_compiler(tmp_path):
    if not os.environ.get("GENFAST_REQUIRE") and not find_spec("scikit_build_core"):
        pytest.skip("needs scikit-build-core, which make test installs")
    source, target, tools = tmp_path / "source", tmp_path / "target", tmp_path / "tools"
    for item in COPIED:
        copy = shutil.copytree if (ROOT / item).is_dir() else shutil.copy
        (source / item).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / item, source / item)
    tools.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-v", "--no-index", "--no-deps", "--no-build-isolation"]
    nothing = str(tmp_path / "nothing")
    # The build tools are modules of this interpreter; PATH holds nothing, so no compiler can be found.
    log = run([*pip, "--target", target, source], tmp_path, PATH=str(tools), CC=nothing, CXX=nothing)
    assert "retrying" in log, log
    assert not list(target.glob("genfast/_C*.so")) and (target / "genfast" / "kernels").is_dir()
    use = [sys.executable, "-c", USE.format(target=target)]
    assert "computed" in run(use, tmp_path, PYTHONPATH=str(target), OMP_NUM_THREADS="1")
