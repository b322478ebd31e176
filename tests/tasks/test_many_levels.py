"""The verbs on images of more levels than a byte has; and the integers that every verb takes."""

import numpy as np
import pytest
import torch
from support.many_levels import Causal

import genfast
from genfast.engine.arguments import check_images
from genfast.engine.protocols import ImageSpec
from genfast.tasks.noise import BitFlipNoise, GaussianNoise

LEVELS, SHAPE = 300, (1, 3, 4)
WHAT = {"shape": SHAPE, "levels": LEVELS, "input_range": (0, 1)}
MODEL = Causal(LEVELS)
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("levels, expected", [(100, torch.uint8), (256, torch.uint8), (LEVELS, torch.int32)])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_of_any_dtype_are_taken(levels, expected, dtype):
    values = torch.tensor([0, 5, 99, 40], dtype=torch.int64)
    spec = ImageSpec(1, 2, 2, levels)
    images = check_images("call", "x", values.view(1, 1, 2, 2).to(dtype), spec, 3)
    assert images.dtype == expected and images.flatten().tolist() == values.tolist() * 3


def test_bytes_are_not_copied():
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    assert check_images("call", "x", images, ImageSpec(1, 2, 2, 256)).data_ptr() == images.data_ptr()


@pytest.mark.parametrize(
    "images, error, message",
    [
        (torch.full((1, *SHAPE), LEVELS), ValueError, r"lie in 0\.\.299; got 300"),
        (torch.full((1, *SHAPE), -1), ValueError, r"lie in 0\.\.299; got -1"),
        (torch.full((1, *SHAPE), -1, dtype=torch.int8), ValueError, r"lie in 0\.\.299; got -1"),
        (torch.full((1, *SHAPE), 2**15, dtype=torch.uint16), ValueError, r"lie in 0\.\.299; got 32768"),
        (torch.ones(1, *SHAPE, dtype=torch.bool), TypeError, r"hold levels as integers; got torch\.bool"),
        (torch.ones(1, *SHAPE), TypeError, r"hold levels as integers; got torch\.float32"),
    ],
)
def test_what_is_no_level_is_refused(images, error, message):
    mask = torch.ones(1, *SHAPE, dtype=torch.bool)
    with pytest.raises(error, match=f"^log_prob: images must {message}"):
        genfast.log_prob(MODEL, images, **WHAT)
    with pytest.raises(error, match=f"^sample: given must {message}"):
        genfast.sample(MODEL, 1, given=images, mask=mask, **WHAT)
    with pytest.raises(error, match=f"^inpaint: images must {message}"):
        genfast.inpaint(MODEL, images, mask, **WHAT)
    if not images.is_floating_point():  # which noise of the other kind takes
        with pytest.raises(error, match=f"^BitFlipNoise: images must {message}"):
            genfast.denoise(MODEL, images, BitFlipNoise(0.1), **WHAT)


def test_sample_stream_and_log_prob():
    images = genfast.sample(MODEL, 7, seed=1, **WHAT)
    assert images.dtype == torch.int32 and images.max() > 255
    assert torch.equal(torch.cat(list(genfast.stream(MODEL, 7, seed=1, batch_size=3, **WHAT))), images)
    with torch.no_grad():
        logits = MODEL(images.float() / (LEVELS - 1)).double()
    exact = logits.log_softmax(1).gather(1, images.long()).sum((1, 2, 3))
    for dtype in (torch.int16, torch.int32, torch.int64, torch.uint16):
        assert (genfast.log_prob(MODEL, images.to(dtype), **WHAT) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("backend", ["cpp", "full_forward"])
def test_given_values_of_any_dtype(backend):
    images, mask = genfast.sample(MODEL, 4, seed=1, **WHAT).long(), torch.rand(4, *SHAPE) < 0.5
    given = torch.where(mask, images, -1)  # -1: not known
    drawn = genfast.sample(MODEL, 4, seed=2, given=given, mask=mask, backend=backend, **WHAT)
    assert drawn.dtype == torch.int32 and torch.equal(drawn[mask], images[mask].int()) and drawn.min() >= 0
    filled = genfast.inpaint(MODEL, given, mask, steps=3, seed=2, backend=backend, **WHAT).images
    assert filled.dtype == torch.int32 and torch.equal(filled[mask], images[mask].int()) and filled.min() >= 0


@pytest.mark.parametrize("method", ["sample", "mean", "map"])
def test_denoise(method):
    images, noise = genfast.sample(MODEL, 3, seed=1, **WHAT), BitFlipNoise(1e-9)
    assert noise.corrupt(images, LEVELS).dtype == torch.int32
    cleaned = genfast.denoise(MODEL, images.long(), noise, method=method, steps=4, **WHAT)
    assert cleaned.images.dtype == cleaned.samples.dtype == torch.int32
    assert torch.equal(cleaned.images, images) and torch.equal(cleaned.samples[0], images)
    brightness = GaussianNoise(1e-5).corrupt(images, LEVELS)
    cleaned = genfast.denoise(MODEL, brightness, GaussianNoise(1e-4), method=method, steps=4, **WHAT)
    assert torch.equal(cleaned.images, images)


def test_noise_moves_levels_among_all():
    images = torch.randint(LEVELS, (40, 1, 9, 11))
    noisy = BitFlipNoise(0.9).corrupt(images, LEVELS, seed=1)
    assert noisy.min() >= 0 and 255 < noisy.max() < LEVELS
    assert abs((noisy != images).float().mean() - 0.9) < 0.03


class Own(torch.nn.Module):
    """An autoregressive model that states its images itself."""

    name = "own"

    def __init__(self):
        super().__init__()
        self.inner = Causal(LEVELS)
        self.spec = ImageSpec(*SHAPE, LEVELS)
        self.likelihood = genfast.likelihoods.Categorical(1, LEVELS)

    def network(self, x, labels):
        return self.inner(x)

    def rows(self, row):
        return row + 1


def test_shards_hold_int32(tmp_path):
    model = Own()
    assert genfast.tasks.sample_shards(model, 5, tmp_path, shard=3, seed=4) == 5
    parts = [np.load(path) for path in sorted(tmp_path.glob("*.npz"))]
    images = np.concatenate([part["images"] for part in parts])
    assert images.dtype == np.int32 and all(part["levels"] == LEVELS for part in parts)
    assert torch.equal(torch.from_numpy(images), genfast.sample(model, 5, seed=4))


def test_a_file_of_codes_has_no_room_for_more_levels():
    class Codes(Own):
        code_count, codes_per_place, stride = 4, 1, 1

        def encode(self, x, *, any_size=False):
            raise AssertionError("the error comes before any work")

        def decode(self, codes, *, any_size=False):
            raise AssertionError("the error comes before any work")

        def decoder_digest(self):
            return bytes(8)

    message = "^{}: model must be of images of at most 256 levels, which a file has a byte for; got 300"
    with pytest.raises(ValueError, match=message.format("compress")):
        genfast.compress(Codes(), torch.zeros(1, *SHAPE, dtype=torch.int32))
    with pytest.raises(ValueError, match=message.format("decompress")):
        genfast.decompress(b"GFVQ", Codes())


def test_a_likelihood_of_its_own():
    """Draws and likelihoods of whole maps of parameters, as a decoder makes them."""
    likelihood = genfast.likelihoods.Categorical(2, LEVELS)
    parameters = torch.randn(3, 2 * LEVELS, 2, 2)
    drawn = likelihood.draw(parameters, seed=1)
    assert drawn.shape == (3, 2, 2, 2) and drawn.dtype == torch.int32
    exact = parameters.unflatten(1, (2, LEVELS)).double().log_softmax(2)
    assert torch.allclose(
        likelihood.nll(drawn, parameters).double(), -exact.gather(2, drawn.long()[:, :, None]).sum((1, 2, 3, 4))
    )


def test_a_mixture_has_no_more_than_a_byte():
    with pytest.raises(ValueError, match="likelihood mixture must have at most 256 levels; got 257"):
        genfast.likelihoods.LogisticMixture(1, 257)
    with pytest.raises(ValueError, match="at most 256 levels and 3K or 10K values for each pixel"):
        genfast.sample(torch.nn.Conv2d(1, 30, 1), 1, **WHAT, head="mixture")
