"""What each model of the package can do, and what a model of somebody else must have for it."""

import pytest
import torch
from torch import nn

from genfast.engine import protocols
from genfast.engine.protocols import ImageSpec
from genfast.models import MODELS, build

AUTOREGRESSIVE = {"pixelrnn", "pixelcnn", "gated-pixelcnn", "pixelsnail", "pixelcnn++", "char-rnn", "wavenet"}
LATENT, GANS = {"vae", "iwae"}, {"dcgan", "sngan", "wgan-gp", "r3gan", "projection-gan"}
WHO = {
    "Autoregressive": AUTOREGRESSIVE,
    "LatentModel": LATENT,
    "ImportanceSampled": LATENT,
    "Generator": LATENT | GANS | {"vq-vae"},
    "Reconstructor": LATENT | {"vq-vae"},
    "CodeModel": {"vq-vae"},
    "Translator": {"pix2pix"},
    "Density": AUTOREGRESSIVE | LATENT | {"vq-vae"},
    "Trainable": AUTOREGRESSIVE | LATENT | {"vq-vae"},
    "Bounded": AUTOREGRESSIVE | LATENT | {"vq-vae"},
    "Adversarial": GANS | {"pix2pix"},
    "ImageModel": set(MODELS),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_can_do(name):
    model = build(name)
    can = {protocol for protocol in WHO if isinstance(model, getattr(protocols, protocol))}
    assert can == {protocol for protocol, names in WHO.items() if name in names}


@pytest.mark.parametrize("name", MODELS)
def test_the_spec_is_that_of_the_config(name):
    model = build(name)
    c = model.config
    assert model.spec == ImageSpec(c.channels, c.height, c.width, c.levels, c.classes)
    assert model.spec.values == torch.Size(model.spec.shape).numel()


def test_a_module_of_somebody_else_can_do_none_of_it():
    model = nn.Conv2d(1, 4, 3)
    assert not [protocol for protocol in WHO if isinstance(model, getattr(protocols, protocol))]
