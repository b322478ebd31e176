"""Every script of examples/ runs at a tiny size, is short, and stands in docs/examples.md."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genfast.data.grid import png

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
# script -> the packages that it needs beside genfast, its arguments, and what it prints when all went well.
RUNS = {
    "plain_loop": ((), "--steps 2", r"held out: [\d.]+ nats per image"),
    "lightning_vae": (("lightning",), "--steps 2", r"samples \(4, 1, 8, 8\)"),
    "accelerate_pixelcnn": (("accelerate",), "--steps 2", r"four threes \(4, 1, 8, 8\)"),
    "hf_trainer": (("transformers", "accelerate"), "--steps 2", r"held out: [\d.]+ nats.*\(4, 1, 8, 8\)"),
    "distributed": ((), "--steps 2", "the processes agree: True"),
    "compiled": ((), "--steps 2 --backend aot_eager", r"compiled: [\d.]+ ms a step"),
    "ray_sampling": (("ray",), "--images 5 --workers 1 --part 3", r"\(5, 1, 28, 28\) as in one process: True"),
    "own_folder": ((), "pictures --steps 1 --size 8 --levels 4 --out run", r"filled in \(1, 1, 8, 8\)"),
    "text_lines": ((), "--steps 2", r"read without an error: \d+ of 100"),
    "stylegan_ops": ((), "--steps 2", r"step 2: critic [\d.]+, generator [\d.]+"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_it_runs(name, tmp_path):
    packages, arguments, expected = RUNS[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        image = np.random.RandomState(number).randint(256, size=(16, 16, 1), dtype=np.uint8)
        (tmp_path / "pictures" / f"{number:02d}.png").write_bytes(png(image))
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", ROOT / "examples" / f"{name}.py"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, *arguments.split()], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(expected, run.stdout), run.stdout


def test_every_script_is_run_and_listed():
    page = (ROOT / "docs" / "examples.md").read_text()
    assert [path.stem for path in SCRIPTS] == sorted(RUNS)
    assert set(re.findall(r"\]\(\.\./examples/(\w+)\.py\)", page)) == set(RUNS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_it_is_short(path):
    assert len(path.read_text().splitlines()) <= 60
