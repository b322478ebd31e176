from functools import partial

import pytest
import torch
from torch.nn import functional as F

from genfast import testing
from genfast.models import GatedPixelCNN, GatedPixelCNNConfig, build
from genfast.nn import GatedStackLayer, color_mask

awake = partial(testing.awake, std=0.5)


def layer(mask="B", kernel_size=3, colors=1, **options):
    inputs = 6 if mask == "B" else colors
    return awake(GatedStackLayer(inputs, 6, 9, kernel_size, mask, colors, **options))


def gate(x):
    return x[:, : x.shape[1] // 2].tanh() * x[:, x.shape[1] // 2 :].sigmoid()


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("mask, kernel_size", [("A", 7), ("A", 3), ("B", 3), ("B", 5)])
@torch.no_grad()
def test_layer_is_its_formula(mask, kernel_size, colors, classes):
    """With square kernels whose masked weights are zeros, as the paper draws them."""
    block = layer(mask, kernel_size, colors, classes=classes)
    half, inputs = kernel_size // 2, block.in_channels
    v, h = torch.randn(2, 4, inputs, 5, 6, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1]) if classes else None
    bias = block.label_bias[labels][..., None, None].unbind(1) if classes else (0, 0)
    above, left = torch.zeros(2, 12, inputs, kernel_size, kernel_size, dtype=torch.float64)
    rows = half + (mask == "B")
    above[:, :, :rows] = block.above_weight
    left[:, :, half, : half + 1] = block.left_weight[:, :, 0]
    # A half of the outputs for tanh, a half for the sigmoid: each has the features of all colours.
    left[:, :, half, half] *= torch.cat([color_mask(inputs, 6, colors, mask)] * 2)
    a = F.conv2d(v, above, block.above_bias, padding=half)
    b = F.conv2d(h, left, block.left_bias, padding=half) + F.conv2d(a, block.cross_weight[:, :, None, None])
    g = gate(b + bias[1])
    weights, biases = (p.split([6, 9]) for p in (block.output_weight, block.output_bias))
    outputs = [
        F.conv2d(g, (weight * color_mask(6, len(weight), colors))[:, :, None, None], added)
        for weight, added in zip(weights, biases, strict=True)
    ]
    expected = gate(a + bias[0]), outputs[0] if mask == "A" else h + outputs[0], outputs[1]
    for got, wanted in zip(block(v, h, labels), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def reads(function, x, outputs):
    """Which value of x moves which of the outputs: bool [H, W, F, H', W', F']."""
    jacobian = torch.autograd.functional.jacobian(lambda x: function(x)[outputs], x)[0, :, :, :, 0]
    return (jacobian != 0).permute(4, 5, 3, 1, 2, 0)


@pytest.mark.parametrize("colors", [1, 3])
def test_stacks_hold_their_part_of_the_image(colors):
    """The vertical one the rows above alone, the horizontal one all earlier pixels and colours."""
    first, second = layer("A", 7, colors), layer("B", 3, colors)
    x = torch.randn(1, colors, 4, 5, dtype=torch.float64)

    def stacks(x):
        v, h, _ = first(x, x)
        return second(v, h)

    row, column = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    pixel = row * 5 + column
    moved = reads(stacks, x, 0)
    expected = (row[..., None, None] < row)[:, :, None, :, :, None].expand_as(moved)
    assert torch.equal(moved, expected)
    for outputs, features in ((1, 6), (2, 9)):
        source = pixel[..., None] * colors + torch.arange(colors)
        target = pixel[..., None] * colors + torch.arange(features) * colors // features
        assert torch.equal(reads(stacks, x, outputs), source[..., None, None, None] < target)


@pytest.mark.parametrize("layers, kernel", [(0, 3), (3, 3), (2, 5)])
def test_only_distance_hides_a_pixel(layers, kernel):
    """As far as the docstring says, and no blind spot within."""
    reach, height, width, row, column = 3 + kernel // 2 * layers, 10, 19, 9, 9
    model = awake(build("gated-pixelcnn", height=height, width=width, layers=layers, kernel=kernel, hidden=6, head=24))
    x = torch.randn(4, 1, height, width, dtype=torch.float64, requires_grad=True)
    model.network(x, None)[:, :, row, column].sum().backward()
    above, right = row - torch.arange(height)[:, None], torch.arange(width) - column
    near = (above <= reach) & (right.abs() <= reach)
    assert torch.equal((x.grad != 0).any(0)[0], near & ((above > 0) | (right < 0)))
    assert (~near & ((above > 0) | (right < 0))).any()


def test_any_memory_format_in_and_channels_last_out():
    block = layer().float()
    v, h = torch.randn(2, 3, 6, 4, 5)
    got = block(*(x.to(memory_format=torch.channels_last) for x in (v, h)))
    for one, other, channels in zip(got, block(v, h), (6, 6, 9), strict=True):
        torch.testing.assert_close(one, other)
        assert one.shape == (3, channels, 4, 5) and one.permute(0, 2, 3, 1).stride(3) == 1
    assert [tuple(y.shape) for y in block(v[:0], h[:0])] == [(0, 6, 4, 5), (0, 6, 4, 5), (0, 9, 4, 5)]


def test_autocast():
    block = layer(colors=3, classes=2)
    v, h, labels = *torch.randn(2, 3, 6, 4, 5, dtype=torch.float64), torch.tensor([0, 1, 1])
    expected = block(v, h, labels)
    block = block.float()
    with torch.autocast("cpu", torch.bfloat16):
        got = block(v.float(), h.float(), labels)
    for one, other in zip(got, expected, strict=True):
        assert (one.double() - other).abs().max() < 0.2
    sum(y.sum() for y in got).backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


def test_dropout_leaves_out_whole_maps_of_the_horizontal_gate():
    block = layer(dropout=0.5)
    with torch.no_grad():
        block.output_weight.copy_(torch.eye(15, 6))
        block.output_bias.zero_()
    v, h = torch.randn(2, 64, 6, 3, 3, dtype=torch.float64)
    plain = block.eval()(v, h)
    dropped = block.train()(v, h)
    assert torch.equal(dropped[0], plain[0])
    scale = (dropped[1] - h) / (plain[1] - h)
    kept = scale.amax((2, 3)) > 0.5
    torch.testing.assert_close(scale, (kept / 0.5)[:, :, None, None].expand_as(scale).to(scale))
    assert 0.4 < kept.double().mean() < 0.6


def test_a_new_layer_adds_nothing_yet_and_the_vertical_stack_stays_alive():
    """A gate halves what is small: with weights of variance 1 / fan in, 12 layers would leave nothing of the image."""
    block, x = GatedStackLayer(8, 8, 4), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x, x)[1], x)
    model = build("gated-pixelcnn", hidden=32, layers=12)
    image = torch.randint(0, 2, (2, 1, 28, 28)).float() * 2 - 1
    v, h, _ = model.input(image, image)
    for stack in model.stacks:
        v, h, skip = stack(v, h)
    assert v[:, :, 10:].std() > 0.05 and skip.std() > 0.05


def test_labels_start_without_effect_and_learn():
    model = build("gated-pixelcnn", height=5, width=5, hidden=8, layers=2, head=16, classes=3)
    x, labels = torch.randint(0, 2, (3, 1, 5, 5), dtype=torch.uint8), torch.tensor([0, 2, 2])
    assert torch.equal(model.log_prob(x, labels), model.log_prob(x, torch.tensor([1, 1, 1])))
    model.log_prob(x, labels).sum().backward()
    # The vertical gate of the last layer is read by nobody.
    for stack in (model.input, model.stacks[0]):
        moved = (stack.label_bias.grad != 0).flatten(1).all(1)
        assert moved.tolist() == [True, False, True]


def test_a_new_model_learns_its_labels():
    """Images that are their label: 30 steps of Adam must find it."""
    model = build("gated-pixelcnn", height=4, width=4, levels=3, hidden=8, layers=2, head=16, classes=3)
    labels = torch.arange(3)
    x = labels.to(torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(30):
        loss = -model.log_prob(x, labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(model.sample(3, labels=labels), x)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GatedStackLayer(4, 4, 4, kernel_size=4), "kernel_size must be odd and at least 3; got 4"),
        (lambda: GatedStackLayer(4, 4, 4, kernel_size=1), "kernel_size must be odd and at least 3; got 1"),
        (lambda: GatedStackLayer(3, 4, 4), "in_channels must be features=4 for mask 'B'; got 3"),
        (lambda: GatedStackLayer(4, 4, 4, mask="C"), "mask must be 'A' or 'B'; got 'C'"),
        (lambda: GatedStackLayer(4, 4, 2, colors=3), "got 4 inputs, 2 outputs, colors=3"),
        (lambda: GatedPixelCNNConfig(kernel=4), "kernel must be odd; got 4"),
        (lambda: GatedPixelCNNConfig(kernel=1), "kernel must be at least 3; got 1"),
        (lambda: GatedPixelCNNConfig(channels=3, head=2), "head must be at least 3; got 2"),
        (lambda: GatedPixelCNNConfig(classes=-1), "classes must be at least 0; got -1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_repr_tells_the_sizes():
    expected = "4, 4, skip=2, kernel_size=3, mask='B', colors=1, classes=0, dropout=0.0"
    assert repr(GatedStackLayer(4, 4, 2)) == f"GatedStackLayer({expected})"
    assert "classes=10" in repr(GatedPixelCNN(GatedPixelCNNConfig(classes=10)))
