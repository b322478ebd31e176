"""The contracts of torchmetrics and torch-fidelity, each written out here as their documentation states it."""

import sys
from abc import ABC, abstractmethod
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from genfast import models
from genfast.metrics import Classifier, frechet_distance
from genfast.metrics.adapters import (
    FeatureModule,
    FidelityImages,
    fidelity_generator,
    inception_features,
    register_fidelity_features,
    rgb,
)
from genfast.metrics.classifier import ClassifierConfig


def classifier(channels=1, levels=16):
    return Classifier(ClassifierConfig(channels, 8, 8, levels, classes=4, vector=6))


def images(n=40, channels=1, levels=16):
    return torch.randint(0, levels, (n, channels, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_packages_take_comes_back_whole(channels, levels):
    x, network = images(channels=channels, levels=levels), classifier(channels, levels)
    colours = rgb(x, levels)
    assert colours.shape == (40, 3, 8, 8) and colours.dtype == torch.uint8
    assert colours.double().sub(x.double() * 255 / (levels - 1)).abs().max() <= 0.5
    features = network.features(x)
    assert torch.equal(FeatureModule(network)(colours), features)
    assert torch.equal(FeatureModule(network)(colours / 255), features), "floats in [0, 1], of normalize=True"
    large = colours.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(FeatureModule(network)(large), features), "nine pixels of one colour are one pixel"


def frechet_of_torchmetrics(feature, real, fake):
    """What FrechetInceptionDistance does with a module: num_features, or a probe of 299 pixels; sums; the distance."""
    assert isinstance(feature, nn.Module)
    probe = torch.randint(0, 255, (1, 3, 299, 299), dtype=torch.uint8)
    assert feature(probe).shape[-1] == feature.num_features and isinstance(feature.num_features, int)
    sums = []
    for batches in (real.split(7), fake.split(7)):
        total, squares, count = 0, 0, 0
        for batch in batches:
            features = feature(batch).double()
            total, squares, count = total + features.sum(0), squares + features.T @ features, count + len(batch)
        mean = total / count
        sums.append((mean, (squares - count * torch.outer(mean, mean)) / (count - 1)))
    (m, a), (n, b) = sums
    return float((m - n).square().sum() + a.trace() + b.trace() - 2 * torch.linalg.eigvals(a @ b).sqrt().real.sum())


def test_frechet_distance_of_torchmetrics_is_ours_on_the_same_features():
    network = classifier().train()
    feature = FeatureModule(network).train()
    assert not feature.training and not network.training
    real, fake = images(60), images(50).div(2, rounding_mode="floor")
    expected = frechet_distance(network.features(real).double(), network.features(fake).double())
    assert frechet_of_torchmetrics(feature, rgb(real, 16), rgb(fake, 16)) == pytest.approx(expected, abs=1e-6)
    assert expected > 1e-3
    assert torch.equal(FeatureModule(network, "logits")(rgb(real, 16)), network(real).detach())


class FeatureExtractorBase(nn.Module):
    def __init__(self, name, features_list):
        super().__init__()
        assert isinstance(name, str) and features_list and len(set(features_list)) == len(features_list)
        assert all(feature in self.get_provided_features_list() for feature in features_list)
        self.name, self.features_list = name, features_list


class GenerativeModelBase(ABC, nn.Module):
    @property
    @abstractmethod
    def z_size(self):
        """Of the noise."""

    @property
    @abstractmethod
    def z_type(self):
        """normal, unit or uniform_0_1."""

    @property
    @abstractmethod
    def num_classes(self):
        """0 of an unconditional model."""


class Inception(FeatureExtractorBase):
    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__(name, features_list)
        assert feature_extractor_weights_path is not None, "would be downloaded"

    @staticmethod
    def get_provided_features_list():
        return ("64", "2048")

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return tuple(x.float().mean((2, 3))[:, :, None, None] for _ in self.features_list)


@pytest.fixture
def fidelity(monkeypatch):
    """A package of torch-fidelity's interface; `registry` has the extractors that were registered."""
    package = ModuleType("torch_fidelity")
    package.FeatureExtractorBase, package.GenerativeModelBase = FeatureExtractorBase, GenerativeModelBase
    package.FeatureExtractorInceptionV3, package.registry = Inception, {}
    package.register_feature_extractor = package.registry.__setitem__
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    return package


def test_a_classifier_extracts_features_for_torch_fidelity(fidelity):
    network, x = classifier(), images()
    register_fidelity_features(network, "digits")
    kind = fidelity.registry["digits"]
    assert issubclass(kind, FeatureExtractorBase)
    named = [getattr(kind, f"get_default_feature_for_{metric}")() for metric in ("isc", "fid", "kid", "prc")]
    assert named == ["logits", "features", "features", "features"]
    assert [kind.get_default_feature_layer_for_metric(metric) for metric in ("isc", "fid", "kid", "prc")] == named
    data = FidelityImages(x, 16)
    assert isinstance(data, Dataset) and len(data) == 40 and data[3].shape == (3, 8, 8)
    extractor = kind("digits", ["logits", "features"], cuda=False, verbose=False).eval()
    parts = [extractor(batch) for batch in DataLoader(data, 16)]
    assert all(isinstance(part, tuple) for part in parts)
    logits, features = (torch.cat(part) for part in zip(*parts, strict=True))
    torch.testing.assert_close(logits, network(x).detach())
    torch.testing.assert_close(features, network.features(x))


@pytest.mark.parametrize("classes", [0, 4])
def test_a_gan_generates_for_torch_fidelity(fidelity, classes):
    name = "projection-gan" if classes else "dcgan"
    sizes = {"height": 8, "width": 8, "stages": 1, "features": 8, "latent": 5, "levels": 16, "classes": classes}
    model = models.build(name, **{"channels": 1, **sizes})
    generator = fidelity_generator(model)
    assert isinstance(generator, GenerativeModelBase) and not model.training
    assert (generator.z_size, generator.z_type, generator.num_classes) == (5, "normal", classes)
    z = torch.from_numpy(np.random.RandomState(0).randn(6, 5))
    labels = (torch.arange(6) % 4,) if classes else ()
    drawn = generator(z, *labels)
    assert drawn.shape == (6, 3, 8, 8) and drawn.dtype == torch.uint8
    expected = (model.generate(z.float(), *labels)[:, :1].detach() + 1) * 7.5
    assert (drawn[:, :1] / 17 - expected).abs().max() <= 0.5 + 1e-4
    with pytest.raises(ValueError, match="fidelity_generator: model must be a GAN; got a Classifier"):
        fidelity_generator(classifier())


def test_inception_features_of_weights_at_hand(fidelity, tmp_path):
    weights, x = tmp_path / "inception.pth", images(10)
    with pytest.raises(FileNotFoundError, match="inception_features: weights must be a file; got"):
        inception_features(x, weights)
    weights.write_bytes(b"")
    features = inception_features(x, weights, levels=16, batch=4)
    torch.testing.assert_close(features, rgb(x, 16).float().mean((2, 3)))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    for name, call in {
        "register_fidelity_features": lambda: register_fidelity_features(classifier(), "digits"),
        "fidelity_generator": lambda: fidelity_generator(classifier()),
        "inception_features": lambda: inception_features(images(), "nowhere"),
    }.items():
        with pytest.raises(ImportError, match=f"{name}: expected the package torch-fidelity; got"):
            call()


def test_bad_images():
    with pytest.raises(ValueError, match="rgb: images must lie in 0..15; got 200"):
        rgb(torch.full((1, 1, 2, 2), 200, dtype=torch.uint8), 16)
    with pytest.raises(ValueError, match=r"rgb: images must be uint8 \[N, C, H, W\] with C 1 or 3; got torch.uint8"):
        rgb(images(channels=2))
    with pytest.raises(ValueError, match=r"FeatureModule: images must be uint8 \[N, C, H, W\] with C 3; got"):
        FeatureModule(classifier())(images())
    with pytest.raises(ValueError, match="FeatureModule: output must be features or logits; got 'pool'"):
        FeatureModule(classifier(), "pool")
