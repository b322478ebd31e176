"""Run folders: one writer, nothing of others touched, nothing left by what is refused, and kills that lose nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from genfast import folders, io, models
from genfast.cli.main import make_parser
from genfast.train.run_folder import clear_run, is_run, run_writer

TRAIN = ["train", "pixelcnn", "--hidden", 2, "--layers", 1, "--head", 4, "--batch", 4, "--steps", 3, "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    images = np.random.RandomState(0).randint(0, 3, (30, 4, 4), dtype=np.uint8)
    np.savez(path, train=images[:20], valid=images[20:25], test=images[25:], levels=3)
    return path


@pytest.fixture
def run(genfast, data, tmp_path):
    code, _, err = genfast(*TRAIN, "--data", data, "--out", tmp_path / "run")
    assert code == 0, err
    return tmp_path / "run"


def held(folder):
    """All files below a folder, and its links as such."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes() for path in paths
    }


def refused(genfast, *argv):
    code, out, err = genfast(*argv)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


OTHERS = {
    "config.json": '{"lr": 1}',
    "metrics.jsonl": '{"loss": 1}\n',
    "model/weights.bin": "x",
    "samples/mine.png": "x",
    "checkpoint/last.ckpt": "x",
    "checkpoint/state.safetensors": "x",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("command", [TRAIN, [*TRAIN, "--overwrite"], ["demo"], ["demo", "--overwrite"]], ids=str)
def test_a_folder_of_something_else_stays_as_it_is(genfast, data, tmp_path, name, command):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text(OTHERS[name])
    options = ["--data", data] if command[0] == "train" else []
    err = refused(genfast, *command, *options, "--out", tmp_path / "out")
    assert f"got {name.split('/')[0]}, which no run of genfast wrote" in err
    assert held(tmp_path / "out") == {name: OTHERS[name].encode()}


@pytest.mark.parametrize("name", ["checkpoint", "model", "samples", "metrics.jsonl", "config.json"])
@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_links_in_a_run_are_not_followed(genfast, data, run, tmp_path, name, option):
    there, place = tmp_path / "there", run / name
    if place.exists():
        place.rename(there)
    else:
        there.mkdir()
    place.symlink_to(there)
    before = held(run), held(tmp_path)
    assert f"run/{name}: expected a f" in refused(genfast, *TRAIN, "--data", data, "--out", run, option)
    assert (held(run), held(tmp_path)) == before


def test_a_run_is_neither_replaced_nor_destroyed_unasked(genfast, data, run):
    before = held(run)
    for command in ([*TRAIN, "--data", data], ["demo"]):
        assert "or --overwrite; got a run" in refused(genfast, *command, "--out", run)
    (run / "index.html").write_text("of a user")
    assert "index.html: expected a name that is free" in refused(genfast, "demo", "--out", run, "--overwrite")
    refused(genfast, *TRAIN, "--data", data, "--out", run, "--overwrite", "--lr", "-1")
    refused(genfast, *TRAIN, "--data", data, "--out", run, "--overwrite", "--batch", "100", "--device", "none")
    assert held(run) == before | {"index.html": b"of a user"}


def test_overwriting_removes_what_the_run_wrote_and_no_more(genfast, data, run):
    mine = {"notes.txt": b"1", "model/README.md": b"2", "samples/step-1.png": b"3", "checkpoint/old.bin": b"4"}
    for name, content in mine.items():
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(content)
    (run / "samples" / "step-0000100.png").write_text("of the run")
    before = held(run)
    assert genfast(*TRAIN, "--data", data, "--out", run, "--overwrite", "--seed", 1)[0] == 0
    after = held(run)
    assert {name: after[name] for name in mine} == mine and set(before) - set(after) == {"samples/step-0000100.png"}
    assert after["model/model.safetensors"] != before["model/model.safetensors"]
    clear_run(run)
    assert held(run) == mine


def test_a_run_of_the_first_version_is_read_and_replaced(genfast, data, run):
    settings = json.loads((run / "config.json").read_text())
    assert settings.pop("genfast_run") == 1
    (run / "config.json").write_text(json.dumps(settings))
    assert is_run(run) and genfast("train", "pixelcnn", "--out", run, "--resume")[0] == 0
    assert genfast(*TRAIN, "--data", data, "--out", run, "--overwrite")[0] == 0


def test_one_writer(genfast, data, run, tmp_path):
    code = f"with only_writer({str(run)!r}): print(1, flush=True), sys.stdin.read()"
    code = f"import sys\nfrom genfast.folders import only_writer\n{code}"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"1\n"
    before = held(run)
    for option in ("--resume", "--overwrite"):
        err = refused(genfast, *TRAIN, "--data", data, "--out", run, option)
        assert f"{run}: expected no other process that writes there; got process {holder.pid} on " in err
        assert " UTC: wait until it ends, stop it, or take another folder" in err
    assert held(run) == before
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (run / folders.LOCK).exists(), "a killed process cannot remove it, but it no longer holds it"
    assert genfast("train", "pixelcnn", "--out", run, "--resume")[0] == 0
    assert not (run / folders.LOCK).exists()
    with run_writer(run, resume=True), pytest.raises(RuntimeError, match=f"got process {os.getpid()} on "):
        with run_writer(run, resume=True):
            pass


def test_what_is_refused_leaves_nothing(genfast, data, tmp_path):
    for options in (["--data", "none"], ["--data", data, "--init-from", "none"], ["--data", data, "--resume"]):
        refused(genfast, *TRAIN, *options, "--out", tmp_path / "a" / "b" / "c")
        assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    refused(genfast, *TRAIN, "--data", "none", "--out", tmp_path / "a" / "b")
    assert not list((tmp_path / "a").iterdir())
    refused(genfast, "sample", "none", "--out", tmp_path / "a" / "b" / "x.png")
    assert not list((tmp_path / "a").iterdir())


def test_a_received_prior_writes_to_no_other_run(genfast, data, tmp_path):
    small = ["--hidden", 4, "--layers", 1, "--codes", 8, "--steps", 2, "--device", "cpu"]
    assert genfast("train", "vq-vae", "--data", data, "--out", tmp_path / "vq", *small)[0] == 0
    codes = ["--data", f"codes:{tmp_path / 'vq'}"]
    code, _, err = genfast(*TRAIN, *codes, "--out", tmp_path / "prior", "--minutes", 1e-9)
    assert code == 0 and f"--resume --data codes:{tmp_path / 'vq'}" in err
    before = held(tmp_path / "vq")
    code, _, err = genfast("train", "pixelcnn", "--out", tmp_path / "prior", "--resume")
    assert code == 0 and f"becomes the prior of codes:{tmp_path / 'vq'} with --resume --data" in err
    assert held(tmp_path / "vq") == before
    assert genfast("train", "pixelcnn", "--out", tmp_path / "prior", "--resume", *codes)[0] == 0
    assert models.load(tmp_path / "vq" / "model").prior is not None


# files that are whole


def pixelcnn(hidden):
    torch.manual_seed(hidden)
    return models.build("pixelcnn", hidden=hidden, layers=1, head=4, height=4, width=4)


@pytest.mark.parametrize("system", ["exchanges folders", "does not"])
def test_a_model_is_replaced_whole_beside_files_of_others(tmp_path, monkeypatch, system):
    if system == "does not":
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    folder = tmp_path / "model"
    pixelcnn(2).save_pretrained(folder)
    folder.chmod(0o750)
    pixelcnn(3).save_pretrained(folder)
    assert models.load(folder).config.hidden == 3 and folder.stat().st_mode & 0o777 == 0o750
    (folder / "README.md").write_text("of a user")
    pixelcnn(4).save_pretrained(folder)
    assert models.load(folder).config.hidden == 4
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_reader_sees_one_model_while_another_is_saved(tmp_path, monkeypatch):
    pixelcnn(2).save_pretrained(tmp_path)
    original, states = folders._state, iter((1, 0, 0))

    def state(folder):
        before = original(folder)
        if next(states, 0):  # the config of the one has been read, the weights have not
            pixelcnn(3).save_pretrained(tmp_path)
        return before

    monkeypatch.setattr(folders, "_state", state)
    assert models.load(tmp_path).config.hidden == 3


def test_temporary_names_cannot_be_foreseen_and_leave_nothing(tmp_path):
    (tmp_path / "victim").write_text("of a user")
    for name in (".a.json.tmp", f".writable-{os.getpid()}"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    (tmp_path / "a.json").symlink_to(tmp_path / "victim")
    before = os.umask(0o027)
    try:
        io.check_writable(tmp_path)
        io.write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "victim").read_text() == "of a user" and (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == [".a.json.tmp", f".writable-{os.getpid()}", "a.json", "victim"]
    with pytest.raises(ValueError, match="^half way$"), io.replacing(tmp_path / "x" / "y" / "b.json") as file:
        file.write(b"half")
        raise ValueError("half way")
    assert not (tmp_path / "x").exists()


def test_what_a_killed_process_left_is_swept_by_the_next(run, tmp_path):
    left = [io.temporary(folder) for folder in (run, run / "checkpoint", run / "model", tmp_path)]
    for path in left:
        path.mkdir(parents=True)
        (path / "config.json").write_text("half")
    (run / ".config.json.tmp").write_text("half")
    (tmp_path / ".config.json.tmp").write_text("in a folder that is no run")
    with io.replacing(run / "plot.png") as file:  # of a process that lives
        with run_writer(run, resume=True), run_writer(tmp_path, resume=True):
            assert [path.exists() for path in left] == [False, False, False, True]
        file.write(b"whole")
    assert (run / "plot.png").read_bytes() == b"whole" and not (run / ".config.json.tmp").exists()
    assert (tmp_path / ".config.json.tmp").exists()


# what a command writes


def test_no_command_replaces_what_is_there(genfast, run, data, tmp_path):
    def options(parser):
        return {word for action in parser._actions for word in action.option_strings}

    commands = make_parser()._actions[-1].choices
    parsers = [*commands.values(), *commands["train"]._actions[-1].choices.values()]
    writing = [options(parser) for parser in parsers if "--out" in options(parser)]
    assert len(writing) == 14 + len(models.MODELS) and all("--overwrite" in words for words in writing)
    os.mkfifo(tmp_path / "pipe.png")
    assert "got a device or a pipe" in refused(genfast, "sample", run, "--overwrite", "--out", tmp_path / "pipe.png")
    for name in ("a.png", "b.npz"):
        (tmp_path / name).write_text("of a user")
        sample = ["sample", run, "-n", 1, "--out", tmp_path / name]
        assert "expected a name that is free, or --overwrite; got a file" in refused(genfast, *sample)
        assert (tmp_path / name).read_text() == "of a user"
        assert genfast(*sample, "--overwrite")[0] == 0 and (tmp_path / name).read_bytes() != b"of a user"


def test_no_command_replaces_what_it_reads(genfast, run, data, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.png").write_text("a photo")
    (tmp_path / "link.npz").symlink_to(data)
    before = held(run), held(tmp_path), data.read_bytes()
    for argv in (
        ["inpaint", run, "--mask", "lower", "--data", photos, "--out", photos / "1.png"],
        ["inpaint", run, "--mask", "lower", "--data", f"pairs:{photos}", "--out", photos / "1.png"],
        ["embed", run, "--data", data, "--out", data],
        ["embed", run, "--data", data, "--out", tmp_path / "link.npz"],
        ["compress", run, photos / "1.png", "--out", photos / "1.png"],
        ["compress", run, photos / "1.png", "--out", run / "model" / "model.safetensors"],
    ):
        assert "expected another file than those that are read" in refused(genfast, *argv, "--overwrite")
    assert (held(run), held(tmp_path), data.read_bytes()) == before


# signals and kills


def test_ctrl_c_while_starting_is_one_line():
    """At the import of torch, and of a module that is imported before it; with the names of imports on stderr."""
    for module in ("signal", "torch._utils"):
        command = [sys.executable, "-X", "importtime", "-m", "genfast", "backends"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        begun = False
        lines = []
        for line in process.stderr:
            begun = begun or "genfast._interrupt" in line
            if begun and process.poll() is None and (module in line or module == "signal"):
                process.send_signal(signal.SIGINT)
                module = "none"
            lines.append(line)
        process.communicate(timeout=300)
        told = [line for line in lines if not line.startswith("import time:")]
        assert (process.returncode, told) == (130, ["genfast: error: interrupted\n"])


@pytest.mark.slow
def test_kills_lose_nothing():
    """A part of `make kills`."""
    script = Path(__file__).parents[1] / "support" / "kills.py"
    names = ["vq-vae with prior", "train --overwrite", "sample", "save_pretrained"]
    command = [sys.executable, script, "--every", "23", "--random", "1", "--only", *names]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.splitlines()[-1].split()[0]) > 12 and result.stdout.endswith(" kills, 0 differences\n")
