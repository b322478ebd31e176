"""Every op is compared: with what its entry among the rivals says, or else with its reference and that compiled."""

import json
import subprocess
import sys
from pathlib import Path

from genfast.benchmarks import gate
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

ROOT = Path(__file__).resolve().parent.parent.parent
# The comparisons at small sizes, nothing compiled: group, case, mode, and contender -> the shapes of what it returns.
SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
torch.compile = lambda function, **options: function
from genfast import testing
from genfast.benchmarks import cases, rivals
MOST = {"B": 4, "H": 6, "W": 6}
bench = cases.shapes
least = lambda sizes: {letter: min(size, MOST.get(letter, 64)) for letter, size in sizes.items()}
cases.shapes = lambda op: {case: least(sizes) for case, sizes in bench(op).items()}
if sys.argv[2:]:
    del rivals.RIVALS[sys.argv[2]], cases.TITLES[sys.argv[2]]
for comparison in cases.comparisons(sys.argv[1]):
    if comparison.mode != "training step":
        comparison.contenders.pop("sgemm", None)
        made = {name: testing.outputs_of(run()) for name, run in comparison.contenders.items()}
        # Good eager has no gradient of the boundary of a scan.
        shapes = {name: [list(getattr(output, "shape", ())) for output in outputs] for name, outputs in made.items()}
        print(json.dumps([comparison.group, comparison.case, comparison.mode, shapes]))
"""


def compared(only="", without=()):
    command = [sys.executable, "-c", SCRIPT, only, *without]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_op_is_compared_in_every_case():
    rows = compared()
    cases = {(case.removesuffix(" contiguous").removesuffix(" channels_last"), mode) for _, case, mode, _ in rows}
    for op, spec in (SPECS | SAMPLERS | NON_DIFFERENTIABLE).items():
        if op != "power_iteration":  # measured with spectral_norm
            modes = ["forward", "forward+backward"] if op in SPECS else ["draw" if op in SAMPLERS else "forward"]
            assert {(case, mode) for case in spec.bench for mode in modes} <= cases, op
    for group, case, mode, shapes in rows:
        assert next(iter(shapes)) == "genfast" and len(shapes) > 1, (group, case, mode)
        if "reference backend" in shapes:
            assert shapes["reference backend"] == shapes["genfast"], (group, case, mode)


def test_an_op_without_an_entry_is_compared_with_its_reference():
    rows = compared("gaussian_nll", ["gaussian_nll"])
    assert {mode for _, _, mode, _ in rows} == {"forward", "forward+backward"}
    for *_, shapes in rows:
        assert list(shapes) == ["genfast", "good eager", "torch.compile"]
        assert len({json.dumps(shape) for shape in shapes.values()}) == 1


def test_the_tests_before_a_measurement_exist():
    tests = gate.tests_of_ops()
    assert len(tests) == 4 and all((ROOT / "tests" / test).is_file() for test in tests)
