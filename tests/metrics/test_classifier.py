"""The small classifier: what it reads of digits, and that it leaves no trace."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from genfast.data import load
from genfast.metrics import Classifier, train_classifier
from genfast.metrics.classifier import ClassifierConfig, _shifted


@pytest.fixture(scope="module")
def digits():
    """Training and test digits, and a classifier of the former with its accuracy on the latter."""
    train, test = load("digits", split="train"), load("digits", split="test")
    held_out = (test.images, test.labels)
    options = {"levels": 16, "held_out": held_out, "steps": 900}
    return train, test, *train_classifier(train.images, train.labels, 10, **options)


def test_it_reads_digits(digits):
    train, test, classifier, accuracy = digits
    assert accuracy >= 0.97
    assert accuracy == pytest.approx(float((classifier.predict(test.images) == test.labels).double().mean()))
    p = classifier.probabilities(test.images, batch=70)
    assert p.shape == (300, 10) and p.dtype == torch.float32 and not classifier.training
    torch.testing.assert_close(p.sum(1), torch.ones(300))
    torch.testing.assert_close(p, classifier(test.images).softmax(1), atol=1e-5, rtol=1e-4)


def test_its_features_tell_the_classes(digits):
    """The nearest neighbours of another library, on the features alone, read the digits too."""
    train, test, classifier, _ = digits
    seen, unseen = (classifier.features(data.images) for data in (train, test))
    assert seen.shape == (len(train), 64) and bool((seen >= 0).all()) and not seen.requires_grad
    judge = KNeighborsClassifier(3).fit(seen.numpy(), train.labels.numpy())
    assert judge.score(unseen.numpy(), test.labels.numpy()) >= 0.97
    assert classifier.features(test.images[:0]).shape == (0, 64)


def test_it_saves_and_opens_itself(digits, tmp_path):
    _, test, classifier, _ = digits
    classifier.save_pretrained(tmp_path)
    again = Classifier.from_pretrained(tmp_path)
    assert torch.equal(again.features(test.images), classifier.features(test.images))


def stripes(n=64, channels=3, height=12, width=20, seed=0):
    """Two classes: horizontal and vertical stripes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=generator)
    rows, columns = torch.arange(height)[:, None] % 2, torch.arange(width)[None] % 2
    images = torch.where(labels[:, None, None] == 1, rows.expand(height, width), columns.expand(height, width))
    noise = torch.randint(0, 60, (n, channels, height, width), generator=generator)
    return (images[:, None] * 180 + noise).to(torch.uint8), labels


def test_the_seed_decides_and_the_random_state_stays():
    images, labels = stripes()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other, third = (train_classifier(images, labels, steps=12, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one[0].state_dict().values(), other[0].state_dict().values()))
    assert one[1] == other[1] and not torch.equal(one[0].head.weight, third[0].head.weight)


def test_it_learns_colour_images_of_any_shape_by_a_tenth_held_out():
    images, labels = stripes(200)
    counted = []
    classifier, accuracy = train_classifier(images, labels, steps=40, progress=counted.append)
    assert accuracy >= 0.9 and counted == list(range(1, 41)) and classifier.config.classes == 2
    assert accuracy * 20 == pytest.approx(round(accuracy * 20)), "of 20 held-out images"


def test_seconds_end_the_training():
    images, labels = stripes()
    counted = []
    train_classifier(images, labels, steps=10**6, seconds=0.2, progress=counted.append)
    assert 1 <= len(counted) < 10**4


def test_shifts_repeat_the_border():
    images = torch.arange(28 * 28).reshape(1, 1, 28, 28).remainder(251).to(torch.uint8).expand(50, 1, 28, 28)
    shifted = _shifted(images).numpy()
    wide = np.pad(images[0, 0].numpy(), 2, mode="edge")
    offsets = set()
    for image in shifted[:, 0]:
        shifts = [(i, j) for i in range(5) for j in range(5) if (wide[i : i + 28, j : j + 28] == image).all()]
        assert len(shifts) == 1
        offsets.add(shifts[0])
    assert len(offsets) > 10
    assert torch.equal(_shifted(images[:, :, :8, :8]), images[:, :, :8, :8]), "no shift of less than 14 pixels"


def test_bad_images_and_labels():
    images, labels = stripes(20)
    for given, of, options, text in (
        (images.float(), labels, {}, "images must be uint8 [N, C, H, W] with N at least 2; got torch.float32"),
        (images[:1], labels[:1], {}, "images must be uint8 [N, C, H, W] with N at least 2; got torch.uint8 (1, 3,"),
        (images, labels[:5], {}, "labels must be integers [N] with N=20; got torch.int64 (5,)"),
        (images, labels.float(), {}, "labels must be integers [N] with N=20; got torch.float32 (20,)"),
        (images, labels, {"classes": 1}, "labels must lie in 0..0; got 0 to 1"),
        (images, labels - 1, {}, "labels must lie in 0..1; got -1 to 0"),
    ):
        with pytest.raises(ValueError) as raised:
            train_classifier(given, of, steps=1, **options)
        assert str(raised.value).startswith(f"train_classifier: {text}"), str(raised.value)
    with pytest.raises(ValueError, match=r"Classifier: x must lie in 0..15; got"):
        train_classifier(images, labels, levels=16, steps=1)
    classifier = Classifier(ClassifierConfig(channels=1, height=8, width=8))
    with pytest.raises(ValueError, match=r"Classifier: x must have shape \[B, C, H, W\] with C=1, H=8, W=8"):
        classifier.features(images)
