"""`genfast compare`: a report of families that it trains, and of finished runs; and --json of commands that measure."""

import json

import numpy as np
import pytest
from support.browser import check_page

from genfast.cli import main
from genfast.cli.compare import minutes
from genfast.train.metrics_log import read_metrics


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A report, made of unlabelled images, so that no classifier is trained."""
    out = tmp_path_factory.mktemp("compare")
    images = np.random.RandomState(0).randint(0, 4, size=(200, 8, 8)).astype(np.uint8)
    np.savez(out / "images.npz", images=images + np.arange(8, dtype=np.uint8), levels=16)
    data = ["--data", str(out / "images.npz"), "--levels", "16"]
    families = ["--families", "pixelrnn", "vae", "dcgan", "projection-gan"]
    assert main(["compare", *data, "--budget", "1s", *families, "--out", str(out / "report")]) == 0
    return out


def test_it_trains_and_reports(compared):
    report = json.loads((compared / "report" / "report.json").read_text())
    assert [one["title"] for one in report["models"]] == ["PixelRNN", "VAE", "DCGAN"]
    assert "expected labels" in report["left_out"]["projection GAN"]
    assert report["minutes"] == pytest.approx(1 / 60) and report["machine"]["date"]
    assert len(report["claims"]) == 7 and all(c["verdict"] in ("true", "false", "undecided") for c in report["claims"])
    rnn, vae, gan = report["models"]
    assert rnn["file_by"] == vae["file_by"] == "without loss" and gan["nats"] is None
    header = 8 * 300 / (report["held_out"] * 64)  # bits per value of what a file of so few images has besides
    assert rnn["bits_per_dim"] < rnn["file_bits"] < rnn["bits_per_dim"] + header
    for one in report["models"]:
        assert one["cost"]["minutes"] >= 0.9 / 60 and one["parameters"] > 0 and one["images_per_second"]["value"] > 0
        assert one["sharpness"]["gradient"]["low"] <= one["sharpness"]["gradient"]["value"]
        assert [test["name"] for test in one["faults"]["tests"]][0] == "memorises"
        assert (compared / "report" / "runs").joinpath(one["run"].split("/")[-1], "model").is_dir()
    assert gan["equilibrium"]["words"] and vae["latents"]["size"] == 16 and rnn["cleaned"] and vae["filled"]


def test_the_page_shows_it_in_a_browser(compared, tmp_path):
    text = (compared / "report" / "index.html").read_text()
    assert "Sampling the autoregressive model is slow, by whole forward passes" in text and "genfast sample" in text
    check_page(compared / "report" / "index.html", tmp_path)


def test_finished_runs_are_compared_as_they_are(compared, tmp_path, capsys):
    run = compared / "report" / "runs" / "vae-0"
    records = read_metrics(run / "metrics.jsonl")
    assert main(["compare", str(run), "--out", str(tmp_path / "r"), "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["models"][0]["title"] == "VAE" and printed["minutes"] is None
    assert printed["models"][0]["wall_minutes"] == pytest.approx(records[-1]["seconds"] / 60)
    assert read_metrics(run / "metrics.jsonl") == records
    assert main(["compare", str(run), "--out", str(tmp_path / "r")]) == 2, "a report is there"
    assert "expected a name that is free, or --overwrite" in capsys.readouterr().err


def test_evaluate_gives_json(compared, tmp_path, capsys):
    run, file = str(compared / "report" / "runs" / "vae-0"), tmp_path / "numbers.json"
    assert main(["evaluate", run, "--samples", "2", "--json", str(file)]) == 0
    text, numbers = capsys.readouterr().out, json.loads(file.read_text())
    assert f"{numbers['nats']['model']:.3f}" in text and numbers["latents"] == 16
    assert main(["evaluate", run, "--samples", "2", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == numbers
    assert main(["evaluate", run, "--samples", "2", "--json", str(file)]) == 2, "a file is there"
    assert main(["evaluate", run, "--samples", "3", "--json", str(file), "--overwrite"]) == 0
    assert json.loads(file.read_text()) != numbers
    assert main(["evaluate", run, "--json", str(compared / "images.npz"), "--data", str(compared / "images.npz")]) == 2


def test_budgets_have_units(capsys):
    assert [minutes(text) for text in ("90s", "10m", "2h", "3")] == [1.5, 10, 120, 3]
    with pytest.raises(SystemExit):
        main(["compare", "--out", "x", "--budget", "0m"])
    assert "expected a time such as 90s, 10m or 2h; got 0m" in capsys.readouterr().err
