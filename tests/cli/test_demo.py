"""The demo, with two seconds of training: what it leaves behind is complete, consistent and stands alone."""

import html
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import check_page

from genfast import models
from genfast.cli import demo
from genfast.data import load
from genfast.reports import number
from genfast.train import mean_nats
from genfast.train.metrics_log import read_metrics


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder that the demo left, and what it printed; it runs twice into the same folder."""
    import contextlib

    out = tmp_path_factory.mktemp("demo") / "run"
    demo.demo(out, seconds=0.5, seed=1)
    (out / "notes.txt").write_text("mine")
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        demo.demo(out, seconds=2, overwrite=True)
    return out, text.getvalue()


def test_it_leaves_everything(shown):
    out, _ = shown
    for name in ("samples.png", "loss.svg", "report.json", "metrics.jsonl", "index.html", "config.json"):
        assert (out / name).stat().st_size > 100, name
    assert (out / "checkpoint" / "state.safetensors").is_file() and (out / "notes.txt").read_text() == "mine"
    assert not list(out.rglob(".*.tmp"))
    for name in ("samples.png", "filled.png"):
        picture = np.asarray(Image.open(out / name).convert("RGB"))
        assert min(picture.shape[:2]) > 300 and len(np.unique(picture)) > 10


def test_the_numbers_are_those_of_the_kept_model(shown):
    out, _ = shown
    facts = json.loads((out / "report.json").read_text())
    nats, bits = facts["test_nats_per_image"], facts["test_bits_per_dim"]
    assert nats.keys() == bits.keys() == {"model", "independent pixels", "gzip", "PNG"}
    assert all(bits[name] == pytest.approx(nats[name] / (64 * math.log(2))) for name in nats)
    model = models.load(out / "model")
    assert nats["model"] == pytest.approx(mean_nats(model, load("digits", split="test").images.split(100)), rel=1e-5)
    assert nats["independent pixels"] < nats["gzip"] and nats["model"] < 64 * math.log(16)
    evaluated = {r["step"]: r["valid_nats"] for r in read_metrics(out / "metrics.jsonl") if "valid_nats" in r}
    assert facts["kept_step"] == min(evaluated, key=evaluated.get) and facts["steps"] == max(evaluated)
    assert facts["samples_per_second"] > 0 and facts["scan"]["native_ms"] > 0
    assert facts["scan"]["backend"] == "cpp" and facts["parameters"] == sum(p.numel() for p in model.parameters())


def test_the_printed_table_agrees(shown):
    out, text = shown
    facts = json.loads((out / "report.json").read_text())
    rows = dict(re.findall(r"^(PixelRNN|independent pixels|gzip|PNG)\b.*?([\d.]+)\s+[\d.]+$", text, re.MULTILINE))
    assert {("model" if name == "PixelRNN" else name): float(value) for name, value in rows.items()} == {
        name: pytest.approx(nats, abs=0.006) for name, nats in facts["test_nats_per_image"].items()
    }
    assert "images per second" in text and "by pure PyTorch" in text and str(out / "index.html") in text


def test_the_page_says_all_that_a_reader_asks(shown, tmp_path):
    """It once had no date, no next commands, no column heads, words of the code and numbers without separators."""
    out, _ = shown
    facts, text = (json.loads((out / "report.json").read_text()), (out / "index.html").read_text())
    for value in (
        f"{facts['parameters']:,}",
        f"{facts['steps']:,}",
        facts["machine"]["date"],
        facts["machine"]["device"],
    ):
        assert html.escape(value) in text, value
    assert f">{number(facts['test_nats_per_image']['model'])}<" in text and "genfast sample" in text
    assert all(head in text for head in (">digit<", ">given<", ">6 completions<")) and "cpp scan" not in text
    check_page(out / "index.html", tmp_path)


def test_a_demo_of_an_earlier_version_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_write", lambda *settings: settings)
    for name in demo.EARLIER:
        (tmp_path / name).write_text("earlier")
    with pytest.raises(FileExistsError):
        demo.demo(tmp_path, overwrite=True)
    monkeypatch.setattr(demo, "_is_demo", lambda out: True)
    demo.demo(tmp_path, overwrite=True)
    with pytest.raises(FileExistsError):
        demo.demo(tmp_path)


def test_shipped_mnist_samples_are_shown_when_there_are_weights(monkeypatch):
    model = models.build("pixelrnn", height=4, width=4, hidden=2, layers=1, head=4)
    monkeypatch.setattr(
        models.PixelRNN, "pretrained", classmethod(lambda cls, name: model if name == "mnist" else None)
    )
    assert demo._mnist_samples(0).shape == (10, 1, 4, 4)

    def missing(cls, name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(models.PixelRNN, "pretrained", classmethod(missing))
    assert demo._mnist_samples(0) is None


def test_steps_follow_the_time_given(tmp_path):
    train, valid = load("digits"), load("digits", split="valid")
    config = demo.TrainConfig(steps=10**6, batch=4, device="cpu")
    model = models.build("pixelrnn", height=8, width=8, levels=16, hidden=2, layers=1, head=4)
    before = [p.clone() for p in model.parameters()]
    short, long = (demo._affordable_steps(model, train, valid, config, tmp_path, s) for s in (1.0, 50.0))
    assert 10 <= short < long <= 10**6
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
