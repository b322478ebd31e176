"""The mixture of PixelCNN++ in the order of its ports: beside the formula, and the draws beside the loss."""

import pytest
import torch
from support import mixture_losses

from genfast.compat import pixelcnn_plus_plus as compat

parametrize = pytest.mark.parametrize


def parameters(channels, mixtures, size=4, batch=2, **options):
    """Wide enough that every level of every component has a probability of 1e-5 or more."""
    count = (10 if channels == 3 else 3) * mixtures
    made = 0.3 * torch.randn(batch, count, size, size, **options)
    for place in range(channels):  # the log-scales
        begin = mixtures * (1 + 3 * place + 1) if channels == 3 else 2 * mixtures
        made[:, begin : begin + mixtures] -= 0.5
    return made


def images(channels, size=4, batch=2):
    levels = torch.randint(256, (batch, channels, size, size))
    levels[0, :, 0, :2] = torch.tensor([0, 255])  # whose bins have no end
    return levels, levels.float() / 127.5 - 1


@parametrize("mixtures", [1, 5])
def test_the_loss_is_that_of_the_formula(mixtures):
    """In float64, where a difference of two sigmoids has digits enough; and the port's own in float32."""
    levels, x = images(3)
    results = []
    for loss in (compat.discretized_mix_logistic_loss, lambda x, l: mixture_losses.mixture(l, levels, 256).sum()):
        l = parameters(3, mixtures, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
        value = loss(x, l)
        results.append((value, torch.autograd.grad(value, l)[0]))
    for mine, other in zip(*results):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)
    l = parameters(3, mixtures)
    torch.testing.assert_close(
        compat.discretized_mix_logistic_loss(x, l), mixture_losses.customary(l, levels), rtol=1e-5, atol=1e-3
    )


def test_the_loss_of_grey_images():
    levels, x = images(1)
    l = parameters(1, 3, dtype=torch.float64).requires_grad_()
    mine = compat.discretized_mix_logistic_loss_1d(x, l)
    weights, means, scales = l.split(3, 1)
    half, centred = 1 / 255, x.double() - means
    above = torch.where(levels == 255, 1.0, torch.sigmoid((centred + half) / scales.exp()))
    below = torch.where(levels == 0, 0.0, torch.sigmoid((centred - half) / scales.exp()))
    expected = -(weights.softmax(1) * (above - below)).sum(1).log().sum()
    torch.testing.assert_close(mine, expected, rtol=1e-6, atol=0)  # x is float32 in the formula
    torch.testing.assert_close(*(torch.autograd.grad(value, l)[0] for value in (mine, expected)), rtol=1e-5, atol=1e-6)


def test_the_loss_of_each_image():
    _, x = images(3)
    l = parameters(3, 2)
    each = compat.discretized_mix_logistic_loss(x, l, sum_all=False)
    assert each.shape == (2,)
    torch.testing.assert_close(each.sum(), compat.discretized_mix_logistic_loss(x, l))


@parametrize("channels", [1, 3])
def test_draws_follow_the_loss(channels):
    """The mean surprise of draws is the entropy that the loss of other draws estimates, and colours are coupled."""
    loss = (compat.discretized_mix_logistic_loss_1d, compat.discretized_mix_logistic_loss)[channels == 3]
    sample = (compat.sample_from_discretized_mix_logistic_1d, compat.sample_from_discretized_mix_logistic)[
        channels == 3
    ]
    l = parameters(channels, 2, 1, 1)
    if channels == 3:
        l[:, 6:8] = 3  # the coefficients of R's block: G is R plus its own mean
        l[:, 4:6], l[:, 10:12] = -1.5, -3  # log-scales of R and of G
    l = l.expand(4000, -1, -1, -1).contiguous()
    drawn = sample(l, 2, seed=1)
    assert drawn.shape == (4000, channels, 1, 1) and drawn.min() >= -1 and drawn.max() <= 1
    assert torch.equal(drawn, sample(l, 2, seed=1)) and not torch.equal(drawn, sample(l, 2, seed=2))
    torch.manual_seed(5)
    first = sample(l, 2)
    torch.manual_seed(5)
    assert torch.equal(first, sample(l, 2))
    nats = [loss(x, l, sum_all=False) for x in (drawn, first)]
    assert abs(nats[0].mean() - nats[1].mean()) < 5 * (nats[0].var() / 4000 + nats[1].var() / 4000).sqrt()
    if channels == 3:
        assert torch.corrcoef(drawn[:, :2, 0, 0].T)[0, 1] > 0.9


def test_refusals():
    _, x = images(3)
    l = parameters(3, 2)
    with pytest.raises(ValueError, match="x must hold the 256 levels"):
        compat.discretized_mix_logistic_loss(x + 0.001, l)
    with pytest.raises(ValueError, match="x must hold the 256 levels"):
        compat.discretized_mix_logistic_loss((x + 1) * 127.5, l)
    unknown = x.clone()
    unknown[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="x must hold the 256 levels"):
        compat.discretized_mix_logistic_loss(unknown, l)
    with pytest.raises(TypeError, match="x must be float32 or float64"):
        compat.discretized_mix_logistic_loss(x.half(), l)
    with pytest.raises(ValueError, match="x must not require a gradient"):
        compat.discretized_mix_logistic_loss(x.requires_grad_(), l)
    with pytest.raises(ValueError, match=r"l must have shape \[B, 10 K, H, W\]"):
        compat.discretized_mix_logistic_loss(images(3)[1], l[:, :9])
    with pytest.raises(ValueError, match=r"l must have shape \[B, 30, H, W\] for this nr_mix"):
        compat.sample_from_discretized_mix_logistic(l, 3)
