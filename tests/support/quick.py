"""The tests that a change most likely breaks, for `make quick`: python quick.py [base].

The change is what differs from the base, the commit at which the branch left main if none is given, and what git does
not know yet. The tests stand in the room of what they test, in a file of its name.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from genfast._native import backends
from genfast.reference import NON_DIFFERENTIABLE, SAMPLERS, SPECS

ROOT = Path(__file__).resolve().parent.parent.parent
# What a change of what all ops share most likely breaks of them.
CORE = "cpp and (matches_reference or same_draws_as or same_results)"
# These ask for sets of instructions that make quick does not build, and for the objects that make test leaves.
ELSEWHERE = "not (threads_and_isas or kernel_objects)"
# What stands elsewhere than its name says -> the tests.
OTHERS = {
    "CMakeLists.txt": "native",
    "csrc/core/ans.h": "engine/test_bits_back.py",
    "csrc/engine/bits_back": "engine/test_bits_back.py",
    "csrc/engine/latent_bins.h": "engine/test_bits_back.py",
    "csrc/engine/value_bins.h": "engine/test_bits_back.py",
    "csrc/engine/network": "engine/test_network.py",
    "genfast/engine/compiler/layers.py": "engine/test_network.py",
    "csrc/engine": "engine/test_pixel_program.py",
    "kernels/pixel_program.py": "engine/test_pixel_program.py",
    "genfast/testing.py": "losses",
    "genfast/explain.py": "native",
    "genfast/io.py": "data",
    "benchmarks": "benchmarks",
}


def changed_files(base):
    def git(*command):
        return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()

    base = base or git("merge-base", "HEAD", "main")[0]
    return [*git("diff", "--name-only", "--diff-filter=d", base), *git("ls-files", "--others", "--exclude-standard")]


def ops_beside(stem):
    return [op for op in (*SPECS, *SAMPLERS, *NON_DIFFERENTIABLE) if backends.stem(op) == stem]


def tests_of(path):
    """Yields (file or folder of tests, which of its tests or none for all) for a file that has changed."""
    tests, top, room, stem = ROOT / "tests", path.parts[0], path.parts[1 % len(path.parts)], path.stem
    other = next((value for start, value in OTHERS.items() if str(path).startswith(start)), None)
    if top == "tests" and stem.startswith("test_"):
        yield ROOT / path, None
    elif top == "tests":
        imports = re.compile(rf"support(\.| import .*\b){stem}\b")
        users = [file for file in tests.rglob("test_*.py") if imports.search(file.read_text())]
        yield from ((file, CORE if file.stem.startswith("test_every_") else None) for file in users)
    elif other:
        yield tests / other, None
    elif (top in ("csrc", "kernels") or room in ("ops", "reference")) and ops_beside(stem):
        yield tests / f"ops/test_{stem}.py", None
        which = " or ".join(f"{op}-" for op in ops_beside(stem))
        yield from ((file, f"({which})") for file in tests.glob("ops/test_every_*.py"))
    elif top in ("csrc", "kernels") or room in ("_native", "ops", "reference"):
        yield from ((file, CORE) for file in tests.glob("ops/test_every_*.py"))
        yield tests / "native", None
    elif top == "genfast":
        own = tests / room / f"test_{stem}.py"
        yield own if own.exists() else tests / room, None


def commands(paths):
    """(arguments of pytest, whether Triton is to interpret its kernels) of each process for these changes."""
    tests = {test: which for path in paths for test, which in tests_of(path) if test.exists()}
    tests[ROOT / "tests/test_codebase.py"] = None
    clauses = [f"{test.name} and {which}" if which else test.name for test, which in tests.items()]
    files = [str(test.relative_to(ROOT)) for test in tests]
    yield [*files, "-k", f"{ELSEWHERE} and ({' or '.join(clauses)})"], False
    stems = [path.stem for path in paths if path.parts[0] == "kernels"]
    ops = [op for stem in stems for op in ops_beside(stem)]
    if ops:
        which = " or ".join(f"{op}-triton" for op in ops)
        files = [str(file) for file in sorted((ROOT / "tests/ops").glob("test_every_*.py"))]
        yield [*files, "-m", "interpreted", "-k", f"({which}) and (matches or same_draws)"], True


def main(base=None):
    paths = [Path(path) for path in changed_files(base)]
    failed = 0
    for arguments, interpreted in commands(paths):
        environment = {"TRITON_INTERPRET": "1", "GENFAST_REQUIRE": "cpp,triton"} if interpreted else {}
        # Not `python -m pytest`: it would find the checkout first, where there is no genfast._C.
        command = [Path(sys.executable).with_name("pytest"), "-q", "-n", "2", "-m", "not slow", *arguments]
        print(*arguments, flush=True)
        failed |= subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
