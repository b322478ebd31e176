"""What is special to `minibatch_stddev`: its judge in loops, which images are a group, equal images, errors."""

import numpy as np
import pytest
import torch

from genfast import minibatch_stddev, testing

BACKENDS = ("reference", "cpp")


def sample(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("group, channels", [(2, 1), (3, 2), (6, 3), (50, 6)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_is_a_loop_over_groups(backend, group, channels):
    x = sample(6, 6, 3, 5)
    images, size = x.numpy(), min(group, 6)
    expected = np.concatenate((images, np.empty((6, channels, 3, 5))), 1)
    for n in range(6):
        together = images[n % (6 // size) :: 6 // size]
        assert len(together) == size
        deviation = np.sqrt(together.var(0) + 1e-8)
        for f in range(channels):
            width = 6 // channels
            expected[n, 6 + f] = deviation[f * width : (f + 1) * width].mean()
    testing.assert_matches(minibatch_stddev(x, group, channels, backend=backend), torch.from_numpy(expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_are_apart(backend):
    """An image changes the maps of its group alone; so does the gradient of these maps."""
    x = sample(8, 2, 3, 3).requires_grad_()
    maps = minibatch_stddev(x, 4, backend=backend)[:, 2, 0, 0]
    assert maps[::2].unique().numel() == 1 and maps[1::2].unique().numel() == 1 and maps[0] != maps[1]
    (gradient,) = torch.autograd.grad(maps[::2].sum(), x)
    assert gradient[::2].abs().min() > 0 and not gradient[1::2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_images_have_a_finite_gradient(backend, dtype):
    x = sample(1, 3, 4, 4, dtype=dtype).repeat(4, 1, 1, 1).requires_grad_()
    y = minibatch_stddev(x, backend=backend)
    assert y[:, 3].detach().numpy() == pytest.approx(1e-4)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    testing.assert_matches(gradient, torch.ones_like(gradient), atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_deviations_on_a_large_mean(backend):
    """By two passes: the difference of two moments would be lost in float32."""
    x = 1000 + 0.01 * sample(4, 8, 4, 4)
    got = minibatch_stddev(x.float(), backend=backend)[:, 8]
    expected = minibatch_stddev(x.float().double(), backend="reference")[:, 8]
    testing.assert_matches(got, expected, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors(backend):
    x = sample(6, 4, 3, 3)
    cases = {
        "x must hold at least 2 images, as it has a deviation over them; got 1": (x[:1],),
        "x must hold a multiple of group=4 images; got 6": (x,),
        "x must have a multiple of channels=3 channels; got 4": (x, 3, 3),
        r"group must lie in \[2, 2\*\*31\); got 1": (x, 1),
        r"channels must lie in \[1, 2\*\*31\); got 0": (x, 3, 0),
        r"x must have shape \[N, C, H, W\] with C, H, W>=1; got \(6, 4, 0, 3\)": (x[:, :, :0],),
    }
    for text, args in cases.items():
        with pytest.raises(ValueError, match=f"minibatch_stddev: {text}"):
            minibatch_stddev(*args, backend=backend)
