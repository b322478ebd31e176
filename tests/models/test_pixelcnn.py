from functools import partial

import pytest
import torch
from torch.nn import functional as F

from genfast import testing
from genfast.models import PixelCNN, PixelCNNConfig, build
from genfast.nn import MaskedConv2d, ResidualConvBlock, color_mask

awake = partial(testing.awake, std=0.5)


def seen(height, width, layers, at):
    """Which pixels move the logits of the pixel `at`, by the gradient at several images: bool [H, W]."""
    model = awake(build("pixelcnn", height=height, width=width, hidden=8, layers=layers, head=32), std=0.3)
    x = torch.randn(4, 1, height, width, dtype=torch.float64, requires_grad=True)
    model.network(x, None)[(slice(None), slice(None), *at)].sum().backward()
    return (x.grad != 0).any(0)[0]


@pytest.mark.parametrize("layers", [0, 1, 4, 15])
def test_the_blind_spot_is_what_the_docstring_says_and_nothing_else(layers):
    height, width, row, column = 22, 40, 20, 19
    above, right = row - torch.arange(height)[:, None], torch.arange(width) - column
    within = (above <= layers + 3) & (right >= -layers - 3) & ((above > 0) | ((above == 0) & (right < 0)))
    blind = (above > 0) & (right > above + 2) | (right > layers + 3)
    got = seen(height, width, layers, (row, column))
    wrong = (got != (within & ~blind)).nonzero().tolist()
    assert not wrong, f"(row, column): {wrong[:10]}"
    if layers == 15:
        assert (blind & (above > 0)).sum() > 100, "the images are wide enough to show it"


def test_the_paper_s_layers():
    model = PixelCNN(PixelCNNConfig(hidden=8))
    assert len(model.blocks) == 15 and [layer.out_channels for layer in model.head] == [64, 64, 1]
    assert model.input.kernel_size == (7, 7) and model.input.mask_type == "A"
    convolutions = [module for module in model.modules() if isinstance(module, MaskedConv2d)][1:]
    assert {layer.mask_type for layer in convolutions} == {"B"}
    assert {block.conv.kernel_size for block in model.blocks} == {(3, 3)}


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_block_is_its_formula(colors, kernel_size):
    block = awake(ResidualConvBlock(4, colors, kernel_size))
    x, half = torch.randn(2, 8, 5, 6, dtype=torch.float64), kernel_size // 2
    kernel = block.conv.weight.clone()
    kernel[:, :, half + 1 :] = 0
    kernel[:, :, half, half + 1 :] = 0
    kernel[:, :, half, half] *= color_mask(4, 4, colors)
    y = F.conv2d(x.relu(), block.down.weight * color_mask(8, 4, colors)[:, :, None, None], block.down.bias)
    y = F.conv2d(y.relu(), kernel, block.conv.bias, padding=half)
    y = F.conv2d(y.relu(), block.up.weight * color_mask(4, 8, colors)[:, :, None, None], block.up.bias)
    torch.testing.assert_close(block(x), x + y)


def test_a_new_block_is_the_identity_and_learns():
    block, x = ResidualConvBlock(4, 3), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    allowed = color_mask(4, 8, 3)[:, :, None, None]
    assert torch.equal(block.up.weight.grad != 0, allowed)


def test_channels_last_throughout():
    block = awake(ResidualConvBlock(4, 3)).float()
    x = torch.randn(2, 8, 4, 5)
    y = block(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(block(x), y)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert block(x[:0]).shape == (0, 8, 4, 5)


def test_a_new_model_learns():
    """Adam lowers the loss of a few images within a few steps, with dropout on."""
    model = build("pixelcnn", height=6, width=6, levels=4, channels=3, hidden=8, layers=2, head=16, dropout=0.1)
    x = torch.randint(0, 4, (2, 3, 6, 6), dtype=torch.uint8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = -model.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]


@pytest.mark.parametrize(
    "config, message",
    [
        ({"channels": 3, "hidden": 2}, "hidden must be at least 3; got 2"),
        ({"channels": 3, "head": 2}, "head must be at least 3; got 2"),
        ({"layers": -1}, "layers must be at least 0; got -1"),
    ],
)
def test_bad_config(config, message):
    with pytest.raises(ValueError, match=f"^PixelCNNConfig: {message}$"):
        PixelCNNConfig(**config)


def test_too_few_features_for_the_colours():
    with pytest.raises(ValueError, match="got 4 inputs, 2 outputs, colors=3"):
        ResidualConvBlock(2, colors=3)


def test_repr_tells_the_sizes():
    assert repr(ResidualConvBlock(4, 3)).startswith("ResidualConvBlock(\n  4, colors=3, kernel_size=3, dropout=0.0")
