"""The command line as its users meet it: whole commands, one-line errors, Ctrl-C, a pipe and a terminal."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genfast import cli
from genfast.cli.progress import draw
from genfast.models import MODELS, PixelRNN
from genfast.train.checkpoint import load_checkpoint
from genfast.train.config import is_adversarial
from genfast.train.metrics_log import read_metrics

TINY = ["--hidden", "2", "--layers", "1", "--head", "4", "--steps", "6", "--eval-every", "3", "--log-every", "2"]
GENFAST = [sys.executable, "-m", "genfast"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    random = np.random.RandomState(0)
    np.savez(
        path, **{s: random.randint(0, 3, (n, 4, 4)) for s, n in (("train", 20), ("valid", 6), ("test", 5))}, levels=3
    )
    return path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    assert cli.main(["train", "pixelrnn", "--data", str(data), "--out", str(out), *TINY]) == 0
    return out


def test_train_leaves_a_run_and_is_silent_off_a_terminal(genfast, data, tmp_path):
    code, out, err = genfast("train", "pixelrnn", "--data", data, "--out", tmp_path / "r", "--virtual-column", *TINY)
    assert (code, err) == (0, "") and "6 steps; validation" in out
    settings = json.loads((tmp_path / "r" / "config.json").read_text())
    assert settings["model_config"]["virtual_column"] is True and settings["model_config"]["levels"] == 3
    assert settings["train"]["steps"] == 6 and settings["data"]["data"] == str(data)
    model = PixelRNN.from_pretrained(tmp_path / "r" / "model")
    assert (model.config.hidden, model.config.virtual_column) == (2, True)


def test_same_seed_same_run(genfast, data, run, tmp_path):
    assert genfast("train", "pixelrnn", "--data", data, "--out", tmp_path / "a", *TINY)[0] == 0
    assert genfast("train", "pixelrnn", "--data", data, "--out", tmp_path / "b", "--seed", 1, *TINY)[0] == 0
    weights = [
        (folder / "model" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "a", tmp_path / "b")
    ]
    assert weights[0] == weights[1] != weights[2]


def test_preset_and_options_beside_it(genfast, data, tmp_path):
    code, _, _ = genfast("train", "pixelrnn", "--preset", "mnist", "--data", data, "--out", tmp_path / "r", *TINY)
    settings = json.loads((tmp_path / "r" / "config.json").read_text())
    assert code == 0 and settings["model_config"]["virtual_column"] is True and settings["model_config"]["hidden"] == 2
    assert settings["train"]["steps"] == 6 and settings["train"]["ema"] == 0.999


def test_help_lists_the_presets_of_its_model(genfast):
    for model, names in (("pixelrnn", ["mnist", "digits", "mnist-row"]), ("pixelcnn++", ["digits", "photos"])):
        out = " ".join(genfast("train", model, "--help")[1].split())
        assert f"a recipe: {', '.join(names)};" in out, out


SMALLEST = {
    "pixelrnn": ["--hidden", 3, "--layers", 1, "--head", 3],
    "pixelcnn": ["--hidden", 3, "--layers", 1, "--head", 3],
    "gated-pixelcnn": ["--hidden", 3, "--layers", 1, "--head", 3],
    "pixelsnail": ["--hidden", 3, "--blocks", 1, "--layers", 1, "--depth", 2, "--value", 2, "--head", 3],
    "pixelcnn++": ["--filters", 2, "--blocks", 1, "--resolutions", 2, "--mixtures", 2],
    "vae": ["--hidden", 2, "--layers", 0, "--latent", 2],
    "iwae": ["--hidden", 2, "--latent", 2, "--network", "mlp", "--samples", 3],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    for i in range(20):
        Image.fromarray(random.randint(0, 256, (9, 7, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("model", SMALLEST)
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_every_model_trains_evaluates_and_samples(genfast, data, pictures, tmp_path, model, kind):
    others = {name for name, (kind, _) in MODELS.items() if is_adversarial(kind)}
    others |= {"vq-vae", "char-rnn", "wavenet"}  # a second model to draw from; of sequences: test_sequences.py
    assert SMALLEST.keys() == MODELS.keys() - others
    source = {"grey": ["--data", data], "colour": ["--data", pictures, "--size", 4]}[kind]
    options = ["--steps", 2, "--batch", 2, "--eval-every", 1, *SMALLEST[model]]
    assert genfast("train", model, *source, *options, "--out", tmp_path / "r")[0] == 0
    code, out, err = genfast("evaluate", tmp_path / "r", "--samples", 5)
    bounds = {"vae": ["model, ELBO"], "iwae": ["model, bound", "model, ELBO"]}.get(model, [])
    lines = out.splitlines()[2:]
    assert not bounds or lines.pop().startswith("model: log-likelihood by 5 importance samples; ")
    rows = {line[:20].strip(): [float(x) for x in line[20:].split()] for line in lines}
    assert (code, err) == (0, "") and list(rows) == ["model", *bounds, "independent pixels", "gzip", "PNG"]
    dims = {"grey": 16, "colour": 48}[kind]
    for nats, bits in rows.values():
        assert bits == pytest.approx(nats / dims / np.log(2), abs=1e-3)
    code, _, err = genfast("sample", tmp_path / "r", "-n", 2, "--temperature", 0.5, "--out", tmp_path / "a.npz")
    images = np.load(tmp_path / "a.npz")["images"]
    assert (code, err) == (0, "") and images.shape == {"grey": (2, 1, 4, 4), "colour": (2, 3, 4, 4)}[kind]
    assert images.max() <= {"grey": 2, "colour": 255}[kind]


def test_photos_are_trained_on(genfast, tmp_path):
    train = ["train", "pixelcnn++", "--data", "photos", "--size", 4, "--levels", 16, *SMALLEST["pixelcnn++"]]
    code, _, err = genfast(*train, "--steps", 2, "--eval-batch", 5000, "--out", tmp_path / "r")
    assert (code, err) == (0, "")
    settings = json.loads((tmp_path / "r" / "config.json").read_text())
    assert [settings["model_config"][k] for k in ("channels", "height", "levels")] == [3, 4, 16]
    assert genfast("evaluate", tmp_path / "r", "--split", "test", "--batch", 5000)[0] == 0


def test_resume_overwrite_and_init_from(genfast, data, run, tmp_path):
    out = tmp_path / "r"
    train = ["train", "pixelrnn", "--out", out]
    code, _, err = genfast(*train, "--data", data, *TINY, "--minutes", "1e-9")
    assert code == 0 and "stopped at step 1 of 6" in err and f"genfast train pixelrnn --out {out} --resume" in err
    code, _, err = genfast(*train, "--data", data, *TINY)
    assert code == 2 and "--resume or --overwrite; got a run" in err
    code, _, err = genfast(*train, "--resume", "--lr", "0.5")
    assert code == 2 and "lr: expected 0.004 as in the run to resume; got 0.5" in err
    assert genfast(*train, "--resume", "--steps", "6")[0] == 0
    one, other = load_checkpoint(out)[0], load_checkpoint(run)[0]
    assert all(torch.equal(one[name], other[name]) for name in other)
    code, _, _ = genfast(*train, "--data", data, *TINY, "--overwrite", "--init-from", run, "--lr", "1e-9")
    assert code == 0
    kept, start = (PixelRNN.from_pretrained(folder / "model").state_dict() for folder in (out, run))
    assert all(torch.allclose(kept[name], start[name], atol=1e-6) for name in start)


def test_sample_is_reproducible_and_readable(genfast, run, tmp_path):
    for name, seed in (("a.npz", 3), ("b.npz", 3), ("c.npz", 4), ("d.png", 3)):
        code, out, err = genfast("sample", run, "-n", 5, "--seed", seed, "--out", tmp_path / name)
        assert (code, err) == (0, "") and "5 images" in out
    a, b, c = (np.load(tmp_path / f"{name}.npz")["images"] for name in "abc")
    assert a.shape == (5, 1, 4, 4) and a.max() <= 2 and np.array_equal(a, b) and not np.array_equal(a, c)
    picture = np.asarray(Image.open(tmp_path / "d.png"))
    assert set(np.unique(picture)) <= {0, 96, 128, 255} and picture.shape == (2 * 56 + 2, 3 * 56 + 4)
    assert np.array_equal(picture[:56:14, :56:14], np.round(a[0, 0] * 127.5))


def test_evaluate_prints_the_table(genfast, run):
    code, out, err = genfast("evaluate", run)
    assert (code, err) == (0, "") and "noise.npz[test]: 5 images" in out
    rows = {line[:20].strip(): line[20:].split() for line in out.splitlines()[2:]}
    assert list(rows) == ["model", "independent pixels", "gzip", "PNG"]
    for nats, bits in rows.values():
        assert float(bits) == pytest.approx(float(nats) / 16 / np.log(2), abs=1e-3)
    best = [r["valid_nats"] for r in read_metrics(run / "metrics.jsonl") if r.get("best")][-1]
    code, out, _ = genfast("evaluate", run / "model", "--data", read_data(run), "--split", "valid")
    assert float(out.splitlines()[2].split()[1]) == pytest.approx(best, abs=1e-3)


def read_data(run):
    return json.loads((run / "config.json").read_text())["data"]["data"]


def test_evaluate_says_which_split_it_used(genfast, run, tmp_path):
    np.savez(tmp_path / "a.npz", train=np.zeros((4, 4, 4), int), valid=np.zeros((3, 4, 4), int), levels=3)
    code, out, err = genfast("evaluate", run, "--data", tmp_path / "a.npz")
    assert code == 0 and "[valid]: 3 images" in out and "'test'" in err and "valid is used" in err


def test_broken_images_are_counted_aloud(genfast, tmp_path):
    for split in ("train", "valid"):
        (tmp_path / "f" / split).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (4, 4), 80 * i).save(tmp_path / "f" / split / f"{i}.png")
    (tmp_path / "f" / "train" / "broken.png").write_bytes(b"\x89PNG")
    train = ["train", "pixelrnn", "--data", tmp_path / "f", "--levels", 4, *TINY]
    code, _, err = genfast(*train, "--out", tmp_path / "r")
    assert code == 0 and err.strip().endswith("f[train]: 1 of 4 files skipped: 1 no image (--strict names them)")
    code, _, err = genfast(*train, "--out", tmp_path / "s", "--strict")
    assert code == 2 and "broken.png" in err and err.count("\n") == 1


def test_backends_are_listed(genfast):
    code, out, err = genfast("backends")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()] == ["reference", "cpp", "triton"]


@pytest.mark.parametrize(
    "command", [[], ["train"], ["train", "pixelrnn"], ["sample"], ["evaluate"], ["backends"], ["demo"]]
)
def test_every_command_has_help(genfast, command):
    code, out, err = genfast(*command, "--help")
    assert (code, err) == (0, "") and out.startswith("usage: genfast") and "--help" in out


def test_help_names_every_setting_and_its_default(genfast):
    out = " ".join(genfast("train", "pixelrnn", "--help")[1].split())
    for text in ("--weight-decay", "(0.9 0.99)", "--virtual-column", "--seed", "--layers", "--dropout", "--resume"):
        assert text in out


WRONG = [
    (["train", "pixelrnn", "--out", "{tmp}/r"], "expected --data digit-outlines, digits"),
    (["train", "pixelrnn", "--data", "digits"], "--out"),
    (["train", "gan", "--out", "{tmp}/r"], "'gan'"),
    (["train", "pixelrnn", "--data", "nowhere", "--out", "{tmp}/r"], "got nowhere"),
    (["train", "pixelrnn", "--data", "mnist-binary", "--out", "{tmp}/r"], "--data-root"),
    (["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/file"], "got a file"),
    (["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/file/r"], "written; got a file"),
    (
        ["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/r", "--lr", "-1"],
        "lr must be a finite number above 0; got -1.0",
    ),
    (["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/r", "--steps", "x"], "--steps: invalid int value: 'x'"),
    (
        ["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/r", "--layers", "-2"],
        "layers must be at least 0; got -2",
    ),
    (["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/r", "--preset", "x"], "'x'"),
    (["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/r", "--minutes", "0"], "above 0; got 0"),
    (["train", "pixelrnn", "--out", "{tmp}/r", "--resume"], "config.json; got none"),
    (["train", "pixelcnn", "--data", "digits", "--out", "{tmp}/r", "--size", "16"], "digits: expected no size"),
    (["train", "pixelcnn", "--data", "photos", "--out", "{tmp}/r", "--size", "65"], "from 1 to 64; got 65"),
    (["train", "pixelcnn", "--preset", "mnist-row", "--out", "{tmp}/r"], "'mnist-row'"),
    (["train", "pixelcnn++", "--data", "digits", "--out", "{tmp}/r", "--mixtures", "0"], "at least 1; got 0"),
    (["sample", "{tmp}/none", "--out", "{tmp}/a.png"], "got {tmp}/none"),
    (["sample", "{tmp}", "--out", "{tmp}/a.png"], "expected a run with a model"),
    (["sample", "nomodel", "--out", "{tmp}/a.png"], "got 'nomodel'"),
    (["sample", "nomodel", "--out", "{tmp}/a.png"], "nomodel: expected a run folder, a model folder or the name of"),
    (["evaluate", "mnist", "--data-root", "{tmp}/no.npz"], "got {tmp}/no.npz, no such file"),
    (["evaluate", "mnist", "--data-root", "no/no.npz"], "got no/no.npz, no such file"),
    (["sample", "pixelcnn++-none", "--out", "{tmp}/a.png"], "PixelCNNPlusPlus.pretrained"),
    (["sample", "{run}", "--out", "{tmp}/a.png", "--label", "1"], "this pixelrnn is not conditional; got [1]"),
    (["sample", "{run}", "--out", "{tmp}/a.png", "--device", "tpu"], "expected auto, cpu or cuda; got 'tpu'"),
    (["evaluate", "{run}", "--device", "tpu"], "expected auto, cpu or cuda; got 'tpu'"),
    (["train", "pixelrnn", "--data", "digits", "--out", "{tmp}/r", "--device", "x"], "expected auto, cpu or cuda"),
    (["sample", "{run}", "--out", "{tmp}/a.gif"], ".png or .npz"),
    (["sample", "{run}", "--out", "{tmp}/file/a.png"], "written; got a file"),
    (["sample", "{run}", "--out", "{tmp}/a.png", "-n", "0"], "at least 1; got 0"),
    (["sample", "{run}", "--out", "{tmp}/a.png", "--seed", "-1"], "seed"),
    (["sample", "{run}", "--out", "{tmp}/a.png", "--temperature", "0"], "above 0; got 0"),
    (["evaluate", "{run}", "--data", "digits"], "(1, 4, 4, 3); got (1, 8, 8, 16)"),
    (["evaluate", "{run}", "--split", "half"], "'half'"),
    (["evaluate", "{truncated}"], "safetensors"),
    (["nonsense"], "'nonsense'"),
]


@pytest.mark.parametrize(("argv", "fragment"), WRONG, ids=[" ".join(argv) for argv, _ in WRONG])
def test_errors_are_one_line_and_exit_2(genfast, run, tmp_path, argv, fragment):
    (tmp_path / "file").write_text("x")
    truncated = tmp_path / "truncated" / "model"
    truncated.mkdir(parents=True)
    (truncated / "config.json").write_bytes((run / "model" / "config.json").read_bytes())
    (truncated / "model.safetensors").write_bytes((run / "model" / "model.safetensors").read_bytes()[:-5])
    names = {"tmp": tmp_path, "run": run, "truncated": truncated.parent}
    code, out, err = genfast(*(word.format(**names) for word in argv))
    assert (code, out) == (2, "") and err.startswith("genfast") and err.count("\n") == 1 and len(err) < 500
    assert fragment.format(**names) in err and "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "truncated"], "nothing is left"


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError, match="got nowhere"):
        cli.main(["train", "pixelrnn", "--data", "nowhere", "--out", str(tmp_path), "--debug"])


def start(*argv, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*GENFAST, *map(str, argv)], env=environment, text=True, **options)


def wait_for_steps(process, run, count):
    deadline = time.monotonic() + 300
    while not (records := read_metrics(run / "metrics.jsonl")) or records[-1]["step"] < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_then_resume(genfast, data, tmp_path):
    out = tmp_path / "r"
    long = ["--hidden", "2", "--layers", "1", "--head", "4", "--steps", "10000000", "--log-every", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start("train", "pixelrnn", "--data", data, "--out", out, *long, **pipes)
    wait_for_steps(process, out, 20)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130 and (stdout.count("\n"), stderr.count("\n")) == (2, 1)
    assert f"continue with: genfast train pixelrnn --out {out} --resume" in stderr
    step = load_checkpoint(out)[1]["step"]
    assert step >= 20 and f"stopped at step {step} of" in stderr
    assert genfast("sample", out, "-n", 1, "--out", tmp_path / "a.png")[0] == 0
    code, _, err = genfast("train", "pixelrnn", "--out", out, "--resume", "--minutes", "1e-9")
    assert code == 0 and f"stopped at step {step + 1} of" in err


def test_a_terminal_gets_a_progress_bar(data, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    train = ["train", "pixelrnn", "--data", data, "--out", tmp_path / "r", *TINY]
    process = start(*train, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    process.communicate(timeout=300)
    shown = ""
    with contextlib.suppress(OSError):  # the end of a terminal's output is an error on Linux
        while chunk := os.read(ours, 4096):
            shown += chunk.decode(errors="replace")
    os.close(ours)
    assert process.returncode == 0 and "6/6" in shown and "valid=" in shown


@pytest.mark.parametrize("word", ["backends", "--help"])
def test_the_reader_of_a_pipe_may_leave(word):
    process = start(word, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(timeout=300) in (0, 1)
    process.stderr.close()


def test_samples_do_not_depend_on_the_batch(run):
    model = PixelRNN.from_pretrained(run / "model")
    whole, parts = (draw(model, 7, seed=5, batch_size=batch) for batch in (7, 3))
    assert whole.shape == (7, 1, 4, 4) and torch.equal(whole, parts)


def test_shipped_weights_are_found_by_model_and_name(genfast, monkeypatch, tmp_path):
    model = MODELS["pixelcnn++"][0](MODELS["pixelcnn++"][1](height=4, width=4, filters=2, blocks=1))
    model.save_pretrained(tmp_path / "pixelcnn++-tiny")
    monkeypatch.setattr("genfast.models._pretrained.SHIPPED", tmp_path)
    assert genfast("sample", "pixelcnn++-tiny", "-n", 1, "--out", tmp_path / "a.npz")[0] == 0
    code, _, err = genfast("sample", "tiny", "-n", 1, "--out", tmp_path / "b.npz")
    assert code == 2 and "PixelRNN.pretrained: expected one of []" in err


def test_a_model_of_the_hub_may_be_any(genfast, monkeypatch, tmp_path):
    model = MODELS["pixelcnn"][0](MODELS["pixelcnn"][1](height=2, width=2, hidden=2, layers=1, head=2))
    model.save_pretrained(tmp_path / "cache")
    folders = {"someone/model": tmp_path / "cache"}
    monkeypatch.setattr("genfast.models.base.local_folder", lambda folder: folders.get(folder, folder))
    assert genfast("sample", "someone/model", "-n", 1, "--out", tmp_path / "a.npz")[0] == 0
    assert np.load(tmp_path / "a.npz")["images"].shape == (1, 1, 2, 2)


def test_the_quality_table_is_made_of_runs(genfast, run, tmp_path):
    script = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "quality.py"
    command = [sys.executable, script, run, "--results", tmp_path]
    for _ in range(2):  # a run that is measured again takes its own place
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    (row,) = json.loads((tmp_path / "quality.json").read_text())
    records = read_metrics(run / "metrics.jsonl")
    assert (row["name"], row["updates"], row["images_seen"]) == ("pixelrnn-one", 6, 96)
    assert row["valid_nats"] == pytest.approx(min(r["valid_nats"] for r in records if "valid_nats" in r), rel=1e-5)
    out = genfast("evaluate", run)[1].splitlines()[2].split()
    assert [row["test_nats"], row["test_bits_per_dim"]] == pytest.approx([float(x) for x in out[1:]], abs=1e-3)
    assert row["parameters"] == sum(p.numel() for p in PixelRNN.from_pretrained(run / "model").parameters())
    assert row["trained_on"]["threads"] == torch.get_num_threads() and row["training_seconds"] > 0
    assert f"{row['test_nats']:.2f}" in (tmp_path / "quality.md").read_text()
    subprocess.run([*command, "--name", "pixelrnn-two"], check=True, capture_output=True, timeout=300)
    names = [row["name"] for row in json.loads((tmp_path / "quality.json").read_text())]
    assert names == ["pixelrnn-one", "pixelrnn-two"]
    kept = tmp_path / "pixelrnn-one"
    assert (kept / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (kept / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_shipped_weights_are_evaluated_on_their_own_data(genfast, monkeypatch, tmp_path):
    model = MODELS["pixelrnn"][0](MODELS["pixelrnn"][1](hidden=2, layers=1, head=4))
    monkeypatch.setattr(PixelRNN, "pretrained", classmethod(lambda cls, name: model))
    bits = np.packbits(np.random.RandomState(0).randint(0, 2, (6, 784), dtype=np.uint8), axis=1)
    np.savez(tmp_path / "binarized_mnist.npz", train=bits, valid=bits[:3])
    code, out, err = genfast("evaluate", "mnist", "--data-root", tmp_path)
    assert code == 0 and "[valid]: 3 images" in out and "valid is used" in err
    code, _, err = genfast("evaluate", "mnist")
    assert code == 2 and "--data-root" in err and err.count("\n") == 1
