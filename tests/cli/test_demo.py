"""The demo, with two seconds of training: what it leaves behind is complete, consistent and stands alone."""

import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from genfast import models
from genfast.cli import demo, report
from genfast.data import load
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
    for name in ("samples.png", "loss.png", "metrics.json", "metrics.jsonl", "index.html", "config.json"):
        assert (out / name).stat().st_size > 100, name
    assert (out / "checkpoint" / "state.safetensors").is_file() and (out / "notes.txt").read_text() == "mine"
    assert not list(out.rglob(".*.tmp"))
    for name in ("samples.png", "loss.png"):
        picture = np.asarray(Image.open(out / name).convert("RGB"))
        assert min(picture.shape[:2]) > 300 and len(np.unique(picture)) > 20


def test_the_numbers_are_those_of_the_kept_model(shown):
    out, _ = shown
    facts = json.loads((out / "metrics.json").read_text())
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
    facts = json.loads((out / "metrics.json").read_text())
    rows = dict(re.findall(r"^(PixelRNN|independent pixels|gzip|PNG)\b.*?([\d.]+)\s+[\d.]+$", text, re.MULTILINE))
    assert {("model" if name == "PixelRNN" else name): float(value) for name, value in rows.items()} == {
        name: pytest.approx(nats, abs=0.006) for name, nats in facts["test_nats_per_image"].items()
    }
    assert "images per second" in text and "by pure PyTorch" in text and str(out / "index.html") in text


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.sources.append(attributes["src"])
        elif tag not in ("meta", "html"):
            self.open.append(tag)
        self.links += [attributes[k] for k in ("href", "src") if k in attributes and tag != "img"]

    def handle_endtag(self, tag):
        if tag != "html":
            assert self.open.pop() == tag


def test_the_page_stands_alone(shown):
    out, _ = shown
    page, text = Page(), (out / "index.html").read_text()
    page.feed(text)
    assert page.open == [] and page.links == [] and "url(" not in text and "http" not in text
    assert len(page.sources) >= 2 and all(source.startswith("data:image/png;base64,") for source in page.sources)
    facts = json.loads((out / "metrics.json").read_text())
    assert f"{facts['test_nats_per_image']['model']:.2f}" in text and f"{facts['parameters']:,}" in text


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


def test_figures_take_colour_and_one_evaluation():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    assert report.beside(images, images, 256).startswith(b"\x89PNG")
    assert report.curves([{"step": 1, "train_nats": 5.0, "valid_nats": 4.0}], {"x": 6.0}).startswith(b"\x89PNG")
