"""Models of sequences on the command line: training on a text, printing and writing what is drawn."""

import numpy as np
import pytest
import soundfile
import torch

import genfast
from genfast import models
from genfast.cli import main


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "some.txt").write_text("to be or not to be, that is the question. " * 60)
    options = ["--steps", "3", "--batch", "4", "--hidden", "8", "--layers", "1", "--size", "32", "--device", "cpu"]
    data = ["--data", f"text:{folder / 'some.txt'}"]
    assert main(["train", "char-rnn", "--out", str(folder / "run"), *data, *options]) == 0
    return folder / "run"


def test_a_text_is_printed_as_the_model_draws_it(run_folder, capsys):
    capsys.readouterr()
    assert main(["sample", str(run_folder), "--length", "100", "--prompt", "to be", "--seed", "4"]) == 0
    printed = capsys.readouterr().out
    model = models.load(run_folder / "model")
    given = torch.tensor([[model.config.alphabet.index(letter) for letter in "to be"]])
    x = genfast.sample(model, 1, length=100, given=given, seed=4)
    assert printed == "".join(model.config.alphabet[symbol] for symbol in x[0]) + "\n"
    assert printed.startswith("to be") and len(printed) == 101


def test_a_text_is_written(run_folder, tmp_path, capsys):
    out = tmp_path / "drawn.txt"
    assert main(["sample", str(run_folder), "-n", "2", "--length", "50", "--out", str(out)]) == 0
    assert "2 x 50 symbols" in capsys.readouterr().out
    lines = out.read_text().split("\n")
    assert lines[::2] == ["--- 0 ---", "--- 1 ---", ""] and [len(line) for line in lines[1::2]] == [50, 50]
    assert main(["sample", str(run_folder), "--length", "40", "--out", str(tmp_path / "x.npz")]) == 0
    assert np.load(tmp_path / "x.npz")["images"].shape == (1, 1, 1, 40)


def test_nats_and_bits_of_a_symbol(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "nats/symbol" in out and "bits/symbol" in out
    _, nats, bits = next(line for line in out.splitlines() if line.startswith("model")).split()
    assert float(bits) == pytest.approx(float(nats) / np.log(2), abs=2e-3)


def test_sounds_are_written(tmp_path, capsys):
    model = models.build("wavenet", levels=256, width=64, rate=8000, hidden=4, layers=2, head=4)
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "x.wav"
    assert main(["sample", str(tmp_path / "model"), "--length", "200", "--out", str(out)]) == 0
    samples, rate = soundfile.read(out)
    assert rate == 8000 and len(samples) == 200


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--length", "0"], "length must lie in"),
        (["--prompt", ""], "expected a text of at least one character; got an empty one"),
        (["--prompt", "€"], "expected characters of"),
        (["--prompt", "to be or", "--length", "4"], "given must have shape"),
        (["--shard", "5"], "--shard: expected none for a char-rnn"),
        (["--out", "x.wav", "--length", "9"], "out: expected FILE.txt or FILE.npz for a char-rnn; got x.wav"),
    ],
)
def test_options_that_do_not_fit(run_folder, options, text, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(run_folder), *options]) == 2
    assert text in capsys.readouterr().err


def test_images_take_a_file(tmp_path, capsys):
    models.build("pixelcnn", height=4, width=4, hidden=2, layers=1, head=2).save_pretrained(tmp_path / "model")
    assert main(["sample", str(tmp_path / "model")]) == 2
    assert "expected --out FILE.png, FILE.npz or a folder" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "model"), "--length", "9", "--out", str(tmp_path / "x.npz")]) == 2
    assert "expected no --length and no --prompt for a pixelcnn" in capsys.readouterr().err
