"""`genfast bench`: what it prints, writes, compares and refuses."""

import json
import subprocess
import sys

import pytest
import torch

from genfast._native import backends
from genfast.benchmarks import Report, machine
from genfast.cli import bench

ONE = ("ops", "--quick", "--only", "importance_bound", "--anyway", "--threads", "1")


@pytest.fixture(autouse=True)
def few_seconds(monkeypatch):
    """Short limits; and the cores of the process are left as they are, for the tests after these."""
    monkeypatch.setattr(bench.machine, "limits", lambda seconds, limits=machine.limits: limits(0.01))
    monkeypatch.setattr(bench.machine, "keep_to", lambda threads: None)


def test_it_prints_the_machine_the_rows_and_the_sum(genfast):
    code, out, _ = genfast("bench", *ONE)
    assert code == 0
    for word in ("CPU", "isa", "GPU", "software", "allocator", "load", "limits", "multiply-adds", "sgemm", "copies"):
        assert word in out
    (line,) = [line for line in out.splitlines() if line.startswith("  importance_bound B=64 S=50 float32")]
    assert "forward+backward" in line and " yes " in line and "x " in line and "%" in line and " B " in line
    assert "times as long as genfast (geometric mean)" in out and "genfast is slower in " in out


def test_the_result_as_data_as_a_page_and_since_another(genfast, tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert genfast("bench", *ONE, "--json", first, "--html", tmp_path / "a.html")[0] == 0
    (row,) = Report.read(first).rows
    assert row.name == "importance_bound" and row.match and len(row.ours.passes_ms) == len(row.calibration_ms) >= 1
    assert "importance_bound" in (tmp_path / "a.html").read_text()
    slow = json.loads(first.read_text())
    timing = slow["rows"][0]["times"]["genfast"]
    slow["rows"][0]["calibration_ms"] = [1.0] * 11
    timing["passes_ms"] = [1e-6] * 11
    for other in slow["rows"][0]["times"].values():
        other["passes_ms"] = other["passes_ms"] if len(other["passes_ms"]) == 11 else [1.0] * 11
    timing["passes_ms"] = [1e-6] * 11
    slow["machine"]["cpu"] = "another"
    first.write_text(json.dumps(slow))
    code, out, _ = genfast("bench", *ONE, "--compare", first, "--json", second)
    assert code == 0 and "other cpu: another before" in out
    told = "1 of 1 rows have changed" in out or "1 rows had too few passes to tell" in out
    assert told and second.is_file()
    code, _, err = genfast("bench", *ONE, "--json", second)
    assert code == 2 and "--overwrite" in err
    assert genfast("bench", *ONE, "--json", second, "--overwrite")[0] == 0


def test_it_refuses_a_busy_machine(genfast, monkeypatch):
    monkeypatch.setattr(machine.Neighbours, "cores", lambda self: 1.5)
    without = [word for word in ONE if word != "--anyway"]
    code, out, err = genfast("bench", *without)
    assert (code, out) == (2, "") and err.startswith("genfast: error: load: expected a machine at rest; got 1.5 of ")
    code, _, err = genfast("bench", *ONE)
    assert code == 0 and "others kept 1.5 cores busy while this was measured" in err


def test_it_refuses_more_threads_than_cores(genfast):
    cores = machine.usable_cores()
    code, _, err = genfast("bench", "ops", "--quick", "--threads", cores + 1)
    assert code == 2 and f"threads: expected at most {cores}" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "no such case"], "--only must be part of the name of a case"),
        (["--against", "fast"], "expected eager or compile, or both with a comma; got fast"),
        (["--compare", "missing.json"], "expected a file missing.json; got none"),
    ],
)
def test_errors(genfast, arguments, message):
    code, _, err = genfast("bench", "ops", "--quick", "--anyway", *arguments)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_wrong_result_is_told(genfast, monkeypatch):
    monkeypatch.setattr("genfast.benchmarks.matching.ALLOWED", dict.fromkeys((torch.float32, torch.float64), -1.0))
    code, out, _ = genfast("bench", *ONE)
    assert code == 0 and " NO " in out and "WRONG: importance_bound" in out


def test_without_the_kernels(genfast, monkeypatch):
    monkeypatch.setattr(backends, "cpp", None)
    code, out, _ = genfast("bench", *ONE)
    assert code == 0 and "not measured without the C++ kernels" in out and " yes " in out and "isa          none" in out
    code, _, err = genfast("bench", "compress", "--quick", "--anyway")
    assert code == 2 and "compress is left out: it needs the C++ kernels" in err


def test_it_needs_no_checkout(tmp_path):
    """In a folder of nothing, as a user has it: nothing of the tests is imported."""
    code = "import sys, genfast.cli.bench, genfast.benchmarks.suites; print([m for m in sys.modules if m == 'support'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
