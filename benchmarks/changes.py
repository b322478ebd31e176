"""How often `genfast bench --compare` is wrong: `python benchmarks/changes.py` writes results/changes.json.

Every op and layer at the sizes of --quick is measured in processes of its own: twice as it is, which should show no
difference, and once with a tenth of its time added, which should be found. Nothing else should run on the machine; what
was running is in the result.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genfast.benchmarks import Limits, Report, differences, machine
from genfast.benchmarks.rows import OURS
from genfast.benchmarks.runner import PASSES, Case, Prepared, measure
from genfast.benchmarks.suites import SUITES
from genfast.io import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "changes.json"
PLANTED = 0.1
MEASURED = ("ops", "layers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row in each process (2)")
    parser.add_argument("--threads", type=int, default=1, help="cores and threads to keep to (1)")
    parser.add_argument("--rounds", type=int, default=1, help="of three processes each (1)")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--out", default=str(RESULT), metavar="FILE", help="what to write (results/changes.json)")
    parser.add_argument("--process", nargs=2, metavar=("SLOWER", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        slower, file = options.process
        write_json(file, measured(float(slower), options))
        return
    neighbours, rounds = machine.Neighbours(), []
    for number in range(options.rounds):
        rounds.append(one_round(options, Path(options.out).with_suffix(f".{number}")))
        print(rounds[-1], flush=True)
    result = {"machine": machine.describe(machine.usable_cores(), options.threads)}
    result |= {"cores_busy_with_others": neighbours.cores(), "passes": PASSES, "planted": PLANTED, "rounds": rounds}
    write_json(options.out, result)


def one_round(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Rows, false alarms among them, and how many of the planted slowdowns were found."""
    reports = []
    for number, slower in enumerate((0.0, 0.0, PLANTED)):
        file = place.with_suffix(f"{place.suffix}.{number}.json")
        command = [sys.executable, __file__, "--seconds", str(options.seconds), "--threads", str(options.threads)]
        subprocess.run([*command, "--only", options.only, "--process", str(slower), str(file)], check=True)
        reports.append(Report.read(file))
        file.unlink()
    same, slowed = (differences(reports[0], other) for other in reports[1:])
    found = [change for change in slowed if change.called and change.times > 1]
    widths = sorted((change.old.high / change.old.low - 1) / 2 for change in same if change.old)
    return {
        "rows": len(same),
        "false_alarms": [[str(change.row.key), change.times] for change in same if change.called],
        "planted_found": len(found),
        "planted_missed": [str(change.row.key) for change in slowed if change not in found],
        "median_half_width": widths[len(widths) // 2],
    }


def measured(slower: float, options: argparse.Namespace) -> dict[str, Any]:
    """A report of this process, as JSON, of programs with so much of their time added."""
    about = machine.describe(machine.usable_cores(), options.threads)
    machine.keep_to(options.threads)
    torch.manual_seed(0)
    cases = [slowed(case, slower) for suite in MEASURED for case in SUITES[suite].cases(True, ())]
    cases = [replace(case, prepare=timed_alone(case.prepare)) for case in cases]
    rows = measure([case for case in cases if options.only in str(case)], seconds=options.seconds)
    return Report(about, Limits(None, 1.0, {1: 1.0}), tuple(rows)).as_json()


def timed_alone(prepare: Callable[[], Prepared]) -> Callable[[], Prepared]:
    """Without what is found out beside the time."""
    return lambda: replace(prepare(), check=None, work=None, kept=None)


def slowed(case: Case, share: float) -> Case:
    """The case with a share of its time added to each call."""

    def prepare() -> Prepared:
        prepared = case.prepare()
        run = prepared.contenders[OURS]

        def run_slower() -> None:
            start = time.perf_counter()
            run()
            stop = time.perf_counter()
            stop += share * (stop - start)
            while time.perf_counter() < stop:
                pass

        prepared.contenders[OURS] = run_slower
        return prepared

    return replace(case, prepare=prepare)


if __name__ == "__main__":
    main()
