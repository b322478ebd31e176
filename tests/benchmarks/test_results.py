"""The pages of the results folder are those that the committed results make."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import json, sys
from pathlib import Path
root, name = Path(sys.argv[1]), sys.argv[2]
from genfast.benchmarks import audit_report, lossless_report, quality_report, report, sampling_report, strangers_report
results = json.loads((root / "benchmarks/results" / f"{name}.json").read_text())
if name == "quality":
    page = quality_report.likelihoods(results)
elif name == "gan_quality":
    page = quality_report.adversarial(results)
elif name == "audit":
    page = audit_report.markdown(results)
elif name == "lossless":
    page = lossless_report.markdown(results)
elif name == "strangers":
    page = strangers_report.markdown(results)
elif name.endswith("-sampling"):
    page = sampling_report.markdown(results)
else:
    page = report.markdown(results)
assert page == (root / "benchmarks/results" / f"{name}.md").read_text()
"""
PAGES = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.md")}
RESULTS = [path for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")) if path.stem in PAGES]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_pages(path):
    command = [sys.executable, "-c", SCRIPT, ROOT, path.stem]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
