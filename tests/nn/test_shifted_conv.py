import itertools

import pytest
import torch
from torch.nn import functional as F

from genfast import testing
from genfast.nn import GatedResidualBlock, ShiftedConv2d, ShiftedConvTranspose2d


def awake(layer):
    return testing.awake(layer).eval()


def reads(layer, features, height, width):
    """Which input pixel moves which output pixel: bool [H, W, H', W']."""
    x = torch.randn(1, features, height, width, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, :, :, 0]
    return (jacobian != 0).any(0).any(2).permute(2, 3, 0, 1)


def assert_reads(layer, features, height, width, expected):
    """`expected(source row, source column, row, column)` says whether a pixel reads another."""
    moved = reads(layer, features, height, width)
    for place in itertools.product(*map(range, moved.shape)):
        assert bool(moved[place]) == expected(*place), place


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize("size", [(2, 3), (1, 3), (3, 5), (2, 1)])
def test_a_window_that_ends_at_the_row(mask, size):
    last = 1 if mask == "A" else 0

    def window(p, q, i, j):
        return i - size[0] < p + last <= i and abs(q - j) <= size[1] // 2

    assert_reads(awake(ShiftedConv2d(2, 3, size, "down", mask)), 2, 5, 4, window)


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize("size", [(2, 2), (2, 1), (1, 3), (3, 4)])
def test_a_window_that_ends_at_the_pixel(mask, size):
    last = 1 if mask == "A" else 0

    def window(p, q, i, j):
        return i - size[0] < p <= i and j - size[1] < q + last <= j

    assert_reads(awake(ShiftedConv2d(2, 3, size, "down-right", mask)), 2, 5, 4, window)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_window_is_a_convolution(stride):
    """Judge: PyTorch's convolution over both sides, with the taps of the later pixels at zero."""
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    down, right = (
        awake(ShiftedConv2d(3, 2, size, shift, stride=stride))
        for size, shift in (((2, 3), "down"), ((2, 2), "down-right"))
    )
    for layer, columns in ((down, slice(0, 3)), (right, slice(0, 2))):
        full = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
        full[:, :, :2, columns] = layer.weight.detach()
        torch.testing.assert_close(layer(x), F.conv2d(x, full, layer.bias, stride, padding=1))


def test_halving_then_doubling_reads_nothing_later():
    """Pixel (i, j) reads through coarse pixel (i // 2, ..), which ends at row 2 (i // 2), or pixel 2 (j // 2)."""
    down = awake(
        torch.nn.Sequential(ShiftedConv2d(2, 3, (2, 3), "down", stride=2), ShiftedConvTranspose2d(3, 2, "down"))
    )
    assert_reads(
        down,
        2,
        6,
        6,
        # Column j reads coarse column j / 2, or both neighbours of an odd one, and each of these three columns.
        lambda p, q, i, j: i // 2 * 2 - 1 <= p <= i // 2 * 2 and j // 2 * 2 - 1 <= q <= (j + 1) // 2 * 2 + 1,
    )
    layers = ShiftedConv2d(2, 3, (2, 2), "down-right", stride=2), ShiftedConvTranspose2d(3, 2, "down-right")
    assert_reads(
        awake(torch.nn.Sequential(*layers)),
        2,
        6,
        6,
        lambda p, q, i, j: i // 2 * 2 - 1 <= p <= i // 2 * 2 and j // 2 * 2 - 1 <= q <= j // 2 * 2,
    )


def test_gated_block_is_its_formula():
    block = awake(GatedResidualBlock(3, (2, 3), "down", shortcut=2, classes=4, dropout=0.5))
    x, s = (torch.randn(5, f, 4, 6, dtype=torch.float64) for f in (3, 2))
    labels = torch.tensor([3, 0, 1, 1, 2])

    def both_signs(v):
        return torch.cat([torch.where(u > 0, u, u.exp() - 1) for u in (v, -v)], 1)

    c = block.input(both_signs(x)) + torch.einsum("oi,bihw->bohw", block.side.weight, both_signs(s))
    c = block.output(both_signs(c)) + block.label_bias[labels].view(5, 6, 1, 1)
    torch.testing.assert_close(block(x, s, labels), x + c[:, :3] / (1 + (-c[:, 3:]).exp()))
    assert not torch.equal(block.train()(x, s, labels), block.eval()(x, s, labels))


@pytest.mark.parametrize("shift, size", [("down", (2, 3)), ("down-right", (2, 2))])
def test_a_block_starts_close_to_the_identity(shift, size):
    x = torch.randn(4, 16, 8, 8)
    change = GatedResidualBlock(16, size, shift)(x) - x
    assert 0 < change.std() < 0.1


def test_layouts_dtypes_and_gradients():
    x = torch.randn(2, 4, 4, 6)
    for layer in (
        ShiftedConv2d(4, 4, (2, 3), "down"),
        ShiftedConv2d(4, 4, (2, 2), "down-right", stride=2),
        ShiftedConvTranspose2d(4, 4, "down"),
        GatedResidualBlock(4, (2, 2), "down-right"),
    ):
        y = layer(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(x.mT.contiguous().mT), y)
        assert layer(x[:0]).shape == (0, *y.shape[1:])
        with torch.autocast("cpu", torch.bfloat16):
            assert (layer(x) - y).abs().max() < 0.1
        exact = layer.double()
        inputs = x[:1, :, :2, :2].double().requires_grad_()
        assert torch.autograd.gradcheck(exact, inputs) and torch.autograd.gradgradcheck(exact, inputs)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ShiftedConv2d(1, 1, (2, 3), "up"), r"one of \('down', 'down-right'\); got 'up'"),
        (lambda: ShiftedConv2d(1, 1, (2, 2), "down"), r"odd width with shift 'down'; got \(2, 2\)"),
        (lambda: ShiftedConv2d(1, 1, (0, 3), "down-right"), r"at least 1.*got \(0, 3\)"),
        (lambda: ShiftedConv2d(1, 1, (2, 3), "down", mask="C"), "'A' or 'B'; got 'C'"),
        (lambda: ShiftedConv2d(1, 1, (2, 3), "down", stride=3), "1 or 2; got 3"),
        (lambda: ShiftedConvTranspose2d(1, 1, "right"), "got 'right'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_repr():
    expected = "ShiftedConv2d(1, 2, kernel_size=(2, 3), shift='down', mask='A', stride=1)"
    assert repr(ShiftedConv2d(1, 2, (2, 3), "down", "A")) == expected
    assert repr(ShiftedConvTranspose2d(1, 2, "down")) == "ShiftedConvTranspose2d(1, 2, shift='down')"
    assert "GatedResidualBlock(\n  3, shortcut=1, dropout=0.5, classes=4" in repr(
        GatedResidualBlock(3, (2, 3), "down", 1, 0.5, 4)
    )
