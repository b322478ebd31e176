"""What the commands say of the samples of a GAN and of how its game stands, and what is told of classes on the way."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from genfast import models
from genfast.cli import equilibrium as standing
from genfast.cli import report
from genfast.data import load
from genfast.metrics import EquilibriumMonitor, mode_coverage
from genfast.train import modes, quality
from genfast.train.adversarial import fit_adversarial
from genfast.train.config import AdversarialConfig
from genfast.train.evaluate import _sample_quality
from genfast.train.inputs import labels_in_shares
from genfast.train.run_data import any_images
from genfast.train.run_folder import clear_run

TINY = ("--preset", "digits", "--steps", 6, "--features", 8, "--batch", 16, "--log-every", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def data():
    return load("digits", split="train"), load("digits", split="valid")


@pytest.fixture
def quick(monkeypatch):
    """Classifiers of a few updates."""
    monkeypatch.setattr(quality, "STEPS", 40)
    monkeypatch.setattr(quality.run_classifier, "__kwdefaults__", quality.run_classifier.__kwdefaults__ | {"steps": 40})


@pytest.fixture
def run(tmp_path, genfast):
    code, _, err = genfast("train", "dcgan", *TINY, "--out", tmp_path / "run")
    assert code == 0, err
    return tmp_path / "run"


def test_feature_metrics_are_those_of_scikit_learn():
    real, generated = torch.randn(120, 5).double(), torch.randn(90, 5).double() * 1.2 + 0.2
    values = quality.feature_metrics(real, generated)
    x, y = real.numpy(), generated.numpy()

    def radii(points, k):
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, k]

    distance = np.linalg.norm(x[:, None] - y[None], axis=2)
    assert values["precision"] == pytest.approx((distance < radii(x, 3)[:, None]).any(0).mean(), abs=1e-6)
    assert values["recall"] == pytest.approx((distance < radii(y, 3)[None]).any(1).mean(), abs=1e-6)
    inside = distance < radii(x, 5)[:, None]
    assert values["density"] == pytest.approx(inside.sum() / (5 * 90), abs=1e-6)
    assert values["coverage"] == pytest.approx(inside.any(1).mean(), abs=1e-6)
    xx, yy, xy = (polynomial_kernel(a, b, degree=3, gamma=1 / 5, coef0=1) for a, b in ((x, x), (y, y), (x, y)))
    kid = (xx.sum() - xx.trace()) / (120 * 119) + (yy.sum() - yy.trace()) / (90 * 89) - 2 * xy.mean()
    assert values["MMD (KID's kernel)"] == pytest.approx(kid, abs=1e-6)


def test_evaluate_by_a_classifier_by_pixels_and_by_features(run, genfast, quick, tmp_path):
    code, out, err = genfast("evaluate", run, "--features", "classifier")
    assert code == 0, err
    texts = ["of a classifier that names the class of", "precision", "Frechet distance", "of 10 in 1000 samples"]
    for text in [*texts, "inception score by this classifier"]:
        assert text in out
    assert "asked for" not in out
    assert genfast("evaluate", run)[1] == out, "the classifier is what labels decide"
    code, out, _ = genfast("evaluate", run, "--features", "pixels")
    assert code == 0 and "features: pixels" in out and "inception" not in out
    real, generated = torch.randn(60, 4), torch.randn(50, 4)
    np.savez(tmp_path / "real.npz", features=real.numpy(), other=np.zeros(3))
    np.savez(tmp_path / "generated.npz", generated.numpy())
    code, out, err = genfast("evaluate", run, "--features", tmp_path / "real.npz", tmp_path / "generated.npz")
    assert code == 0, err
    for name, value in quality.feature_metrics(real.double(), generated.double()).items():
        assert f"{name:<20}{value:17.4f}" in out


def test_bad_features(run, genfast, tmp_path):
    np.savez(tmp_path / "flat.npz", np.zeros(3))
    np.savez(tmp_path / "two.npz", a=np.zeros((3, 2)), b=np.zeros((3, 2)))
    for given, text in (
        (["inception"], "features: expected classifier, pixels or two .npz files; got inception"),
        ([tmp_path / "flat.npz"] * 2, "flat.npz: expected finite features [N, D]; got float64 (3,)"),
        ([tmp_path / "two.npz"] * 2, "two.npz: expected an array 'features', or one alone; got a, b"),
    ):
        code, _, err = genfast("evaluate", run, "--features", *given)
        assert code != 0 and text in err, err


def test_equilibrium_says_a_verdict_and_draws_it(run, genfast, quick, tmp_path):
    code, out, err = genfast("equilibrium", run, "--gap", "--gap-steps", 3, "--images", 100)
    assert code == 0, err
    verdicts = (
        "at equilibrium",
        "discriminator ahead",
        "generator ahead",
        "collapsed",
        "partly collapsed",
        "undecided",
    )
    first, out = out.split("\n", 1)
    assert first == "digits[train]: 1297 images of 8x8, grey, 16 levels, 10 classes"
    assert out.startswith(tuple(f"{run}: {words}\n" for words in verdicts)), out
    for text in ("discriminator right on", "of 10 classes generated", "duality gap", "calibrated at step 6: D(x)"):
        assert text in out
    assert Image.open(run / "equilibrium.png").size[0] > 500
    code, again, _ = genfast("equilibrium", run, "--images", 100, "--out", tmp_path / "plot.png")
    assert code == 0 and (tmp_path / "plot.png").is_file() and "duality gap" not in again
    clear_run(run)
    assert not list(run.iterdir()), "a plot of the run before would be taken for one of the next"


def test_equilibrium_refuses_what_is_no_run_of_a_gan(genfast, tmp_path):
    for target in ("mnist", tmp_path / "none"):
        code, _, err = genfast("equilibrium", target)
        assert code != 0 and f"{target}: expected a run folder with a file metrics.jsonl; got none" in err
    models.build("vae", channels=1, height=8, width=8).save_pretrained(tmp_path / "model")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    code, _, err = genfast("equilibrium", tmp_path)
    assert code != 0 and f"{tmp_path}: expected a run of a GAN; got a vae" in err


def test_a_classifier_is_trained_once_for_the_same_data(data, tmp_path, monkeypatch):
    first, accuracy = quality.run_classifier(*data, steps=30, folder=tmp_path)
    other, _ = quality.run_classifier(*data, steps=30, folder=tmp_path, seed=1)
    monkeypatch.setattr(quality.metrics, "train_classifier", None)
    again, kept = quality.run_classifier(*data, steps=30, folder=tmp_path)
    assert kept == accuracy and not again.training
    assert torch.equal(again.head.weight, first.head.weight) and not torch.equal(again.head.weight, other.head.weight)
    with pytest.raises(TypeError):
        quality.run_classifier(data[0], data[0], steps=30, folder=tmp_path)
    clear_run(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dcgan", "projection-gan"])
def test_a_resumed_run_tells_the_same_of_the_classes(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(modes, "FEWEST", 1)
    monkeypatch.setattr(modes, "SHARE", 1)
    sizes = {"channels": 1, "height": 8, "width": 8, "levels": 17, "stages": 1, "features": 8, "latent": 4}
    sizes |= {"levels": data[0].levels, "classes": 10 if name == "projection-gan" else 0}

    def train(folder, **options):
        torch.manual_seed(0)
        config = AdversarialConfig(steps=8, batch=16, log_every=1, save_every=3, coverage_every=4, device="cpu")
        fit_adversarial(models.build(name, **sizes), *data, config, tmp_path / folder, **options)
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]

    whole = train("whole")
    train("parts", minutes=0)
    assert train("parts", resume=True) == whole
    assert ["classes_hit" in record for record in whole] == [False] * 3 + [True] * 5
    assert (
        whole[3]["classes"] == 10
        and 0 <= whole[3]["classes_hit"] <= 10
        and len(list(tmp_path.glob("*/classifier/*"))) == 2
    )
    for expected, open_at in ((None, 3), (whole[5]["classes_hit"], 6)):
        assert (whole[open_at - 1].get("classes_hit")) == expected


def test_the_monitor_keeps_its_coverage(data):
    monitor, restored = EquilibriumMonitor(), EquilibriumMonitor()
    restored.load_state_dict(monitor.state_dict())
    assert restored.record() == {}
    predicted = torch.arange(100) % 7
    monitor.cover(predicted, data[0].labels, 10)
    restored.load_state_dict(monitor.state_dict())
    coverage = mode_coverage(predicted, data[0].labels, 10)
    expected = {"classes_hit": 7, "classes": 10, "class_outside": 0.0, "class_kl": coverage.kl}
    assert restored.record() == expected and isinstance(restored.record()["classes"], int)
    monitor.cover(torch.full((5,), -1), data[0].labels, 10)
    restored.load_state_dict(monitor.state_dict())
    assert restored.record() == {"classes_hit": 0, "classes": 10, "class_outside": 1.0}


def test_coverage_is_for_labels_and_long_runs(data):
    train, valid = data
    gan = models.build("dcgan", channels=1, height=8, width=8, stages=1, features=8, latent=4)
    assert modes.ModeCoverage.possible(gan, train, valid, 4000)
    assert not modes.ModeCoverage.possible(gan, train, valid, 3999)
    assert not modes.ModeCoverage.possible(gan, load("photos", split="train"), valid, 4000)


def test_the_plot_has_a_part_for_classes_where_they_were_counted():
    seen = {"accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7, "accuracy_real": 0.6, "accuracy_fake": 0.6}
    seen |= {"d_real": 0.55, "d_fake": 0.45}
    records = [seen | {"step": step} for step in (1, 2, 3)]
    plain = report.standing(records)
    counted = report.standing(
        [records[0], *(r | {"classes_hit": 7, "classes": 10, "class_kl": 0.2} for r in records[1:])]
    )
    heights = [int.from_bytes(png[20:24], "big") for png in (plain, counted)]
    assert all(png.startswith(b"\x89PNG") for png in (plain, counted)) and heights[1] > heights[0] * 1.2


class Nearest:
    """A classifier that knows every image: that of the nearest, and pixels for features."""

    def __init__(self, data):
        self.data = data

    def features(self, images):
        return images.flatten(1).float()

    def predict(self, images):
        return self.data.labels[torch.cdist(self.features(images), self.features(self.data.images)).argmin(1)]

    def probabilities(self, images):
        return torch.nn.functional.one_hot(self.predict(images), self.data.classes).double()


def perfect(monkeypatch, module, data):
    """Samples are images of the data, of the classes that are asked for if any are."""

    def draw(model, count, *, seed, labels=None):
        generator = torch.Generator().manual_seed(seed)
        wanted = data.labels[torch.randint(len(data), (count,), generator=generator)] if labels is None else labels
        alike = [(data.labels == label).nonzero().flatten() for label in range(data.classes)]
        indices = [alike[k][torch.randint(len(alike[k]), (1,), generator=generator)] for k in wanted.tolist()]
        return data.images[torch.cat(indices)]

    monkeypatch.setattr(module, "draw", draw)
    for place in (standing, quality):
        monkeypatch.setattr(place, "run_classifier", lambda *_, **__: (Nearest(data), 1.0))
    return draw


def judged(monkeypatch, data, name, images):
    perfect(monkeypatch, standing, data)
    classes = {"classes": data.classes} if name == "projection-gan" else {}
    model = models.build(name, channels=1, height=8, width=8, levels=data.levels, **classes)
    monkeypatch.setattr(standing, "held_out_data", lambda *_: data)
    args = SimpleNamespace(images=images, seed=0, device="cpu", target="none")
    return standing._samples(model, None, data, args)[0]


@pytest.fixture
def uneven(data):
    """97 of 100 images are of class 0, the others of class 1."""
    train, _ = data
    rows = torch.cat([(train.labels == k).nonzero().flatten()[:n] for k, n in ((0, 97), (1, 3))])
    return replace(train, images=train.images[rows], labels=train.labels[rows], classes=2)


def test_a_conditional_generator_is_asked_for_the_classes_in_their_shares(uneven, monkeypatch):
    """Of data with 97 images of one class and 3 of the other; a class as often as the other would be "collapsed"."""
    judged_coverage = judged(monkeypatch, uneven, "projection-gan", 500)
    assert judged_coverage.hit == 2 and judged_coverage.kl < 1e-6
    draw = perfect(monkeypatch, standing, uneven)
    model = models.build("projection-gan", channels=1, height=8, width=8, levels=uneven.levels, classes=2)
    classes = _sample_quality(model, uneven, uneven, ["classifier"], 0, "none", draw).classes
    assert (classes.hit, classes.classes, classes.samples) == (2, 2, 1000) and classes.kl < 1e-4
    assert classes.as_asked == 1
    monitor = EquilibriumMonitor()
    coverage = modes.ModeCoverage.__new__(modes.ModeCoverage)
    coverage.train, coverage.classifier = uneven, Nearest(uneven)
    model.sample_images = lambda n, *, labels, **_: draw(model, n, seed=0, labels=labels)
    coverage.look(model, monitor)
    assert monitor.record()["class_kl"] < 1e-3


def test_a_conditional_generator_needs_labels_to_be_judged_by(uneven):
    model = models.build("projection-gan", channels=1, height=8, width=8, levels=uneven.levels, classes=2)
    with pytest.raises(ValueError, match="expected labels for a model of 2 classes; got images without labels"):
        labels_in_shares(model, replace(uneven, labels=None), 4)
    assert labels_in_shares(model, uneven, 100, 1).bincount().tolist() == [97, 3]
    first, more = (labels_in_shares(model, uneven, count, 1) for count in (40, 250))
    assert torch.equal(first, more[:40]) and 240 <= more.bincount()[0] <= 244


@pytest.fixture
def by_class(data):
    train, _ = data
    order = train.labels.argsort(stable=True)
    return replace(train, images=train.images[order], labels=train.labels[order])


def test_images_that_are_sorted_by_class_are_judged_as_any_others(by_class, monkeypatch):
    """The first 1000 of them are of eight classes: those of the others would have nothing real beside them."""
    assert by_class.labels[:1000].max() == 7
    coverage = judged(monkeypatch, by_class, "dcgan", 1000)
    assert coverage.hit == 10 and coverage.outside < 0.1
    some = any_images(by_class, 200, seed=1)
    assert len(some) == 200 and set(some.labels.tolist()) == set(range(10)) and some.name.endswith(", any 200")
    assert set(zip(map(bytes, some.images.flatten(1).numpy()), some.labels.tolist(), strict=True)) <= set(
        zip(map(bytes, by_class.images.flatten(1).numpy()), by_class.labels.tolist(), strict=True)
    )
    assert any_images(by_class, None, seed=1) is by_class


def test_evaluate_compares_samples_with_any_of_the_images(run, genfast, quick):
    code, out, err = genfast("evaluate", run, "--images", 50, "--features", "pixels")
    assert code == 0 and "digits[test], any 50: 50 images" in out, err
