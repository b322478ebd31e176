"""No speed is reported unless the tests of what is measured pass first."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def check(checkout: Path, what: str, backend: str, tests: Iterable[str], *options: str) -> None:
    """Run `tests`, paths below tests/, in a process of its own where `backend` must serve; end here unless they pass.

    From tests/, so that the installed package is imported and not the checkout.
    """
    pytest: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        checkout,
    ]
    environment = {**os.environ, "GENFAST_REQUIRE": backend}
    if subprocess.run([*pytest, *options, *tests], cwd=checkout / "tests", env=environment, check=False).returncode:
        raise SystemExit(f"benchmarks: {what} must pass the tests before any speed is reported")


def options(description: str | None, seconds: float, what: str) -> argparse.ArgumentParser:
    """The options of every benchmark: `seconds` for a comparison unless others are given, of `what` it compares."""
    parser = argparse.ArgumentParser(description=description)
    default = f"for each comparison (default {seconds:g})"
    parser.add_argument("--seconds", type=float, default=seconds, help=default)
    parser.add_argument("--only", default="", help=f"only {what} whose name contains this; writes nothing")
    parser.add_argument("--ungated", action="store_true", help="skip the tests; writes nothing")
    return parser


def tests_of_ops() -> list[str]:
    """The tests that find every op in its SPEC."""
    return [f"ops/test_every_{kind}.py" for kind in ("op", "op_reproducible", "sampler", "non_differentiable")]
