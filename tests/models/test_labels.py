"""Models that are conditional on labels: trained, resumed, evaluated and sampled with them, or refused without."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genfast import cli, models
from genfast.cli.progress import draw
from genfast.data import ImageData
from genfast.models import Autoregressive, AutoregressiveConfig
from genfast.train import TrainConfig, fit, mean_nats
from genfast.train.checkpoint import load_checkpoint


def config(**changes):
    base = {"steps": 20, "batch": 4, "log_every": 3, "eval_every": 6, "save_every": 5, "ema": 0.9, "device": "cpu"}
    return TrainConfig(**(base | changes))


@dataclass
class TintConfig(AutoregressiveConfig):
    classes: int = 0


class Tint(Autoregressive):
    """Pixels that are independent given the label: the smallest conditional model."""

    name, config_type = "tint", TintConfig

    def __init__(self, config):
        super().__init__(config)
        self.weight = nn.Parameter(torch.zeros(max(1, config.classes), config.channels * config.levels))

    def network(self, x, labels):
        rows = self.weight[0 if labels is None else labels].view(-1, self.weight.shape[1], 1, 1)
        return rows.expand(len(x), -1, *x.shape[2:])


def tint(**changes):
    return Tint(TintConfig(**({"height": 4, "width": 3, "levels": 3, "classes": 3} | changes)))


def labelled(count, seed=0, classes=3):
    """Images of one level, which is their label."""
    labels = torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
    pixels = labels.to(torch.uint8).view(count, 1, 1, 1).expand(count, 1, 4, 3)
    return ImageData(pixels.clone(), 3, f"labelled {seed}", labels=labels, classes=classes)


def test_labels_reach_the_model_with_their_images(tmp_path):
    data, valid, settings = labelled(40), labelled(10, seed=1), config(lr=0.3, steps=40, eval_every=40, save_every=40)
    result = fit(tint(), data, valid, settings, tmp_path)
    assert result.best_nats < 0.1 * 12 * math.log(3), "with its label an image is certain"
    result = fit(tint(classes=0), data, valid, settings, tmp_path / "without")
    assert result.best_nats > 0.7 * 12 * math.log(3)
    model = tint()
    model.weight.data = torch.eye(3) * 2
    batches = list(zip(data.images.split(7), data.labels.split(7), strict=True))
    assert mean_nats(model, batches) == pytest.approx(12 * (math.log(math.exp(2) + 2) - 2), rel=1e-6)


def test_resuming_with_labels_is_exact_and_wants_the_same(tmp_path):
    data, valid = labelled(22), labelled(9, seed=1)
    fit(tint(), data, valid, config(), tmp_path / "whole")
    fit(tint(), data, valid, config(), tmp_path / "parts", minutes=1e-9)
    other = replace(data, labels=data.labels.roll(1))
    with pytest.raises(ValueError, match="same training and validation images to resume; got .*labels"):
        fit(tint(), other, valid, config(), tmp_path / "parts", resume=True)
    fit(tint(), data, valid, config(), tmp_path / "parts", resume=True)
    one, other = (load_checkpoint(tmp_path / name)[0] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ({}, replace(labelled(5), labels=None), "labelled 0: expected labels for a model of 3 classes; got images"),
        ({}, labelled(30, classes=4), "labelled 0: expected labels from 0 to 2; got 0 to 3"),
        ({}, replace(labelled(5), labels=torch.arange(5) - 1), "labelled 0: expected labels from 0 to 2; got -1 to 3"),
        ({}, replace(labelled(5), labels=torch.zeros(4).long()), "expected 5 whole labels; got torch.int64 "),
        ({}, replace(labelled(5), labels=torch.zeros(5)), "expected 5 whole labels; got torch.float32 "),
        ({"levels": 4}, labelled(5), r"\(1, 4, 3, 4\); got \(1, 4, 3, 3\)"),
        ({"channels": 3}, labelled(5), r"\(3, 4, 3, 3\); got \(1, 4, 3, 3\)"),
    ],
)
def test_data_of_another_model_are_refused_before_any_work(tmp_path, model, data, message):
    for train, valid in ((data, labelled(5)), (labelled(5), data)):
        with pytest.raises(ValueError, match=message):
            fit(tint(**model), train, valid, config(), tmp_path)
    assert not list(tmp_path.iterdir())


# the command line


TINY = ["--hidden", 4, "--layers", 1, "--head", 8, "--steps", 4, "--eval-every", 2, "--log-every", 1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path, random = tmp_path_factory.mktemp("data") / "noise.npz", np.random.RandomState(0)
    arrays = {}
    for split, count in (("train", 12), ("valid", 6), ("test", 5)):
        arrays |= {split: random.randint(0, 3, (count, 4, 4)), f"{split}_labels": np.arange(count) % 4}
    np.savez(path, levels=3, **arrays)
    np.savez(path.with_name("bare.npz"), levels=3, **{split: arrays[split] for split in ("train", "valid", "test")})
    arrays["valid_labels"] = arrays["valid_labels"] + 1
    np.savez(path.with_name("more.npz"), levels=3, **arrays)
    return path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    argv = ["train", "gated-pixelcnn", "--conditional", "--data", data, "--out", out, *TINY]
    assert cli.main([str(word) for word in argv]) == 0
    return out


def test_the_data_say_how_many_classes(genfast, data, run, tmp_path):
    settings = json.loads((run / "config.json").read_text())
    assert settings["model_config"]["classes"] == 4 == models.load(run / "model").config.classes
    train = ["train", "gated-pixelcnn", "--preset", "digits", *TINY]
    assert genfast(*train, "--out", tmp_path / "a")[0] == 0
    assert models.load(tmp_path / "a" / "model").config.classes == 10
    assert genfast(*train, "--no-conditional", "--data", data.with_name("bare.npz"), "--out", tmp_path / "b")[0] == 0
    assert models.load(tmp_path / "b" / "model").config.classes == 0


def test_samples_of_all_classes_or_of_those_asked_for(genfast, run, tmp_path):
    def sample(name, *options):
        assert genfast("sample", run, "--out", tmp_path / name, *options)[0] == 0
        return np.load(tmp_path / name)

    cycle = sample("a.npz", "-n", 10)
    assert cycle["labels"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1] and cycle["images"].shape == (10, 1, 4, 4)
    archive = sample("b.npz", "-n", 5, "--label", 3, "--labels", "0,2")
    assert archive["labels"].tolist() == [3, 0, 2, 3, 0]
    model = models.load(run / "model")
    drawn = model.sample(5, labels=torch.tensor([3, 0, 2, 3, 0]))
    assert np.array_equal(archive["images"], drawn.numpy())
    assert genfast("sample", run, "--out", tmp_path / "c.png", "-n", 8)[0] == 0
    assert Image.open(tmp_path / "c.png").size == (4 * 56 + 3 * 2, 2 * 56 + 2), "a column for each class"
    parts = draw(model, 5, seed=0, batch_size=2, labels=torch.tensor([3, 0, 2, 3, 0]))
    assert torch.equal(parts, drawn)


def test_evaluate_gives_the_model_its_labels(genfast, data, run):
    code, out, err = genfast("evaluate", run, "--batch", 2)
    assert (code, err) == (0, "")
    held_out = np.load(data)
    images = torch.from_numpy(held_out["test"]).to(torch.uint8)[:, None]
    with torch.no_grad():
        nats = -models.load(run / "model").log_prob(images, torch.from_numpy(held_out["test_labels"])).mean()
    assert float(out.splitlines()[2].split()[1]) == pytest.approx(float(nats), abs=1e-3)


def test_resuming_keeps_the_condition(genfast, data, tmp_path):
    train = ["train", "gated-pixelcnn", "--out", tmp_path / "r"]
    assert genfast(*train, "--conditional", "--data", data, *TINY, "--minutes", "1e-9")[0] == 0
    code, _, err = genfast(*train, "--resume", "--no-conditional")
    assert code == 2 and "conditional: expected True as in the run to resume; got False" in err
    assert genfast(*train, "--resume", "--conditional")[0] == 0


WRONG = [
    (["train", "gated-pixelcnn", "--conditional", "--data", "{bare}"], "expected labels, or --no-conditional; got"),
    (["train", "gated-pixelcnn", "--preset", "digits", "--data", "photos"], "expected labels, or --no-conditional"),
    (
        ["train", "projection-gan", "--data", "{bare}"],
        "expected labels, which a projection-gan needs; got images without",
    ),
    (["train", "gated-pixelcnn", "--data", "{bare}", "--init-from", "{run}"], "expected labels for a model of 4"),
    (["train", "gated-pixelcnn", "--conditional", "--data", "{more}", "--init-from", "{run}", *TINY], "of shape (5, "),
    (["train", "gated-pixelcnn", "--data", "digits", "--init-from", "{run}"], "(1, 4, 4, 3); got (1, 8, 8, 16)"),
    (["train", "pixelcnn", "--data", "{bare}", "--init-from", "{run}"], "a pixelcnn to start from; got a gated-pixel"),
    (["train", "pixelcnn", "--conditional", "--data", "{data}"], "--conditional"),
    (["train", "pixelcnn++", "--data", "{data}", "--size", "9"], "expected no size"),
    (["train", "pixelcnn++", "--data", "photos", "--size", "30"], "height and width must be multiples of 4"),
    (["sample", "{run}", "--label", "4"], "labels: expected 0 to 3; got 4"),
    (["sample", "{run}", "--labels", "0,-1"], "labels: expected 0 to 3; got -1"),
    (["sample", "{run}", "--labels", "a"], "argument --label/--labels: expected whole numbers"),
    (["sample", "{plain}", "--label", "1"], "expected none, as this gated-pixelcnn is not conditional; got [1]"),
    (["evaluate", "{run}", "--data", "{bare}"], "bare.npz[test]: expected labels for a model of 4 classes; got"),
    (["evaluate", "{run}", "--data", "{more}", "--split", "valid"], "expected labels from 0 to 3; got 1 to 4"),
]


@pytest.mark.parametrize(("argv", "fragment"), WRONG, ids=[" ".join(map(str, argv)) for argv, _ in WRONG])
def test_errors_are_one_line_and_come_before_any_work(genfast, data, run, tmp_path, argv, fragment):
    models.build("gated-pixelcnn", hidden=2, layers=0, head=4).save_pretrained(tmp_path / "plain")
    names = {"data": data, "bare": data.with_name("bare.npz"), "more": data.with_name("more.npz")}
    names |= {"run": run, "plain": tmp_path / "plain"}
    out = {"train": ["--out", tmp_path / "r"], "sample": ["--out", tmp_path / "a.npz"], "evaluate": []}[argv[0]]
    code, shown, err = genfast(*(str(word).format(**names) for word in argv), *out)
    assert (code, shown) == (2, "") and err.count("\n") == 1 and fragment in err and "Traceback" not in err
    assert not (tmp_path / "r" / "config.json").exists() and not (tmp_path / "a.npz").exists()
