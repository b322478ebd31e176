"""Writes what the tests gave on one version of PyTorch: `make test-torch` calls it with pytest's XML file."""

import json
import platform
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "torch_versions.json"


def counts(report):
    """How many tests passed, failed and were skipped, of the text of a JUnit file."""
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    total = {name: sum(int(suite.get(name)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    return {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "skipped": total["skipped"]}


def main(report):
    version = torch.__version__.partition("+")[0]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    python = platform.python_version()
    results[version] = {"date": time.strftime("%Y-%m-%d"), "python": python, **counts(Path(report).read_text())}
    ordered = sorted(results.items(), key=lambda entry: tuple(map(int, entry[0].split("."))))
    RESULTS.write_text(json.dumps(dict(ordered), indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
