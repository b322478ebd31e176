"""Adapters between genfast and two metric packages, torchmetrics and torch-fidelity.

Both packages are optional; torch-fidelity is imported when a function that needs it is called. Both take images as
uint8 [N, 3, H, W] in 0..255; `rgb` converts without loss.

With a classifier of `genfast.metrics.train_classifier` nothing is downloaded::

    fid = torchmetrics.image.fid.FrechetInceptionDistance(feature=FeatureModule(classifier))
    fid.update(rgb(images, 16), real=True)
    fid.update(rgb(samples, 16), real=False)

    register_fidelity_features(classifier, "digits")
    torch_fidelity.calculate_metrics(input1=FidelityImages(samples, 16), input2=FidelityImages(images, 16), fid=True,
                                     feature_extractor="digits", feature_layer_fid="features")

With the weights of Inception v3, `inception_features` computes features for `genfast.metrics.distances`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genfast._defaults import plain_defaults
from genfast.engine.wrappers import unwraps
from genfast.metrics.classifier import Classifier
from genfast.models import GAN


def rgb(images: Tensor, levels: int = 256) -> Tensor:
    """Images of 1 or 3 channels, uint8 [N, C, H, W] in 0..levels-1, as uint8 [N, 3, H, W] in 0..255.

    Raises: ValueError for others.
    """
    _check_images("rgb", images, (1, 3))
    if len(images) and int(images.max()) >= levels:
        raise ValueError(f"rgb: images must lie in 0..{levels - 1}; got {int(images.max())}")
    return _scaled(images, levels - 1, 255).expand(-1, 3, -1, -1).contiguous()


class FeatureModule(nn.Module):
    """A `Classifier` as the `feature` of metrics of torchmetrics, such as FrechetInceptionDistance.

    Use `output="logits"` for its InceptionScore. It takes uint8 [N, 3, H, W] in 0..255, or floats in [0, 1] (which
    torchmetrics passes with `normalize=True`). Images of another size than the classifier's are resized by averaging or
    repeating pixels. Returns: float [N, num_features].

    Raises: ValueError for another output or images of another kind.
    """

    def __init__(self, classifier: Classifier, output: str = "features") -> None:
        super().__init__()
        config = classifier.config
        widths = {"features": config.vector, "logits": config.classes}
        if output not in widths:
            raise ValueError(f"FeatureModule: output must be features or logits; got {output!r}")
        self.classifier, self.output, self.num_features = classifier.eval(), output, widths[output]

    def train(self, mode: bool = True) -> FeatureModule:
        """Does nothing: the classifier stays in evaluation mode, though the packages call `train` on their modules."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            images = (images * 255).round().clamp(0, 255).to(torch.uint8)
        images = self._levels(images)
        return self.classifier.features(images) if self.output == "features" else self.classifier(images)

    def _levels(self, images: Tensor) -> Tensor:
        _check_images("FeatureModule", images, (3,))
        c, size = self.classifier.config, tuple(images.shape[2:])
        if c.channels == 1 or size != (c.height, c.width):
            images = images.float()
            images = images.mean(1, keepdim=True) if c.channels == 1 else images
            images = F.adaptive_avg_pool2d(images, (c.height, c.width))
        return _scaled(images, 255, c.levels - 1)


class FidelityImages(torch.utils.data.Dataset):
    """Images, uint8 [N, C, H, W] in 0..levels-1, as an input of torch-fidelity: image i is uint8 [3, H, W]."""

    def __init__(self, images: Tensor, levels: int = 256) -> None:
        self.images = rgb(images, levels).cpu()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def register_fidelity_features(classifier: Classifier, name: str) -> None:
    """Register a `Classifier` as a feature extractor of torch-fidelity, with the layers `features` and `logits`.

    Raises: ImportError without torch-fidelity; ValueError for a name that torch-fidelity refuses, such as one in use.
    """
    package = _fidelity("register_fidelity_features")
    parts = {layer: FeatureModule(classifier, layer) for layer in ("features", "logits")}

    class Features(package.FeatureExtractorBase):  # type: ignore[name-defined,misc]
        def __init__(self, name: str, features_list: Sequence[str], **options: Any) -> None:
            super().__init__(name, features_list)
            self.parts = nn.ModuleDict(parts)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return tuple(parts)

        @staticmethod
        def get_default_feature_for_isc() -> str:
            return "logits"

        @staticmethod
        def get_default_feature_for_fid() -> str:
            return "features"

        get_default_feature_for_kid = get_default_feature_for_prc = get_default_feature_for_fid

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            """The default layer by the name of a metric, which torch-fidelity calls from 0.4 on."""
            return "logits" if metric == "isc" else "features"

        def forward(self, input: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.parts[layer](input) for layer in self.features_list)

    package.register_feature_extractor(name, Features)


@unwraps
def fidelity_generator(model: Any) -> Any:
    """A GAN as torch-fidelity's GenerativeModelBase.

    It takes z float [N, latent] of a standard normal and, of a conditional model, labels [N]; returns uint8
    [N, 3, H, W]. Raises: ImportError without torch-fidelity; ValueError for another model.
    """
    package = _fidelity("fidelity_generator")
    if not isinstance(model, GAN):
        raise ValueError(f"fidelity_generator: model must be a GAN; got a {type(model).__name__}")

    class Generator(package.GenerativeModelBase):  # type: ignore[name-defined,misc]
        z_type, z_size = "normal", model.config.latent
        num_classes = model.spec.classes

        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            with torch.no_grad():
                return rgb(self.model.quantised(self.model.generate(z, labels)), self.model.config.levels)

    return Generator()


@torch.no_grad()
def inception_features(
    images: Tensor,
    weights: str | Path,
    *,
    levels: int = 256,
    layer: str = "2048",
    batch: int = 64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Features of torch-fidelity's Inception v3, those of the usual FID and KID: float32 [N, D]; `layer` decides D.

    Args:
        images: uint8 [N, C, H, W], levels; C 1 or 3.
        weights: the file of weights of torch-fidelity's release; nothing is downloaded.
        levels: values of a channel.
        layer: 64, 192, 768, 2048, logits or logits_unbiased, as a string.
        batch: images at a time; device: where.
    Raises: ImportError without torch-fidelity; FileNotFoundError without the weights; ValueError for other images.
    """
    package = _fidelity("inception_features")
    if not Path(weights).is_file():
        raise FileNotFoundError(f"inception_features: weights must be a file; got {weights}")
    images = rgb(images, levels)
    with plain_defaults():
        network = package.FeatureExtractorInceptionV3(
            "inception-v3-compat", [layer], feature_extractor_weights_path=str(weights)
        )
    network = network.to(device).eval()
    return torch.cat([network(part.to(device))[0].float().flatten(1).cpu() for part in images.split(batch)])


def _fidelity(function: str) -> Any:
    try:
        import torch_fidelity
    except ImportError as error:
        raise ImportError(f"{function}: expected the package torch-fidelity; got {error}") from None
    return torch_fidelity


def _scaled(images: Tensor, top: int, wanted: int) -> Tensor:
    """Levels 0..top rescaled to 0..wanted and rounded; invertible if wanted is at least top."""
    return (images.float() * (wanted / top)).round().to(torch.uint8)


def _check_images(name: str, images: Tensor, channels: tuple[int, ...]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in channels:
        expected = f"uint8 [N, C, H, W] with C {' or '.join(map(str, channels))}"
        raise ValueError(f"{name}: images must be {expected}; got {images.dtype} {tuple(images.shape)}")
