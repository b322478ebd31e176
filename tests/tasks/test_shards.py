"""Samples in a folder: the same files whatever happened on the way, and one error for what stands in it."""

import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from support.sampled import tiny

import genfast as library
from genfast import folders
from genfast.data import load
from genfast.tasks.shards import archive, digest, sample_shards

GENFAST = [sys.executable, "-m", "genfast"]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a model."""
    folder = tmp_path_factory.mktemp("runs") / "model"
    tiny("pixelcnn binary").save_pretrained(folder)
    return folder


def test_the_files_hold_the_samples(tmp_path):
    model, done = tiny("gated-pixelcnn"), []
    labels = torch.arange(25) % 2
    options = {"seed": 5, "first": 3, "labels": labels, "temperature": 1.5}
    drawn = sample_shards(model, 25, tmp_path / "a", shard=10, progress=done.append, **options)
    assert drawn == 25 and done == [10, 10, 5]
    assert sorted(files_of(tmp_path / "a")) == ["manifest.json", *(f"samples-0000{i}.npz" for i in range(3))]
    expected = library.sample(model, 25, **options)
    parts = [dict(np.load(tmp_path / "a" / f"samples-0000{i}.npz")) for i in range(3)]
    assert np.array_equal(np.concatenate([part["images"] for part in parts]), expected)
    assert np.array_equal(np.concatenate([part["labels"] for part in parts]), labels)
    assert all(part["levels"] == 3 and part["images"].dtype == np.uint8 for part in parts)
    data = load(tmp_path / "a" / "samples-00000.npz", split="train")
    assert data.levels == 3 and data.classes == 2
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert (manifest["n"], manifest["first"], manifest["seed"], manifest["shard"]) == (25, 3, 5, 10)
    assert manifest["digest"] == digest(model) and manifest["model"] == "gated-pixelcnn"


def test_the_same_bytes_by_any_batch_and_on_any_day(tmp_path, monkeypatch):
    model = tiny("pixelcnn colour")
    sample_shards(model, 30, tmp_path / "a", shard=12)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    sample_shards(model, 30, tmp_path / "b", shard=12, batch_size=5)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert archive({"images": np.zeros(3)}) == archive({"images": np.zeros(3)}) != archive({"images": np.ones(3)})
    assert sample_shards(model, 0, tmp_path / "c") == 0 and set(files_of(tmp_path / "c")) == {"manifest.json"}


def test_what_is_missing_or_damaged_is_drawn_again(tmp_path):
    model = tiny("pixelcnn binary")
    sample_shards(model, 50, tmp_path, shard=10)
    whole, ages = files_of(tmp_path), {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (tmp_path / "samples-00001.npz").unlink()
    (tmp_path / "samples-00003.npz").write_bytes(whole["samples-00003.npz"][:-30])
    (tmp_path / ".samples-00002.npz.tmp").write_bytes(b"torn")
    (tmp_path / ".manifest.json.tmp").write_bytes(b"torn")
    assert sample_shards(model, 50, tmp_path, shard=10) == 20
    assert files_of(tmp_path) == whole
    kept = [f"samples-0000{i}.npz" for i in (0, 2, 4)]
    assert all((tmp_path / name).stat().st_mtime_ns == ages[name] for name in kept)
    assert sample_shards(model, 50, tmp_path, shard=10) == 0


def test_other_settings_are_refused(tmp_path):
    model = tiny("pixelcnn binary")
    sample_shards(model, 30, tmp_path, shard=10)
    whole = files_of(tmp_path)
    changes = ({"seed": 1}, {"first": 1}, {"temperature": 2.0}, {"shard": 15}, {"backend": "full_forward"})
    for change in changes:
        with pytest.raises(ValueError, match=rf"expected the {next(iter(change))} of the samples that are there, "):
            sample_shards(model, 30, tmp_path, **({"shard": 10} | change))
    with pytest.raises(ValueError, match="expected the n of the samples that are there, 30, or another folder; got 40"):
        sample_shards(model, 40, tmp_path, shard=10)
    with pytest.raises(ValueError, match="expected the digest of the samples"):
        other = library.models.build("pixelcnn", hidden=3, layers=1, head=4, height=2, width=3)
        sample_shards(other, 30, tmp_path, shard=10)
    assert files_of(tmp_path) == whole
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"or their manifest\.json; got samples-00000\.npz"):
        sample_shards(model, 30, tmp_path, shard=10)


@pytest.mark.skipif(folders.fcntl is None, reason="needs fcntl")
def test_two_processes_do_not_write_into_one_folder(tmp_path):
    with folders.only_writer(tmp_path), pytest.raises(RuntimeError, match="expected no other process"):
        sample_shards(tiny("pixelcnn binary"), 10, tmp_path)
    assert sample_shards(tiny("pixelcnn binary"), 10, tmp_path) == 10


def start(*argv, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*GENFAST, *map(str, argv)], env=environment, **pipes, **options)


def test_killed_at_any_moment_and_started_again(run, tmp_path):
    """The same set of files, byte for byte, none torn, none twice."""
    command = ["sample", run, "-n", 90_000, "--shard", 2000, "--seed", 7, "--batch-size", 500]
    process = start(*command, "--out", tmp_path / "whole")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    expected, out = files_of(tmp_path / "whole"), tmp_path / "out"
    assert len(expected) == 46
    moments = random.Random(3)
    for _ in range(3):
        begun = len(list(out.glob("samples-*"))) if out.exists() else 0
        process = start(*command, "--out", out)
        # The kill comes while shards are being written.
        deadline = time.monotonic() + 300
        while len(list(out.glob("samples-*"))) <= begun and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.05 * moments.random())
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)
        there = {name: content for name, content in files_of(out).items() if not name.startswith(".")}
        assert there and all(expected[name] == content for name, content in there.items())
    process = start(*command, "--out", out)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0 and stderr == "" and "90000 images, " in stdout and "there already" in stdout
    assert files_of(out) == expected


def test_a_full_disk_is_one_error_and_what_is_finished_stays(genfast, run, tmp_path):
    command = ["sample", run, "-n", 60, "--shard", 20, "--out", tmp_path / "out"]
    assert genfast(*command[:-1], tmp_path / "whole")[0] == 0
    size = max(path.stat().st_size for path in (tmp_path / "whole").glob("*.npz"))
    assert size > (tmp_path / "whole" / "manifest.json").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
        code, out, err = genfast(*command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and out == "" and err.count("\n") == 1 and "samples-0000" in err and "File too large" in err
    finished, whole = files_of(tmp_path / "out"), files_of(tmp_path / "whole")
    assert 0 < len(finished) < len(whole) and all(whole[name] == content for name, content in finished.items())
    assert genfast(*command)[0] == 0 and files_of(tmp_path / "out") == whole


def test_the_command_line(genfast, run, tmp_path):
    command = ["sample", run, "--seed", 4, "--batch-size", 7]
    code, out, err = genfast(*command, "-n", 25, "--shard", 10, "--out", tmp_path / "f")
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path / 'f'}: 25 images, ") and out.endswith(" images/s\n")
    code, out, _ = genfast(*command, "-n", 25, "--shard", 10, "--out", tmp_path / "f")
    assert code == 0 and out.endswith(": 25 images, all there already\n")
    code, _, err = genfast(*command, "-n", 26, "--shard", 10, "--out", tmp_path / "f")
    assert code == 2 and "or another folder; got 26" in err and err.count("\n") == 1
    whole = np.concatenate([np.load(path)["images"] for path in sorted((tmp_path / "f").glob("*.npz"))])
    for first, n, backend in ((0, 11, "auto"), (11, 14, "full_forward")):
        out = tmp_path / f"{first}.npz"
        assert genfast(*command, "-n", n, "--first", first, "--backend", backend, "--out", out)[0] == 0
        assert np.array_equal(np.load(out)["images"], whole[first : first + n])


@pytest.fixture
def images(tmp_path):
    truth = library.sample(tiny("pixelcnn binary"), 12, seed=9).numpy()
    np.savez(tmp_path / "data.npz", train=truth, valid=truth, levels=2)
    return tmp_path / "data.npz"


def test_inpaint_and_denoise_write_rows_of_before_and_after(genfast, run, images, tmp_path):
    np.savez(tmp_path / "mask.npz", mask=np.eye(2, 3, dtype=bool))
    for mask in ("lower", "upper", "left", "right", "center", "random:0.5", tmp_path / "mask.npz"):
        options = ["--data", images, "--mask", mask, "-n", 4, "--steps", 5, "--overwrite", "--out", tmp_path / "i.png"]
        code, out, err = genfast("inpaint", run, *options)
        assert code == 0 and "valid is used" in err and "4 images, each: truth, input, 3 results; " in out
        assert ("exact without a chain" if mask in ("lower", "center") else "accepted: all") in out
        cells = np.asarray(Image.open(tmp_path / "i.png"))
        assert cells.shape == (4 * 38 - 2, 5 * 56 - 2) and 128 in cells
    assert "raster order" in genfast("inpaint", run, *options, "--order", "raster")[1]
    for noise, method in (("bitflip:0.1", "map"), ("gaussian:0.2", "mean")):
        options = ["--data", images, "--noise", noise, "--method", method, "--split", "valid", "--steps", 4]
        code, out, err = genfast(
            "denoise", run, *options, "-n", 3, "--samples", 2, "--overwrite", "--out", tmp_path / "d.png"
        )
        assert (code, err) == (0, "") and f"3 images, each: truth, noisy, a posterior sample, {method}" in out
        assert "PSNR " in out and " dB noisy, " in out and "accepted: " in out
        assert np.asarray(Image.open(tmp_path / "d.png")).shape == (3 * 38 - 2, 4 * 56 - 2)


WRONG = [
    (["sample", "{run}", "--out", "{tmp}/file"], "file"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--first", str(2**63)], "first + n must be at most 2**63"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--first", "-1"], "at least 0; got -1"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--backend", "fast"], "'fast'"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--batch-size", "0"], "at least 1; got 0"),
    (["inpaint", "{run}", "--data", "{data}", "--mask", "lower", "--out", "{tmp}/a.npz"], "ending in .png; got .npz"),
    (["inpaint", "{run}", "--data", "{data}", "--mask", "all", "--out", "{tmp}/a.png"], "or FILE.npz; got all"),
    (["inpaint", "{run}", "--data", "{data}", "--mask", "random:2", "--out", "{tmp}/a.png"], "a share in 0 to 1"),
    (["inpaint", "{run}", "--data", "{data}", "--mask", "{data}", "--out", "{tmp}/a.png"], "expected an array 'mask'"),
    (["inpaint", "{run}", "--data", "digits", "--mask", "lower", "--out", "{tmp}/a.png"], "got (1, 8, 8, 16)"),
    (["inpaint", "{run}", "--mask", "lower", "--out", "{tmp}/a.png"], "expected --data"),
    (["denoise", "{run}", "--data", "{data}", "--noise", "bitflip:2", "--out", "{tmp}/a.png"], "0 and 1; got 2.0"),
    (["denoise", "{run}", "--data", "{data}", "--noise", "salt:0.1", "--out", "{tmp}/a.png"], "got salt:0.1"),
    (["denoise", "{run}", "--data", "{data}", "--noise", "gaussian:x", "--out", "{tmp}/a.png"], "P or gaussian:SIGMA"),
    (["denoise", "{run}", "--data", "{data}", "--noise", "bitflip", "--out", "{tmp}/a.png"], "expected bitflip:P or"),
    (["inpaint", "{run}", "--data", "{data}", "--mask", "random:x", "--out", "{tmp}/a.png"], "expected random:SHARE"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--seed", "-1"], "error: sample: seed must lie in"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--first", str(2**63)], "error: sample: first + n"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "-n", "abc"], "expected a whole number of at least 1; got abc"),
    (["sample", "{run}", "--out", "{tmp}/a.npz", "--label", "1,x"], "expected whole numbers such as 0,1,2; got x"),
]


@pytest.mark.parametrize(("argv", "fragment"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_errors_are_one_line_and_exit_2(genfast, run, images, tmp_path, argv, fragment):
    (tmp_path / "file").write_text("x")
    names = {"tmp": tmp_path, "run": run, "data": images}
    code, out, err = genfast(*(word.format(**names) for word in argv))
    lines = [line for line in err.splitlines() if "valid is used" not in line]
    assert code == 2 and len(lines) == 1 and lines[0].startswith("genfast") and fragment in lines[0]
    assert not out or re.fullmatch(r".*: 12 images of 3x2, .*\n", out), "at most which data these are"


@pytest.mark.parametrize(
    ("options", "total"),
    [
        (["inpaint", "--mask", "upper", "--batch-size", 4], 4 * 5),  # 5 images, 3 results of each
        (["inpaint", "--mask", "lower", "--batch-size", 4], 4 * 5),  # no chain is needed
        (["inpaint", "--mask", "upper", "--order", "raster"], 0),
        (["denoise", "--noise", "bitflip:0.2", "--batch-size", 2, "--samples", 2], 3 * 2 * 5),
        (["denoise", "--noise", "bitflip:0.2", "--batch-size", 2, "--method", "sample"], 3 * 5),
        (["denoise", "--noise", "bitflip:0.2"], 4 * 5),
    ],
)
def test_a_bar_ends_at_its_total(genfast, run, images, tmp_path, monkeypatch, options, total):
    totals, done = [], []

    @contextlib.contextmanager
    def counter(total, unit):
        totals.append(total)
        yield done.append

    monkeypatch.setattr("genfast.cli.sample.counter", counter)
    monkeypatch.setattr("genfast.cli._engine.counter", counter)
    options = [*options, "--steps", 5, "-n", 5, "--data", images, "--split", "valid", "--out", tmp_path / "a.png"]
    assert genfast(options[0], run, *options[1:])[0] == 0
    assert totals == ([total] if total else []) and sum(done) == total
