"""Kills: what a command leaves after it was killed, again and again, and run again to its end.

    python tests/support/kills.py [--every N] [--random K] [--only NAME ...] [--out FILE.json]

A command is killed at its every N-th touch of the disk (a file opened to write, renamed, removed, synchronised), and K
times at any moment from outside. Each time it is run again until it is finished, and all that it holds is compared
with what an unkilled one holds. Torch is imported once: the commands are forked processes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which an optimizer imports, and a forked process then need not

from genfast import cli, folders, models
from genfast.cli.main import make_parser
from genfast.io import write_json
from genfast.tasks import sample
from genfast.train.checkpoint import load_checkpoint
from genfast.train.metrics_log import read_metrics
from genfast.train.run_folder import machine

TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")
OFTEN = ["--steps", 6, "--batch", 4, "--log-every", 1, "--save-every", 2, "--device", "cpu"]
OFTEN_EVALUATED = [*OFTEN, "--eval-every", 3]
TINY = ["--hidden", 2, "--layers", 1, "--head", 4]


@dataclass
class Scenario:
    """A command in a folder that `prepare` has made.

    Attributes:
        first, again: the command, and the one after a kill if the first had begun.
        prepare: makes what must be there, in a folder.
        check: of the folder right after a kill; raises AssertionError.
        whole: the command that an unkilled result is made with, if it is another.
    """

    first: Callable[[Path], list]
    again: Callable[[Path], list]
    prepare: Callable[[Path], None] = lambda folder: None
    check: Callable[[Path], None] = lambda folder: None
    whole: Callable[[Path], list] | None = None


def data(folder: Path) -> None:
    images = np.random.RandomState(0).randint(0, 3, (40, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", train=images[:24], valid=images[24:32], test=images[32:], levels=3)


def training(model: str, *options: object) -> Scenario:
    def first(folder: Path) -> list:
        return ["train", model, "--data", folder / "data.npz", "--out", folder / "run", *options]

    return Scenario(first, resuming(model), data, loads)


def resuming(model: str, *options: object) -> Callable[[Path], list]:
    return lambda folder: ["train", model, "--out", folder / "run", "--resume", *options]


def loads(folder: Path) -> None:
    """A model that is there is whole."""
    for config in folder.glob("*/model/config.json"):
        models.load(config.parent)


def overwritten() -> Scenario:
    """A run that replaces another, which is whole until it is replaced."""
    new = training("vae", *OFTEN_EVALUATED, "--layers", 1, "--hidden", 2, "--seed", 1, "--overwrite")

    def prepare(folder: Path) -> None:
        data(folder)
        assert command(training("pixelcnn", *OFTEN_EVALUATED, *TINY).first(folder))[0] == 0
        (folder / "run" / "model" / "notes.txt").write_text("of a user")
        shutil.copytree(folder / "run", folder / "before")

    def check(folder: Path) -> None:
        state = load_checkpoint(folder / "run")[1] if (folder / "run/checkpoint/state.safetensors").exists() else {}
        if state.get("train", {}).get("seed") == 0 and not (folder / "run" / folders.COMMITTED).exists():
            assert content(folder / "run", hidden=False) == content(folder / "before"), "the run before is not whole"
        assert (folder / "run" / "model" / "notes.txt").read_text() == "of a user"

    return Scenario(new.first, resuming("vae", "--seed", 1), prepare, check)


def prior() -> Scenario:
    """The prior of a VQ-VAE: at its end it is stored in the folder of the VQ-VAE, whose model always loads."""

    def prepare(folder: Path) -> None:
        data(folder)
        sizes = ["--hidden", 4, "--layers", 1, "--codes", 8, "--downsampling", 1]
        out = ["--out", folder / "vq", "--data", folder / "data.npz"]
        assert command(["train", "vq-vae", *out, *OFTEN_EVALUATED, *sizes])[0] == 0

    def first(folder: Path) -> list:
        codes = f"codes:{folder / 'vq'}"
        return ["train", "pixelcnn", "--data", codes, "--out", folder / "run", *OFTEN_EVALUATED, *TINY]

    again = lambda folder: [*resuming("pixelcnn")(folder), "--data", f"codes:{folder / 'vq'}"]  # noqa: E731
    return Scenario(first, again, prepare, loads)


def sampling() -> Scenario:
    def prepare(folder: Path) -> None:
        torch.manual_seed(0)
        models.build("pixelcnn", hidden=2, layers=1, head=4, height=4, width=4).save_pretrained(folder / "model")

    def shards(folder: Path) -> list:
        return ["sample", folder / "model", "-n", 45, "--shard", 10, "--out", folder / "shards"]

    return Scenario(shards, shards, prepare)


def minutes() -> Scenario:
    """A training in parts of one step each, beside one that nothing stops."""
    whole = training("pixelcnn", *OFTEN_EVALUATED, *TINY)
    one = ["--minutes", 1e-9]
    first, again = (lambda folder, part=part: [*part(folder), *one] for part in (whole.first, whole.again))
    return Scenario(first, again, data, loads, whole.first)


def saving() -> Scenario:
    """A model that replaces another in a folder with files of others: a reader finds the one or the other."""

    def prepare(folder: Path) -> None:
        torch.manual_seed(0)
        for name, hidden in (("model", 2), ("other", 3)):
            models.build("pixelcnn", hidden=hidden, layers=1, head=4, height=4, width=4).save_pretrained(folder / name)
        (folder / "model" / "README.md").write_text("of a user")

    def save(folder: Path) -> list:
        return [lambda: models.load(folder / "other").save_pretrained(folder / "model")]

    def check(folder: Path) -> None:
        assert models.load(folder / "model").config.hidden in (2, 3)
        assert (folder / "model" / "README.md").read_text() == "of a user"

    return Scenario(save, save, prepare, check)


SCENARIOS: dict[str, Scenario] = {
    "pixelcnn": training("pixelcnn", *OFTEN_EVALUATED, *TINY),
    "vae": training("vae", *OFTEN_EVALUATED, "--layers", 1, "--hidden", 2),
    "dcgan": training("dcgan", *OFTEN, "--stages", 1, "--features", 4, "--latent", 2, "--grid-every", 0.5),
    "vq-vae with prior": prior(),
    "train --overwrite": overwritten(),
    "train --minutes": minutes(),
    "sample": sampling(),
    "save_pretrained": saving(),
}


def command(argv: list, kill_at: int = 0, seconds: float = 0.0) -> tuple[int, int, str]:
    """Run a command in a forked process: (exit code, -9 if it was killed; touches of the disk; what it printed).

    Args: kill_at, the number of the touch before which it dies; seconds, after which it is killed from outside.
    """
    with tempfile.TemporaryFile() as report, tempfile.TemporaryFile() as printed:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            os.write(report.fileno(), b"%d" % _run(argv, kill_at))
            os._exit(_run.code)
        if seconds:
            time.sleep(seconds)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        texts = []
        for file in (report, printed):
            file.seek(0)
            texts.append(file.read().decode())
        return os.waitstatus_to_exitcode(status), int(texts[0] or 0), texts[1]


def _run(argv: list, kill_at: int) -> int:
    """Run a command in this process, which dies before its touch number `kill_at`; returns how many there were."""
    touches = 0

    def touch() -> None:
        nonlocal touches
        touches += 1
        if touches == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, about: tuple) -> None:
        if event in TOUCHES or (event == "open" and isinstance(about[2], int) and about[2] & (os.O_WRONLY | os.O_RDWR)):
            touch()

    def counted(call: Callable) -> Callable:
        def wrapper(*args: object) -> object:
            touch()
            return call(*args)

        return wrapper

    sys.addaudithook(audit)
    os.fsync, folders._exchange = counted(os.fsync), counted(folders._exchange)
    torch.set_num_threads(1)
    if callable(argv[0]):
        argv[0]()
        _run.code = 0
    else:
        try:
            _run.code = cli.main([str(word) for word in argv])
        except SystemExit as exit:
            _run.code = int(exit.code or 0)
    sys.stdout.flush()
    return touches


def content(folder: Path, hidden: bool = True) -> dict:
    """All that a folder holds, by path, but for times and speeds."""
    held = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or (not hidden and name.startswith(".")):
            continue
        if path.name == "state.safetensors":
            tensors, state = load_checkpoint(path.parent.parent)
            values = {key: (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for key, t in tensors.items()}
            held[name] = values | {"state": {key: value for key, value in state.items() if key != "seconds"}}
        elif path.name == "metrics.jsonl":
            held[name] = [{k: v for k, v in r.items() if "second" not in k} for r in read_metrics(path)]
        elif path.name == "config.json":
            held[name] = json.loads(path.read_text()) | {"machine": None}
        else:
            held[name] = path.read_bytes()
    return held


class Kills:
    """The kills of one scenario, in a folder."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.scenario, self.work = name, SCENARIOS[name], work
        self.live, self.clean = work / "live", work / "clean"
        self.kills, self.differences = 0, []
        self.clean.mkdir(parents=True)
        # The paths are the same in every life of the folder: they stand in config.json.
        self.live.mkdir()
        self.scenario.prepare(self.live)
        shutil.copytree(self.live, self.clean, dirs_exist_ok=True, copy_function=shutil.copy2)
        started = time.monotonic()
        code, self.touches, printed = command((self.scenario.whole or self.scenario.first)(self.live))
        assert code == 0, f"{name}: {printed}"
        self.seconds = time.monotonic() - started
        self.lives = range(1)
        if self.scenario.whole:  # which the command takes several lives for
            self.touches, self.lives = 30, range(0, 6, 2)
        self.expected = content(self.live)

    def kill(self, *moments: dict) -> None:
        """Kill the command at these moments of its lives, one after the other; then let it finish, and compare."""
        shutil.rmtree(self.live)
        shutil.copytree(self.clean, self.live)
        try:
            for moment in moments:
                code, _, printed = self.next_life(**moment)
                if code == -signal.SIGKILL:
                    self.kills += 1
                    self.scenario.check(self.live)
            for _ in range(100):
                code, _, printed = self.next_life()
                assert code == 0, printed
                if "stopped at step" not in printed:
                    break
            different = differing(self.expected, content(self.live))
            assert not different, different
        except (AssertionError, OSError, ValueError) as error:
            self.differences.append(f"{self.name} {moments}: {type(error).__name__}: {error}")
            print(self.differences[-1], file=sys.stderr)

    def next_life(self, **moment: float) -> tuple[int, int, str]:
        """As a user would: go on, and start if there is nothing to go on from."""
        result = command(self.scenario.again(self.live), **moment)
        return command(self.scenario.first(self.live), **moment) if result[0] == 2 else result


def differing(expected: dict, got: dict) -> list[str]:
    """The paths at which two folders differ."""
    return [name for name in sorted({*expected, *got}) if expected.get(name) != got.get(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="kill at every N-th touch of the disk (1)")
    parser.add_argument("--random", type=int, default=10, metavar="K", help="kills at any moment, of each command (10)")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--out", type=Path, help="where the result goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_parser()
    sample(models.build("pixelcnn", hidden=2, layers=1, head=4, height=4, width=4), 1)
    rows, differences, moments = {}, [], random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            kills = Kills(name, Path(folder) / name.replace(" ", "-"))
            for life in kills.lives:
                for touch in range(1 + (kills.touches - 1) % options.every, kills.touches + 1, options.every):
                    kills.kill(*[{}] * life, {"kill_at": touch})
            at_touches = kills.kills
            while kills.kills < at_touches + options.random:
                kills.kill(*({"seconds": kills.seconds * moments.random()} for _ in range(2)))
            rows[name] = {"touches": kills.touches, "kills": kills.kills, "differences": len(kills.differences)}
            differences += kills.differences
            print(f"{name}: {kills.touches} touches, {kills.kills} kills, {len(kills.differences)} differences")
    total = sum(row["kills"] for row in rows.values())
    print(f"{total} kills, {len(differences)} differences")
    if options.out:
        about = machine(torch.device("cpu"))
        write_json(options.out, {"kills": total, "differences": differences, "commands": rows, "machine": about})
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
