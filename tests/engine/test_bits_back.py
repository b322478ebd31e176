"""Bits-back codes: what they give back, what they cost, and what damage does."""

import math

import constriction
import numpy as np
import pytest
import torch
from torch import nn

import genfast
from genfast import models, testing
from genfast._native import backends
from genfast.engine.bits_back import BitsBack

CASES = {
    "binary": {"hidden": 6, "latent": 5},
    "dense": {"network": "mlp", "layers": 2, "hidden": 20, "latent": 3, "classes": 3},
    "labels": {"hidden": 4, "latent": 7, "classes": 3},
    "binary-colour": {"hidden": 4, "latent": 4, "channels": 3},
    "grey": {"levels": 256, "mixtures": 3, "hidden": 4, "latent": 4},
    "few-greys": {"levels": 5, "mixtures": 9, "hidden": 4, "latent": 4},
    "colour": {"levels": 16, "mixtures": 2, "channels": 3, "hidden": 4, "latent": 6, "classes": 2},
}


def vae(std=0.15, seed=0, **options):
    generator = torch.Generator("cpu").manual_seed(seed)
    model = models.VAE(models.VAEConfig(**{"height": 7, "width": 9} | options)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return model


def images_of(model, n):
    """Images that the model draws, and labels of them."""
    labels = torch.arange(n, dtype=torch.int64, device="cpu") % model.spec.classes if model.spec.classes else None
    return model.sample(n, seed=3, labels=labels), labels


@pytest.fixture(scope="module", params=CASES)
def case(request):
    model = vae(**CASES[request.param])
    return model, BitsBack(model)


def test_round_trip(case):
    model, coder = case
    for n in (0, 1, 2, 150):
        images, labels = images_of(model, n)
        words = coder.encode_block(images, labels)
        with testing.poisoned():
            decoded = coder.decode_block(words, n, labels)
        assert decoded.dtype == torch.uint8 and torch.equal(decoded, images)
        assert words.dtype == np.uint32 and words[-1] != 0


def test_images_that_the_model_does_not_expect(case):
    """The least likely ones too: all levels, in any order."""
    model, coder = case
    generator = torch.Generator("cpu").manual_seed(5)
    shape = (40, *model.spec.shape)
    images = torch.randint(model.spec.levels, shape, generator=generator, dtype=torch.uint8, device="cpu")
    labels = 1 if model.spec.classes else None
    assert torch.equal(coder.decode_block(coder.encode_block(images, labels), 40, labels), images)


def test_same_words_for_threads_isas_and_modes(case):
    """And they are read back so: the words of one are decoded by another."""
    model, coder = case
    images, labels = images_of(model, 130)
    with testing.threads(1):
        words, probe = coder.encode_block(images, labels), coder.probe()
    active = genfast.backends()["cpp"]
    for count, isa in [(2, active.isa), *((1, isa) for isa in active.isas), (3, active.isas[0])]:
        genfast.set_isa(isa)
        try:
            with testing.threads(count):
                assert np.array_equal(coder.encode_block(images, labels), words), (isa, count)
                assert torch.equal(coder.decode_block(words, 130, labels), images), (isa, count)
                assert coder.probe() == probe
        finally:
            genfast.set_isa(active.isa)
    torch.set_flush_denormal(True)
    try:
        other = BitsBack(model)
        assert np.array_equal(other.encode_block(images, labels), words)
        assert torch.equal(other.decode_block(words, 130, labels), images)
    finally:
        torch.set_flush_denormal(False)
    assert other.fingerprints() == coder.fingerprints()


@pytest.mark.parametrize("name", ["binary", "dense", "grey", "colour"])
def test_costs_the_bound(name):
    """Images cost the evidence lower bound, to one per cent; the block has the words of its first latents besides."""
    model = vae(std=0.3, **CASES[name])
    with torch.no_grad():  # posteriors of about a quarter of the prior's deviation
        model.encoder.output.weight.mul_(0.1 if name != "dense" else 0.3)
        model.encoder.output.bias.copy_(torch.arange(2 * model.latent_size) // model.latent_size * -2.8)
    n = 3000 if model.spec.levels == 2 else 1000
    images, labels = images_of(model, n)
    bits = 32 * len(BitsBack(model).encode_block(images, labels))
    with torch.no_grad():
        bound = -model.elbo(images, labels, seed=1, samples=4).double().sum().item() / math.log(2)
        mean, log_variance = model.encode(images, labels)
    assert 0.05 < mean.std() < 3 and log_variance.mean() < -1
    assert bits == pytest.approx(bound, rel=0.01)


def test_narrow_and_far_posteriors():
    """Posteriors within one bin, beyond all bins, and wider than the prior."""
    model = vae(**CASES["binary"])
    with torch.no_grad():
        model.encoder.output.bias.copy_(torch.tensor([0.0, 9.0, -9.0, 3.0, 0.0, -40.0, -1.0, -30.0, 8.0, 40.0]))
    coder, (images, _) = BitsBack(model), images_of(model, 60)
    assert torch.equal(coder.decode_block(coder.encode_block(images), 60), images)


@pytest.mark.parametrize("name", ["binary", "grey", "colour"])
def test_parameters_that_are_not_finite(name):
    """Weights are finite, but what they give is not."""
    model = vae(**CASES[name])
    for network in (model.decoder, model.encoder):
        with torch.no_grad():
            network.input.weight.mul_(1e38)
        coder, (images, labels) = BitsBack(model), images_of(vae(**CASES[name]), 9)
        try:
            words = coder.encode_block(images, labels)
        except ValueError as error:
            assert "finite parameters" in str(error) and name != "binary"
        else:
            assert torch.equal(coder.decode_block(words, 9, labels), images)


def damages(words):
    """Kind of damage -> other words."""
    rng = np.random.default_rng(0)
    for at in (*range(4), *range(len(words) - 4, len(words)), *rng.integers(0, len(words), 12)):
        changed = words.copy()
        changed[at] ^= np.uint32(1 << int(rng.integers(32)))
        yield f"bit of word {at}", changed
    for size in (0, 1, 2, len(words) // 2, len(words) - 1):
        yield f"the first {size}", words[:size]
        yield f"the last {size}", words[len(words) - size :]
    for name, value in (("zeros", 0), ("ones", 2**32 - 1)):
        yield name, np.full(len(words), value, np.uint32)
        yield f"{name} below", np.concatenate((np.full(1, value, np.uint32), words))
        yield f"{name} above", np.concatenate((words, np.full(1, value, np.uint32)))
    yield "random", rng.integers(0, 2**32, len(words), dtype=np.uint32)
    yield "many", rng.integers(0, 2**32, 10**6, dtype=np.uint32)


def test_damage_is_an_error(case):
    model, coder = case
    images, labels = images_of(model, 12)
    words = coder.encode_block(images, labels)
    for kind, changed in damages(words):
        with pytest.raises(ValueError, match="expected the words of a block"):
            coder.decode_block(changed, 12, labels)
            pytest.fail(f"{kind} was not seen")
    for n in (0, 11, 13, 400):
        with pytest.raises(ValueError, match="expected the words of a block"):
            coder.decode_block(words, n, None if labels is None else torch.zeros(n, dtype=torch.int64, device="cpu"))


def test_other_weights_and_labels_are_an_error():
    model, other = (vae(seed=seed, **CASES["labels"]) for seed in (0, 1))
    images, labels = images_of(model, 12)
    words = BitsBack(model).encode_block(images, labels)
    with pytest.raises(ValueError, match="expected the words of a block of this model"):
        BitsBack(other).decode_block(words, 12, labels)
    with pytest.raises(ValueError, match="expected the words of a block of this model"):
        BitsBack(model).decode_block(words, 12, labels.flip(0))


def test_fingerprint():
    """Of all that the words depend on, and of nothing else."""
    first, same, other = vae(), vae(), vae()
    with torch.no_grad():
        other.encoder.output.bias[3] += 1e-6
    fingerprints = [BitsBack(model).fingerprints() for model in (first, same.train(), other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert BitsBack(first.double()).fingerprints() == fingerprints[0]


def test_probe():
    assert BitsBack(vae()).probe() == BitsBack(vae()).probe() != BitsBack(vae(seed=1)).probe()


def test_refusals():
    with pytest.raises(TypeError, match="bits_back: model must have latents, as genfast.models.VAE; got VQVAE"):
        BitsBack(models.VQVAE(models.VQVAEConfig()))
    with pytest.raises(ValueError, match="a likelihood that gives each .* a probability; got gaussian of 256 levels"):
        BitsBack(vae(levels=256, likelihood="gaussian"))
    broken = vae()
    with torch.no_grad():
        broken.decoder.output.bias[0] = math.nan
    with pytest.raises(ValueError, match="bits_back: decoder.output.bias must be finite; got 1 values"):
        BitsBack(broken)
    coder, labelled = BitsBack(vae()), BitsBack(vae(classes=2))
    images = torch.zeros(2, 1, 7, 9, dtype=torch.uint8, device="cpu")
    with pytest.raises(ValueError, match=r"encode_block: images must lie in 0\.\.1; got 2"):
        coder.encode_block(images + 2)
    with pytest.raises(ValueError, match="encode_block: labels must be integers"):
        labelled.encode_block(images)
    with pytest.raises(TypeError, match=r"decode_block: words must be a uint32 array \[N\]; got int64 \(3,\)"):
        coder.decode_block(np.zeros(3, np.int64), 1)
    with pytest.raises(ValueError, match="decode_block: n must lie in 0"):
        coder.decode_block(np.zeros(3, np.uint32), -1)


def frequencies(rng, symbols):
    """Whole numbers of at least 1 that sum to 2^24."""
    counts = np.floor(rng.dirichlet(np.full(symbols, 0.4)) * (2**24 - symbols)).astype(np.int64) + 1
    counts[rng.integers(symbols)] += 2**24 - counts.sum()
    return counts


def pushed(intervals, capacity):
    words, count = np.zeros(capacity, np.uint32), np.zeros(1, np.int64)
    arguments = intervals.ctypes.data, words.ctypes.data, count.ctypes.data, len(intervals), capacity
    backends.cpp.ans_push("float32", *arguments)
    return words, int(count[0])


@pytest.mark.parametrize("n, symbols", [(0, 3), (1, 2), (2, 2), (40, 2), (900, 7), (300, 256)])
def test_the_coder_is_the_usual_one(n, symbols):
    """Its words are those of constriction's AnsCoder, byte for byte, and it reads them."""
    rng = np.random.default_rng(n)
    counts = np.array([frequencies(rng, symbols) for _ in range(n)]).reshape(n, symbols)
    cumulative = np.zeros((n, symbols + 1), np.uint32)
    cumulative[:, 1:] = counts.cumsum(1)
    values = np.array([rng.choice(symbols, p=row / 2**24) for row in counts], np.int32)
    rows = np.arange(n)
    intervals = np.stack((cumulative[rows, values], counts[rows, values].astype(np.uint32)), 1).astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder()
    for row, value in zip(counts, values):
        model = constriction.stream.model.Categorical(row / 2**24, perfect=True)
        coder.encode_reverse(np.array([value], np.int32), model)
    expected = coder.get_compressed()
    words, count = pushed(intervals, n + 2)
    assert np.array_equal(words[:count], expected)
    read, left = np.full(n, -1, np.int64), np.full(1, -1, np.int64)
    addresses = (array.ctypes.data for array in (cumulative, words, read, left))
    backends.cpp.ans_pop("float32", *addresses, n, symbols, count)
    assert np.array_equal(read, values) and left[0] == 0
    if count > 1:
        assert pushed(intervals, count - 1)[1] == -1, "a word without room"
