"""Encoders, decoders and the layer of the latent: sizes, starts, labels and seeds."""

import pytest
import torch

from genfast import testing
from genfast.nn import ConvDecoder, ConvEncoder, DenseCoder, GaussianLatent, PlainResidualBlock


def first_number(seed):
    torch.manual_seed(seed)
    return int(torch.randint(2**63 - 1, ()))


def test_layers_of_any_size():
    for height, width in ((1, 1), (4, 8), (5, 7), (28, 27)):
        assert ConvEncoder(3, height, width, 6, 4)(torch.zeros(2, 3, height, width)).shape == (2, 6)
        assert ConvDecoder(5, 3, height, width, 4)(torch.zeros(2, 5)).shape == (2, 3, height, width)


def test_layers_start_near_nothing():
    block, x = PlainResidualBlock(4), torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    assert ConvDecoder(3, 2, 5, 5)(torch.randn(4, 3)).abs().max() == 0
    assert ConvEncoder(1, 8, 8, 4)(torch.randn(4, 1, 8, 8)).std() < 0.5


@pytest.mark.parametrize("kind", [ConvEncoder, ConvDecoder, DenseCoder])
def test_labels_reach_every_layer(kind):
    sizes = {ConvEncoder: (1, 5, 5, 4, 4), ConvDecoder: (4, 1, 5, 5, 4), DenseCoder: (4, 4, 8)}[kind]
    layer = testing.awake(kind(*sizes, classes=3))
    x = torch.randn(2, *((1, 5, 5) if kind is ConvEncoder else (4,)), dtype=torch.float64)
    one, other = (layer(x, torch.full((2,), label)) for label in (0, 1))
    assert not torch.equal(one, other)


def test_the_layer_of_the_latent_draws_its_seed():
    layer, mean = GaussianLatent(samples=2), torch.randn(3, 4)
    torch.manual_seed(5)
    z, kl = layer(mean, mean)
    assert z.shape == (6, 4) and kl.shape == (3,)
    torch.manual_seed(5)
    assert torch.equal(layer(mean, mean)[0], z) and not torch.equal(layer(mean, mean)[0], z)
    assert torch.equal(layer(mean, mean, seed=first_number(5))[0], z)
    assert GaussianLatent(per_latent=True)(mean, mean)[1].shape == (3, 4) and "samples=2" in repr(layer)
