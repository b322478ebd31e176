import gzip
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from genfast.metrics import bits_per_dim, gzip_nats, independent_pixel_nll, png_bytes, png_nats


def test_bits_per_dim():
    assert bits_per_dim(784 * math.log(2), 784) == pytest.approx(1.0)
    assert bits_per_dim(torch.tensor([math.log(256)]), 1).item() == pytest.approx(8.0)
    with pytest.raises(ValueError, match="got 0"):
        bits_per_dim(1.0, 0)


def test_independent_pixels_by_hand():
    train = torch.tensor([[0, 2], [0, 1], [1, 2]], dtype=torch.uint8).view(3, 1, 1, 2)
    test = torch.tensor([[0, 2], [2, 0]], dtype=torch.uint8).view(2, 1, 1, 2)
    # three levels, pseudocount 1/2: first pixel (2.5, 1.5, 0.5) / 4.5, second (0.5, 1.5, 2.5) / 4.5
    expected = -(math.log(2.5 / 4.5 * 2.5 / 4.5) + math.log(0.5 / 4.5 * 0.5 / 4.5)) / 2
    assert independent_pixel_nll(train, test, 3) == pytest.approx(expected, rel=1e-12)


def test_independent_pixels_reach_the_entropy():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1, 3, 4, 4, generator=generator)
    draw = lambda n: (torch.rand(n, 3, 4, 4, generator=generator) < p).to(torch.uint8)  # noqa: E731
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum().item()
    assert independent_pixel_nll(draw(20_000), draw(20_000), 2) == pytest.approx(entropy, rel=0.01)


@pytest.mark.parametrize(
    "train, test, levels, message",
    [
        ((2, 1, 4, 4), (2, 1, 4, 5), 2, r"\(2, 1, 4, 4\) and \(2, 1, 4, 5\)"),
        ((0, 1, 4, 4), (2, 1, 4, 4), 2, r"\(0, 1, 4, 4\)"),
        ((2, 1, 4, 4), (2, 1, 4, 4), 1, r"0\.\.0; got 1"),
    ],
)
def test_independent_pixels_refuse(train, test, levels, message):
    ones = lambda shape: torch.ones(shape, dtype=torch.uint8)  # noqa: E731
    with pytest.raises(ValueError, match=message):
        independent_pixel_nll(ones(train), ones(test), levels)


@pytest.mark.parametrize("levels, depth", [(2, 1), (3, 2), (16, 4), (17, 8), (256, 8)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("smooth", [False, True])
def test_png_is_a_png_of_the_image(levels, depth, channels, smooth):
    height, width = 11, 7
    rng = np.random.default_rng(0)
    image = rng.integers(0, levels, (height, width, channels), dtype=np.uint8)
    if smooth:  # a ramp, so that another filter than none wins
        ramp = np.arange(height)[:, None, None] * 3 + np.arange(width)[:, None] * 2
        image = np.broadcast_to(ramp % levels, image.shape).astype(np.uint8)
    data = png_bytes(image, levels)
    decoded = np.asarray(Image.open(io.BytesIO(data)).convert("L" if channels == 1 else "RGB")).astype(int)
    scale = 255 // (2**depth - 1) if channels == 1 else 1
    np.testing.assert_array_equal(decoded.reshape(image.shape), image.astype(int) * scale)


def test_png_refuses_two_channels():
    with pytest.raises(ValueError, match="1 or 3 channels; got 2"):
        png_bytes(np.zeros((2, 2, 2), dtype=np.uint8))


def test_sizes_of_noise_and_of_nothing():
    """Fair bits cannot be compressed; constant images cost next to nothing."""
    torch.manual_seed(0)
    noise = torch.randint(0, 2, (500, 1, 16, 16), dtype=torch.uint8)
    entropy = 256 * math.log(2)
    # PNG pays a filter byte, all the same and so cheap but not free, for each row of two bytes.
    for size, overhead in ((gzip_nats, 1.02), (png_nats, 1.25)):
        assert entropy < size(noise, 2) < overhead * entropy
        assert size(torch.ones_like(noise), 2) < 0.02 * entropy


def test_gzip_counts_bytes():
    torch.manual_seed(1)
    images = torch.randint(0, 256, (3, 1, 5, 5), dtype=torch.uint8)
    size = len(gzip.compress(images.numpy().tobytes(), compresslevel=9, mtime=0))
    assert gzip_nats(images, 256) == pytest.approx(size * 8 * math.log(2) / 3)


@pytest.mark.parametrize("size", [gzip_nats, png_nats])
def test_sizes_refuse(size):
    with pytest.raises(TypeError, match="float32"):
        size(torch.zeros(1, 1, 2, 2), 2)
    with pytest.raises(ValueError, match=r"\(0, 1, 2, 2\)"):
        size(torch.zeros(0, 1, 2, 2, dtype=torch.uint8), 2)
