"""Networks over whole feature maps against the forward of the modules that they were lowered from."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import genfast
from genfast import models, testing
from genfast.engine.compiler import layers
from genfast.engine.compiler.layers import lower
from genfast.engine.network import Map, Network, Step


class OnlyOne(nn.Module):
    """A network whose forward takes labels and has no use for them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, labels=None):
        return self.network(x)


class Functions(nn.Module):
    """What the layers of the models do not have: activations, a crop between layers, a gather for a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, (2, 1), (0, 2)), nn.Conv2d(2, 4, 2, bias=False)
        self.last = nn.Linear(4 * 6 * 11, 5, bias=False)

    def forward(self, x, labels=None):
        h = F.elu(self.first(x)).tanh()
        h = F.pixel_shuffle(h, 2)[:, :, 1:8, :-2]
        h = torch.sigmoid(self.second(h) + 0.5 * torch.ones(4, 1, 1, dtype=torch.float32, device="cpu"))
        y = h.reshape(len(h), 4, 6, 11).permute(0, 1, 2, 3)
        return self.last((h + y).transpose(2, 3).flatten(1).unsqueeze(1).squeeze(1))


def random(module):
    generator = torch.Generator("cpu").manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.25, generator=generator)
    return module.eval()


def vae(**options):
    return models.VAE(models.VAEConfig(**{"height": 9, "width": 7, "latent": 5} | options))


def vq(**options):
    return models.VQVAE(models.VQVAEConfig(**{"height": 8, "width": 12, "features": 3, "hidden": 20} | options))


CASES = {
    "encoder": lambda: (vae(hidden=6).encoder, (1, 9, 7), 0),
    "encoder-labels": lambda: (vae(hidden=34, classes=3).encoder, (1, 9, 7), 3),
    "decoder": lambda: (vae(hidden=6, layers=2).decoder, (5,), 0),
    "decoder-labels": lambda: (vae(hidden=17, levels=256, mixtures=2, classes=3).decoder, (5,), 3),
    "no-blocks": lambda: (vae(layers=0, hidden=3).decoder, (5,), 0),
    "dense": lambda: (vae(network="mlp", hidden=70, layers=3).encoder, (63,), 0),
    "dense-labels": lambda: (vae(network="mlp", hidden=9, layers=1, classes=4).decoder, (5,), 4),
    "vq-encoder": lambda: (OnlyOne(vq(layers=1).encoder), (1, 8, 12), 0),
    "vq-decoder": lambda: (OnlyOne(vq(layers=2).decoder), (3, 2, 3), 0),
    "vq-same-size": lambda: (OnlyOne(vq(downsampling=0).decoder), (3, 8, 12), 0),
    "functions": lambda: (Functions(), (3, 9, 5), 0),
} | {
    f"transposed-{'-'.join(map(str, numbers))}": (
        lambda numbers=numbers: (OnlyOne(nn.ConvTranspose2d(3, 5, *numbers)), (3, 6, 5), 0)
    )
    for numbers in [(4, 2, 1), (3, 2, 1, 1), (5, 3), (2, 2), (3,), (4, 4, 3, 1), (1, 3), (7, 2, 3, 1, 1, False)]
}


def inputs(shape, classes, n):
    generator = torch.Generator("cpu").manual_seed(2)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float32, device="cpu")
    return x, torch.arange(n, dtype=torch.int64, device="cpu") * 7 % classes if classes else None


def run(network, x, labels):
    y = network.run(x.movedim(1, -1) if x.dim() == 4 else x[:, None, None], labels)
    return y.movedim(-1, 1)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    module, shape, classes = CASES[request.param]()
    random(module)
    return module, lower(module, shape, classes), shape, classes


def test_matches_the_forward(case):
    module, network, shape, classes = case
    for n in (0, 1, 7, 26):
        x, labels = inputs(shape, classes, n)
        with torch.no_grad(), testing.poisoned():
            expected = module(x, labels)
            got = run(network, x, labels)
        scale = max(1.0, expected.abs().max().item()) if n else 1.0
        testing.assert_matches(got.reshape(expected.shape), expected, atol=1e-5 * scale)


def test_same_bits_for_threads_isas_splits_and_modes(case):
    _, network, shape, classes = case
    x, labels = inputs(shape, classes, 31)
    x[0] *= 1e-39  # subnormal numbers
    with testing.threads(1):
        expected = run(network, x, labels)
    active = genfast.backends()["cpp"]
    for count, isa in [(2, active.isa), *((1, isa) for isa in active.isas), (3, active.isas[0])]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                testing.assert_identical(run(network, x, labels), expected, name=f"{isa}, {count} threads")
        finally:
            genfast.set_isa(active.isa)
    sizes = [1, 5, 25]
    parts = zip(x.split(sizes), labels.split(sizes) if classes else [None] * 3)
    testing.assert_identical(torch.cat([run(network, *part) for part in parts]), expected)
    torch.set_flush_denormal(True)
    try:
        flushed = run(network, x, labels)
    finally:
        torch.set_flush_denormal(False)
    testing.assert_identical(flushed, expected)


def test_digest():
    """Of the same weights the same, of others another."""
    first, same, other = (random(vae(hidden=6)).decoder for _ in range(3))
    with torch.no_grad():
        other.output.bias[0] += 1e-6
    digests = [lower(module, (5,)).digest() for module in (first, same, other)]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == 32


class Refused(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.call = forward
        self.convolution = nn.Conv2d(2, 4, 3)
        self.grouped = nn.Conv2d(2, 4, 3, groups=2)
        self.embedding = nn.Embedding(2, 4)
        self.lookup = nn.Embedding(2, 4 * 3 * 3)

    def forward(self, x, labels=None):
        return self.call(self, x, labels)


REFUSALS = {
    "pooling": (lambda m, x, _: F.avg_pool2d(x, 2), "layers must be .*; got aten.avg_pool2d"),
    "groups": (lambda m, x, _: m.grouped(x), "one group .*; got 2 dimensions, 2 groups"),
    "product": (lambda m, x, _: x * x, "layers must be .*; got aten.mul"),
    "labels-of-places": (lambda m, x, y: m.convolution(x) + m.lookup(y).view(2, 4, 3, 3), "the same at every place"),
    "labels-later": (lambda m, x, y: m.convolution(x).relu() + m.embedding(y)[:, :, None, None], "after a convolution"),
    "values": (lambda m, x, _: x if x.sum() > 0 else -x, "must not depend on values"),
    "constant": (lambda m, x, _: m.embedding.weight + 0.0, "output must depend on the input"),
    "broadcast": (lambda m, x, _: m.convolution(x) + m.convolution(x)[:, :1], "summands must have one shape"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name):
    forward, message = REFUSALS[name]
    with pytest.raises(ValueError, match=f"network: .*{message}"):
        lower(Refused(forward).eval(), (2, 5, 5), classes=2)


def test_a_wrong_lowering_is_found(monkeypatch):
    module = random(vae(hidden=6)).decoder
    right = layers._shuffled
    monkeypatch.setattr(layers, "_shuffled", lambda a, factor: right(a, factor)[..., ::-1])
    with pytest.raises(ValueError, match="expected the output of its forward"):
        lower(module, (5,))


def test_memory_is_shared():
    """A chain of maps of one geometry takes two of them, apart from the input."""
    maps = [Map(4, 4, 3) for _ in range(9)]
    weight = np.ones((3, 3, 3, 3), np.float32)
    steps = [
        Step("convolve", one, other, weight=weight, bias=np.zeros((1, 3), np.float32), offset=(1, 1))
        for one, other in zip(maps, maps[1:])
    ]
    network = Network(steps, maps[0], maps[-1])
    assert network.table[1] <= 2 * maps[0].floats + maps[-1].floats + 32
