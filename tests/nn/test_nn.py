import pytest
import torch

from genfast.nn import (
    DiagonalBiLSTM,
    MaskedConv2d,
    ResidualConvBlock,
    ResidualDiagonalBlock,
    ResidualRowBlock,
    color_mask,
)
from genfast.nn import diagonal_lstm as family
from genfast.testing import awake

LAYERS = {
    "DiagonalBiLSTM": lambda colors: DiagonalBiLSTM(6, 3, colors),
    "ResidualDiagonalBlock": lambda colors: ResidualDiagonalBlock(3, colors),
}


def influence(layer, channels, height, width):
    """Which input value moves which output value: bool, inputs [H, W, F] and outputs [H, W, F'] in raster order."""
    x = torch.randn(1, channels, height, width, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, :, :, 0]
    jacobian = jacobian.permute(4, 5, 3, 1, 2, 0)
    return jacobian.reshape(height * width * channels, -1) != 0


def group(n, colors):
    return torch.arange(n) * colors // n


def earlier(height, width, inputs, outputs, colors, own):
    """What a mask allows: all of earlier pixels, and inside a pixel earlier colours (and the own one)."""
    pixel = torch.arange(height * width)
    source = (pixel[:, None] * colors + group(inputs, colors)).flatten()[:, None]
    target = (pixel[:, None] * colors + group(outputs, colors)).flatten()
    return source <= target if own else source < target


def test_groups_are_even_and_in_order():
    assert group(16, 3).bincount().tolist() == [6, 5, 5]
    expected = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    assert torch.equal(color_mask(3, 6, 3, "A"), expected)
    assert torch.equal(color_mask(3, 3, 3, "B"), torch.ones(3, 3).tril().bool())
    assert torch.equal(color_mask(4, 2, 1, "B"), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("colors, inputs, outputs", [(1, 1, 2), (3, 3, 6), (3, 4, 5)])
@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize("size", [1, 3, (1, 5), (5, 3)])
def test_masked_convolution_reads_the_allowed_part_of_its_window(colors, inputs, outputs, mask, size):
    height, width = 5, 6
    layer = awake(MaskedConv2d(inputs, outputs, size, mask, colors))
    rows, columns = (size, size) if isinstance(size, int) else size
    at = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    far = (at[:, None] - at).abs() > torch.tensor([rows // 2, columns // 2])
    window = ~far.any(-1).repeat_interleave(inputs, 0).repeat_interleave(outputs, 1)
    expected = window & earlier(height, width, inputs, outputs, colors, mask == "B")
    assert torch.equal(influence(layer, inputs, height, width), expected)


def test_masked_convolution_is_a_convolution():
    layer = MaskedConv2d(3, 6, (5, 3), "B", colors=3)
    x = torch.randn(2, 3, 7, 4)
    expected = torch.nn.functional.conv2d(x, layer.weight * layer.mask, layer.bias, padding=(2, 1))
    torch.testing.assert_close(layer(x), expected)
    assert "mask" not in layer.state_dict()


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_diagonal_layer_reads_every_earlier_pixel_and_no_later_one(name, colors):
    layer = awake(LAYERS[name](colors))
    outputs = 3 if name == "DiagonalBiLSTM" else 6
    expected = earlier(4, 5, 6, outputs, colors, own=True)
    if name == "ResidualDiagonalBlock" and colors == 3:
        assert expected.sum() < earlier(4, 5, 6, outputs, 1, own=True).sum()
    assert torch.equal(influence(layer, 6, 4, 5), expected)


@pytest.mark.parametrize("colors", [1, 3])
def test_block_is_the_sum_of_its_parts(colors):
    block = awake(ResidualDiagonalBlock(4, colors))
    scan, up = DiagonalBiLSTM(8, 4, colors).double(), MaskedConv2d(4, 8, 1, "B", colors).double()
    scan.load_state_dict({key: value for key, value in block.state_dict().items() if "output" not in key})
    up.load_state_dict({"weight": block.output_weight.T[:, :, None, None], "bias": block.output_bias})
    x = torch.randn(2, 8, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(block(x), x + up(scan(x)))


def test_states_outside_the_image_are_learned():
    layer = awake(DiagonalBiLSTM(4, 2))
    layer(torch.randn(1, 4, 3, 3, dtype=torch.float64)).square().sum().backward()
    for parameter in layer.parameters():
        assert (parameter.grad != 0).all()


def test_a_new_block_is_the_identity_and_learns():
    block, x = ResidualDiagonalBlock(4, 3), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x)
    assert block.input_bias.view(2, 4, 4)[:, 1].eq(1).all() and block.input_bias.sum() == 8
    block(x).square().sum().backward()
    assert (block.output_weight.grad[block.output_mask.bool()] != 0).all()
    assert (block.output_weight.grad[~block.output_mask.bool()] == 0).all()


@pytest.mark.parametrize("make", [*LAYERS.values(), lambda colors: MaskedConv2d(6, 9, 3, "B", colors)])
def test_any_memory_format_in_and_channels_last_out(make):
    layer, x = make(3), torch.randn(2, 6, 4, 5)
    y = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(layer(x), y)
    torch.testing.assert_close(layer(x.transpose(2, 3).contiguous().transpose(2, 3)), y)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert layer(x[:0]).shape == (0, *y.shape[1:])


def test_the_op_gets_the_image_without_a_copy(monkeypatch):
    seen = []

    def record(x, *parameters):
        seen.append(x)
        return x

    monkeypatch.setattr(family.ops, "diagonal_block", record)
    x = torch.randn(2, 8, 4, 5).to(memory_format=torch.channels_last)
    ResidualDiagonalBlock(4)(x)
    assert seen[0].is_contiguous() and seen[0].data_ptr() == x.data_ptr()


@pytest.mark.parametrize("kind", [ResidualConvBlock, ResidualDiagonalBlock, ResidualRowBlock])
def test_dropout_leaves_out_whole_maps_of_the_branch(kind):
    block = awake(kind(8, dropout=0.25))
    x = torch.randn(64, 16, 3, 3, dtype=torch.float64)
    branch = block.eval()(x) - x
    scale = (block.train()(x) - x) / branch
    kept = scale.amax((2, 3)) > 0.5
    torch.testing.assert_close(scale, (kept / 0.75)[:, :, None, None].expand_as(scale).to(scale))
    assert 0.7 < kept.double().mean() < 0.8


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_and_double(name):
    layer = awake(LAYERS[name](3))
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    expected = layer(x)
    assert expected.dtype == torch.float64
    torch.testing.assert_close(layer.float()(x.float()).double(), expected, rtol=1e-4, atol=1e-4)
    for half in (x.bfloat16(), x.float()):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(half)
        assert (y.double() - expected).abs().max() < 0.2
        y.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MaskedConv2d(1, 2, 4, "A"), "kernel_size must be odd; got 4"),
        (lambda: MaskedConv2d(1, 2, (3, 0), "A"), r"kernel_size must be odd; got \(3, 0\)"),
        (lambda: MaskedConv2d(1, 2, 3, "C"), "mask must be 'A' or 'B'; got 'C'"),
        (lambda: MaskedConv2d(1, 6, 3, "A", colors=3), "got 1 inputs, 6 outputs, colors=3"),
        (lambda: MaskedConv2d(1, 6, 3, "A", colors=0), "colors=0"),
        (lambda: ResidualDiagonalBlock(2, colors=3), "got 4 inputs, 2 outputs, colors=3"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_repr_tells_the_sizes():
    assert repr(MaskedConv2d(1, 2, 3, "A")) == ("MaskedConv2d(1, 2, kernel_size=(3, 3), mask='A', colors=1, bias=True)")
    assert repr(DiagonalBiLSTM(4, 2)) == "DiagonalBiLSTM(4, hidden=2, colors=1)"
    assert repr(ResidualDiagonalBlock(4, 3)) == "ResidualDiagonalBlock(4, colors=3, dropout=0.0)"
