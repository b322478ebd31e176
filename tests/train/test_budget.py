"""The length of a run in minutes, its records as they come, and averages of half types."""

import math
import time

import pytest
import torch

from genfast import models
from genfast.data import ImageData
from genfast.train import AdversarialConfig, TrainConfig, fit, fit_adversarial
from genfast.train.checkpoint import load_checkpoint
from genfast.train.metrics_log import read_metrics
from genfast.train.run_folder import load_run
from genfast.train.trainer import Run

SHAPE = {"channels": 1, "height": 4, "width": 3, "levels": 3}
TRAIN, VALID = (ImageData(torch.randint(0, 3, (count, 1, 4, 3), dtype=torch.uint8), 3, "noise") for count in (22, 9))


def pixelrnn():
    torch.manual_seed(0)
    return models.build("pixelrnn", hidden=2, layers=1, head=4, **SHAPE)


def config(**changes):
    base = {"steps": 20, "batch": 4, "log_every": 3, "eval_every": 6, "save_every": 5, "ema": 0.9, "device": "cpu"}
    return TrainConfig(**(base | changes))


class Clock:
    """A second passes with each look at the time."""

    def __init__(self, monkeypatch):
        self.now = 0
        monkeypatch.setattr(time, "perf_counter", self)

    def __call__(self):
        self.now += 1
        return self.now


def test_the_learning_rate_follows_the_budget(tmp_path, monkeypatch):
    Clock(monkeypatch)
    settings = config(steps=10_000, budget=1.0, log_every=1, warmup=0, lr=1.0)
    result = fit(pixelrnn(), TRAIN, VALID, settings, tmp_path / "one")
    records = read_metrics(tmp_path / "one" / "metrics.jsonl")
    assert result.reason == "finished" and 10 < result.step == result.steps == len(records) < 60
    assert "valid_nats" in records[-1], "the last step of the budget is evaluated"
    rates = [record["lr"] for record in records]
    # Where a third of the minute is over, so is a third of half a cosine; at the end the rate is that of a last step.
    for record in records[5:]:
        share = min(1, record["seconds"] / 60)
        assert record["lr"] == pytest.approx(0.5 * (1 + math.cos(math.pi * share)), abs=0.12)
    assert rates[-1] < 0.02 and max(rates[-5:]) < 0.2
    again = fit(pixelrnn(), TRAIN, VALID, settings, tmp_path / "one", resume=True)
    assert (again.step, again.reason) == (result.step, "finished")
    # What was trained before a stop counts: the budget is that of the run, not of the call.
    for number in range(4):
        part = fit(pixelrnn(), TRAIN, VALID, settings, tmp_path / "parts", minutes=0.25, resume=number > 0)
    last = fit(pixelrnn(), TRAIN, VALID, settings, tmp_path / "parts", resume=True)
    assert part.reason == "minutes" and last.reason == "finished" and last.step < 1.5 * result.step


def test_each_record_is_told_as_soon_as_it_is_written(tmp_path):
    told = []

    def progress(record):
        told.append(record)
        assert read_metrics(tmp_path / "metrics.jsonl") == told

    fit(pixelrnn(), TRAIN, VALID, config(), tmp_path, progress=progress)
    assert [record["step"] for record in told] == [3, 6, 9, 12, 15, 18, 20]


def test_averages_of_half_weights_are_float32(tmp_path):
    """In bfloat16 an average with a decay of 0.999 would not move."""
    model = pixelrnn().bfloat16()
    fit(model, TRAIN, VALID, config(ema=0.999, lr=1e-3), tmp_path)
    tensors = load_checkpoint(tmp_path)[0]
    assert tensors["model.input.weight"].dtype == torch.bfloat16
    assert tensors["averaged.input.weight"].dtype == torch.float32
    assert models.load(tmp_path / "model").input.weight.dtype == torch.float32
    with torch.no_grad():
        run = Run(model, TRAIN, VALID, config(ema=0.999), tmp_path, None)
        run.averages[0].fill_(1.0)
        run.parameters[0].fill_(2.0)
        run.step = 10**6
        run.advance()
    torch.testing.assert_close(run.averages[0], torch.full_like(run.averages[0], 1.001))


def test_the_learning_rate_of_two_networks_follows_the_budget(tmp_path, monkeypatch):
    Clock(monkeypatch)
    settings = AdversarialConfig(steps=10_000, budget=1.0, batch=4, log_every=1, decay=1.0, lr=1.0, device="cpu")
    model = models.build("dcgan", height=4, width=4, levels=3, features=2, latent=2, stages=1)
    data = [ImageData(torch.randint(0, 3, (count, 1, 4, 4), dtype=torch.uint8), 3, "noise") for count in (22, 9)]
    result = fit_adversarial(model, *data, settings, tmp_path)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert result.reason == "finished" and 10 < result.step == result.steps == len(records) < 60
    for record in records[5:]:
        assert record["lr"] == pytest.approx(1 - min(1, record["seconds"] / 60), abs=0.12)
    assert records[-1]["lr"] < 0.1
    assert (tmp_path / "samples" / f"step-{result.step:07d}.png").is_file(), "the last step has its grid"


TINY = ["--hidden", 2, "--layers", 1, "--head", 2, "--eval-every", 1000, "--log-every", 1, "--batch", 500, "--lr", 0.01]


def test_minutes_of_the_command_line(genfast, tmp_path):
    """Alone they are the budget of a new run; beside steps, and when resuming, they only stop the call."""
    train = ["train", "pixelcnn", "--data", "digits", "--device", "cpu", *TINY]
    code, out, err = genfast(*train, "--minutes", 1e-9, "--out", tmp_path / "alone")
    assert code == 0 and "1 steps; validation" in out and load_run(tmp_path / "alone")["train"]["budget"] == 1e-9, err
    code, _, err = genfast(*train, "--minutes", 1e-9, "--steps", 3, "--out", tmp_path / "beside")
    assert code == 0 and "stopped at step 1 of 3" in err and load_run(tmp_path / "beside")["train"]["budget"] == 0
    resume = ["train", "pixelcnn", "--out", tmp_path / "beside", "--resume"]
    assert "stopped at step 2 of 3" in genfast(*resume, "--minutes", 1e-9)[2]
    assert "3 steps; validation" in genfast(*resume)[1]
