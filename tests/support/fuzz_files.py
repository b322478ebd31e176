"""Damaged files through every reader: `python tests/support/fuzz_files.py --files 30000` (make fuzz).

Each reader gets a whole file of its kind, damaged by a seed, in a process of its own. Allowed is what the file says, or
one error of the package: a ValueError, OSError ... of one line, `name: expected ...; got ...`. A signal, any other
exception, another form, more than ten seconds of the processor, or more memory than the images is a failure.
"""

import argparse
import faulthandler
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from support.compressed_readers import READERS

ALLOWED = (ArithmeticError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)  # as the CLI
FORM = re.compile(r".*(expected|must) .*; got .*")
SECONDS = 10  # of the processor for a file
WAITING = 120  # and by the clock, in which a busy machine may do little
BATCH = 200  # files in a process
SLACK = 300 * 2**20


@dataclass
class Failure:
    """What went wrong with a file."""

    reader: str
    seed: int
    kind: str
    text: str


def outcome(reader, seed: int, before: int) -> tuple[str, str]:
    """(kind, text) of one damaged file: read, refused, or what is wrong."""
    path, size = reader.damage(random.Random(seed)), 0
    try:
        size = reader.read(path) or 0
        kind, text = "read", ""
    except ALLOWED as error:
        text = str(error)
        fits = FORM.fullmatch(text) and text.isprintable() and not isinstance(error, KeyError)
        kind = "refused" if fits else "form"
        text = "" if fits else f"{type(error).__name__}: {text!r}"
    except BaseException as error:
        kind, text = "traceback", f"{type(error).__name__}: {str(error)[:200]!r}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if grown > 1.3 * size + SLACK:
        kind, text = "memory", f"{grown >> 20} MiB for {size} bytes; {kind}: {text}"
    return kind, text


def in_a_child(reader, seeds: list[int], pipe: int) -> None:
    """Write `seed kind text` for each file; the last `begun` says which file ended the process."""
    warnings.simplefilter("ignore")
    faulthandler.disable()  # a crash is counted; its traceback would be in the way
    torch.set_num_threads(1)
    with os.fdopen(pipe, "w", buffering=1) as out, open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for seed in seeds:
            out.write(json.dumps([seed, "begun", ""]) + "\n")
            signal.alarm(WAITING)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            kind, text = outcome(reader, seed, before)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            out.write(json.dumps([seed, kind, text[:600]]) + "\n")
            if kind == "memory":
                return  # the peak stays what it is


def batch(reader, seeds: list[int]) -> tuple[Counter, list[Failure]]:
    """The outcomes of some files."""
    counts, failures = Counter(), []
    while seeds:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            code = 1
            try:
                in_a_child(reader, seeds, write_end)
                code = 0
            finally:
                os._exit(code)
        os.close(write_end)
        begun = None
        with os.fdopen(read_end) as lines:
            for line in lines:
                seed, kind, text = json.loads(line)
                begun = seed if kind == "begun" else None
                if kind in ("read", "refused"):
                    counts[kind] += 1
                elif kind != "begun":
                    counts[kind] += 1
                    failures.append(Failure(reader.name, seed, kind, text))
                last = seed
        _, status = os.waitpid(child, 0)
        if begun is not None:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            kind = "time" if number in (signal.SIGALRM, signal.SIGPROF) else "crash"
            counts[kind] += 1
            failures.append(Failure(reader.name, begun, kind, f"signal {number}" if number else f"exit {status >> 8}"))
        seeds = [seed for seed in seeds if seed > last]
    return counts, failures


def fuzz(names: list[str], files: int, first: int, folder: Path):
    """(reader name -> counts and seconds, failures) of about so many files, divided among the readers."""
    readers = [reader(folder) for reader in READERS if reader.name in names]
    weight, result, failures = sum(reader.weight for reader in readers), {}, []
    for reader in readers:
        begun, counts, count = time.perf_counter(), Counter(), max(1, round(files * reader.weight / weight))
        for start in range(first, first + count, BATCH):
            of_batch, failed = batch(reader, list(range(start, min(start + BATCH, first + count))))
            counts += of_batch
            failures += failed
        result[reader.name] = {**dict(sorted(counts.items())), "seconds": round(time.perf_counter() - begun, 1)}
        print(f"{reader.name:20}", *(f"{key} {value}" for key, value in result[reader.name].items()), flush=True)
    return result, failures


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", nargs="*", default=[reader.name for reader in READERS])
    parser.add_argument("--seed", type=int, help="one file of the reader in --only, in this process")
    parser.add_argument("--out", type=Path, help="file for the result")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        if args.seed is not None:
            reader = next(reader for reader in READERS if reader.name in args.only)(folder)
            print("read:", reader.read(reader.damage(random.Random(args.seed))))
            return 0
        result, failures = fuzz(args.only, args.files, args.first, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for failure in failures[:60]:
        print(f"{failure.reader} --seed {failure.seed}: {failure.kind}: {failure.text}")
    total = sum(value for row in result.values() for key, value in row.items() if key != "seconds")
    print(f"{total} files, {len(failures)} failures")
    if args.out:
        about = {
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "files": total,
            "failures": len(failures),
            "readers": result,
        }
        args.out.write_text(json.dumps(about, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
