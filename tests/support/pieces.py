"""Small inputs, layers and models, for tests that hold for all of them; every tensor names its dtype and device."""

import dataclasses
import functools

import numpy as np
import torch
from torch import nn

import genfast
from genfast import data, metrics, models

PLAIN = {"device": "cpu", "dtype": torch.float32}


def plain(value):
    """A result as nested tuples of what can be compared bit for bit: names, dtypes, devices, bytes."""
    if isinstance(value, torch.Tensor):
        # The sign of a zero counts, and a NaN equals itself.
        return str(value.dtype), str(value.device), tuple(value.shape), bits(value.detach())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return tuple((field.name, plain(getattr(value, field.name))) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return tuple((key, plain(entry)) for key, entry in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(plain(entry) for entry in value)
    assert value is None or isinstance(value, (bool, int, float, str, bytes)), type(value)
    return repr(value) if isinstance(value, float) else value


def bits(tensor):
    return tensor.contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def generator(seed=0):
    return torch.Generator("cpu").manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float32, device="cpu")


def levels(*shape, levels=256, seed=0):
    return torch.randint(levels, shape, generator=generator(seed), dtype=torch.uint8, device="cpu")


def integers(*shape, below, seed=0):
    return torch.randint(below, shape, generator=generator(seed), dtype=torch.int64, device="cpu")


LAYERS = {
    "BiasAct": ((4, "leaky_relu"), {}, (2, 4, 3, 3)),
    "Blur2d": (((1, 2, 1),), {}, (2, 4, 4, 4)),
    "ConvDecoder": ((3, 1, 8, 8), {"features": 4, "blocks": 1}, (2, 3)),
    "ConvEncoder": ((1, 8, 8, 6), {"features": 4, "blocks": 1}, (2, 1, 8, 8)),
    "DenseCoder": ((6, 4), {"hidden": 5}, (2, 6)),
    "DiagonalBiLSTM": ((4, 3), {}, (2, 4, 5, 4)),
    "Downsample2d": ((), {}, (2, 3, 8, 8)),
    "GatedResidualBlock": ((4, (2, 3), "down"), {}, (2, 4, 5, 5)),
    "GatedStackLayer": ((1, 4, 4), {"kernel_size": 3, "mask": "A"}, (2, 1, 5, 5), (2, 1, 5, 5)),
    "GaussianLatent": ((), {}, (2, 4), (2, 4)),
    "MaskedConv2d": ((1, 4, 3), {"mask": "A"}, (2, 1, 5, 5)),
    "MinibatchDiscrimination": ((4, 3, 2), {}, (5, 4)),
    "MinibatchStddev": ((), {}, (4, 4, 3, 3)),
    "PlainResidualBlock": ((4,), {}, (2, 4, 5, 5)),
    "ResidualConvBlock": ((3,), {}, (2, 6, 5, 5)),
    "ResidualDiagonalBlock": ((3,), {}, (2, 6, 5, 4)),
    "ResidualRowBlock": ((3,), {}, (2, 6, 5, 4)),
    "ResidualVectorQuantizer": ((2, 8, 4), {}, (2, 4, 3, 3)),
    "RowLSTM": ((4, 3), {}, (2, 4, 5, 4)),
    "ShiftedConv2d": ((2, 4, (2, 3), "down"), {"mask": "A"}, (2, 2, 5, 5)),
    "ShiftedConvTranspose2d": ((4, 4, "down-right"), {}, (2, 4, 3, 3)),
    "Upsample2d": ((), {}, (2, 3, 4, 4)),
    "VectorQuantizer": ((8, 4), {}, (2, 4, 3, 3)),
}


def new_layer(name):
    """A new layer, as the user's defaults have it."""
    if name == "SpectralNorm":
        return genfast.nn.SpectralNorm(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)))
    if name == "ReferenceBatch":
        return genfast.nn.ReferenceBatch(genfast.nn.VirtualBatchNorm2d(3), torch.randn(4, 3, 2, 2))
    arguments, options, *_ = LAYERS[name]
    return getattr(genfast.nn, name)(*arguments, **options)


@functools.cache
def made_layer(name):
    """A layer with random weights; not to be changed."""
    torch.manual_seed(1)
    made = new_layer(name)
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.copy_(0.5 * normal(*parameter.shape, seed=number))
    return made


SMALL = {"height": 6, "width": 6}
SQUARE = {"height": 8, "width": 8}
MODELS = {
    "pixelcnn": {**SMALL, "hidden": 2, "layers": 1, "head": 2, "levels": 4},
    "gated-pixelcnn": {**SMALL, "hidden": 4, "layers": 2, "head": 4, "levels": 4},
    "pixelsnail": {**SMALL, "hidden": 4, "blocks": 1, "layers": 1, "depth": 2, "value": 2, "head": 4},
    "pixelcnn++": {**SQUARE, "filters": 4, "blocks": 1, "mixtures": 2, "levels": 8},
    "pixelrnn": {**SMALL, "hidden": 4, "layers": 1, "head": 4},
    "vae": {**SQUARE, "latent": 3, "hidden": 4},
    "iwae": {**SQUARE, "latent": 3, "hidden": 4, "samples": 3},
    "vq-vae": {**SQUARE, "codes": 8, "features": 4, "hidden": 4, "layers": 1, "levels": 8},
    "dcgan": {**SQUARE, "latent": 4, "features": 4, "virtual_batch_norm": True},
    "sngan": {**SQUARE, "latent": 4, "features": 4},
    "wgan-gp": {**SQUARE, "latent": 4, "features": 4},
    "projection-gan": {**SQUARE, "latent": 4, "features": 4, "classes": 3},
    "r3gan": {**SQUARE, "latent": 4, "features": 4, "group": 2},
    "char-rnn": {"width": 6, "levels": 4, "hidden": 3},
    "wavenet": {"width": 6, "levels": 4, "hidden": 3, "layers": 3, "cycle": 2, "head": 4},
    "pix2pix": {"height": 16, "width": 16, "features": 4, "patch": 1},
}


@functools.cache
def model(kind):
    """A small model of each kind with random weights, in evaluation mode; not to be changed."""
    torch.manual_seed(0)
    made = models.build(kind, **MODELS[kind])
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.add_(0.05 * normal(*parameter.shape, seed=number))
    return made.eval()


def batch_of(kind, count=2):
    """The arguments of the losses of a model."""
    made = model(kind)
    images = levels(count, *made.spec.shape, levels=made.spec.levels)
    if kind == "pix2pix":
        return levels(count, *made.source.shape, levels=256, seed=1), images
    return (images, integers(count, below=made.spec.classes)) if made.spec.classes else (images,)


@functools.cache
def classifier():
    torch.manual_seed(0)
    return metrics.Classifier(metrics.classifier.ClassifierConfig(1, 8, 8, 8, classes=3, filters=4, vector=4)).eval()


def images_of(kind, count=2):
    made = model(kind)
    return levels(count, *made.spec.shape, levels=made.spec.levels)


def left(made):
    """The left half of an image is known, bool [1, 1, H, W]."""
    mask = torch.zeros(1, 1, made.spec.height, made.spec.width, dtype=torch.bool, device="cpu")
    mask[..., : made.spec.width // 2] = True
    return mask


def image_set(kind, count=12):
    spec = model(kind).spec
    labels = integers(count, below=spec.classes) if spec.classes else None
    return data.ImageData(images_of(kind, count), spec.levels, "noise", 0, labels, spec.classes)
