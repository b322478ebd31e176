"""The Row LSTM as a layer, as a residual block and in PixelRNN."""

import itertools
import math

import pytest
import torch

from genfast.models import PixelRNN, PixelRNNConfig, build
from genfast.nn import MaskedConv2d, ResidualRowBlock, RowLSTM
from genfast.reference import row_lstm_ref
from genfast.testing import awake

LAYERS = {
    "RowLSTM": lambda colors: RowLSTM(6, 3, colors),
    "ResidualRowBlock": lambda colors: ResidualRowBlock(3, colors),
}


def group(n, colors):
    return torch.arange(n) * colors // n


def reach(height, width, right, left, own):
    """Pixels that a pixel reads, bool [source, target]: of the row k above, the columns from `left(k)` at the left to
    `right(k)` at the right; of the own row those at the left, and itself if `own`."""
    at = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    up, aside = (at[None] - at[:, None]).unbind(-1)
    column = -aside  # of the source, from the target
    allowed = torch.zeros(height * width, height * width, dtype=torch.bool)
    for k in range(height):
        allowed |= (up == k) & (column >= -left(k)) & (column <= (right(k) if k else 0 if own else -1))
    return allowed


def of_features(pixels, inputs, outputs, colors, own):
    """`reach` of pixels for each feature; inside a pixel, earlier colours and, if `own`, the own one."""
    expected = pixels.repeat_interleave(inputs, 0).repeat_interleave(outputs, 1)
    source, target = group(inputs, colors)[:, None], group(outputs, colors)
    within = source <= target if own else source < target
    present = torch.eye(len(pixels), dtype=torch.bool).repeat_interleave(inputs, 0).repeat_interleave(outputs, 1)
    return torch.where(present, within.repeat(len(pixels), len(pixels)), expected)


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_reads_exactly_its_triangle(name, colors):
    layer, height, width = awake(LAYERS[name](colors)), 4, 7
    x = torch.randn(1, 6, height, width, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, :, :, 0].permute(4, 5, 3, 1, 2, 0)
    outputs = jacobian.shape[-1]
    moved = jacobian.reshape(height * width * 6, -1) != 0
    pixels = reach(height, width, right=lambda k: k, left=lambda k: k + 1, own=True)
    assert torch.equal(moved, of_features(pixels, 6, outputs, colors, own=True))


def test_input_to_state_is_a_masked_1x3_convolution():
    layer, conv = awake(RowLSTM(6, 4)), MaskedConv2d(6, 16, (1, 3), "B").double()
    with torch.no_grad():
        conv.weight[:, :, 0, :2] = layer.input_weight.permute(2, 1, 0)
        conv.bias.copy_(layer.input_bias)
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    expected = row_lstm_ref(conv(x).permute(0, 2, 3, 1), layer.weight, layer.h0, layer.c0)
    torch.testing.assert_close(layer(x), expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("colors", [1, 3])
def test_gates_of_a_colour_are_masked_together(colors):
    """All four gates of a unit read the same features of the present pixel."""
    layer = awake(RowLSTM(6, 3, colors))
    x = torch.randn(1, 6, 1, 1, dtype=torch.float64)
    moved = torch.autograd.functional.jacobian(layer, x).view(3, 6) != 0
    assert torch.equal(moved, group(6, colors) <= group(3, colors)[:, None])


@pytest.mark.parametrize("colors", [1, 3])
def test_a_new_block_is_the_identity_and_learns(colors):
    block, x = ResidualRowBlock(4, colors), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x), x)
    assert block.scan.input_bias.view(4, 4)[1].eq(1).all() and block.scan.input_bias.sum() == 4
    block(x).square().sum().backward()
    allowed = block.output.mask.bool()
    assert (block.output.weight.grad[allowed] != 0).all() and (block.output.weight.grad[~allowed] == 0).all()


def test_states_outside_the_image_are_learned():
    layer = awake(RowLSTM(4, 2))
    layer(torch.randn(1, 4, 3, 3, dtype=torch.float64)).square().sum().backward()
    for parameter in layer.parameters():
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("make", LAYERS.values())
def test_any_memory_format_in_and_channels_last_out(make):
    layer, x = awake(make(3)).float(), torch.randn(2, 6, 4, 5)
    y = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(layer(x), y)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    assert layer(x[:0]).shape == (0, *y.shape[1:])


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_and_double(name):
    layer = awake(LAYERS[name](3))
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(layer.float()(x.float()).double(), expected, rtol=1e-4, atol=1e-4)
    for half in (x.bfloat16(), x.float()):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(half)
        assert (y.double() - expected).abs().max() < 0.2
        y.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_repr_tells_the_sizes():
    assert "RowLSTM(4, hidden=2, colors=1)" in repr(ResidualRowBlock(2))
    assert repr(ResidualRowBlock(4, 3)).startswith("ResidualRowBlock(\n  4, colors=3, dropout=0.0")


def row_model(std=0.8, **config):
    model = build("pixelrnn", **{"kind": "row", "hidden": 3, "layers": 2, "head": 6, **config})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("channels, levels", [(1, 2), (3, 4)])
def test_causal_and_complete_but_for_the_known_blind_spots(layers, channels, levels):
    """What lies outside the triangle that the docstring states is invisible, and nothing else is."""
    height, width = 4, 11
    model = row_model(
        std=0.4, hidden=6, head=24, layers=layers, height=height, width=width, channels=channels, levels=levels
    )
    model, n = model.double(), height * width * channels
    moved = torch.zeros(n, n, dtype=torch.bool)
    for _ in range(3):
        base = torch.randint(0, levels, (1, n), dtype=torch.uint8)
        changed = (base + torch.eye(n, dtype=torch.uint8) * (levels // 2)) % levels
        batch = torch.cat((base, changed)).view(n + 1, height, width, channels).permute(0, 3, 1, 2)
        with torch.no_grad():
            logits = model(batch).permute(0, 3, 4, 1, 2).flatten(1, 3)
        moved |= (logits[1:] - logits[:1]).abs().amax(2) > 1e-12
    pixels = reach(height, width, right=lambda k: k + 2, left=lambda k: layers + k + 3, own=False)
    expected = of_features(pixels, channels, channels, channels, own=False)
    assert 0 < expected.sum() < torch.ones(n, n).triu(1).sum()
    wrong = (moved != expected).nonzero().tolist()
    assert not wrong, f"(changed value, moved logits) in raster order: {wrong[:10]}"


@pytest.mark.parametrize("config", [{"height": 2, "width": 3}, {"height": 1, "width": 2, "levels": 3, "channels": 3}])
def test_probabilities_sum_to_one(config):
    model = row_model(**config)
    shape = (model.config.channels, model.config.height, model.config.width)
    values = itertools.product(range(model.config.levels), repeat=math.prod(shape))
    log_prob = model.log_prob(torch.tensor(list(values), dtype=torch.uint8).view(-1, *shape))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_prob.std() > 0.1


def test_samples_follow_the_model():
    model = row_model(height=2, width=2, layers=1).double()
    x = model.sample(2000, seed=3)
    assert torch.equal(model.sample(3, seed=3, first=5), x[5:8])
    code = (x.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1).bincount(minlength=16) / 2000
    images = torch.tensor(list(itertools.product(range(2), repeat=4)), dtype=torch.uint8).view(16, 1, 2, 2)
    expected = model.log_prob(images).exp()
    # Five standard deviations of a frequency.
    assert ((code - expected).abs() <= 5 * (expected * (1 - expected) / 2000).sqrt() + 1e-9).all()


def test_kind_is_kept_and_optional_in_a_folder(tmp_path):
    model = row_model(height=3, width=4)
    model.save_pretrained(tmp_path)
    loaded = PixelRNN.from_pretrained(tmp_path)
    x = torch.randint(0, 2, (2, 1, 3, 4), dtype=torch.uint8)
    assert loaded.config.kind == "row"
    torch.testing.assert_close(loaded.log_prob(x), model.log_prob(x))
    assert PixelRNN.pretrained("mnist").config.kind == "diagonal"


@pytest.mark.parametrize(
    "config, message",
    [
        ({"kind": "column"}, "PixelRNNConfig: kind must be one of diagonal, row; got 'column'"),
        (
            {"kind": "row", "virtual_column": True},
            "PixelRNNConfig: virtual_column must be False unless kind is 'diagonal', whose blind spot it mends; "
            "got True with kind='row'",
        ),
    ],
)
def test_bad_config(config, message):
    with pytest.raises(ValueError) as error:
        PixelRNNConfig(**config)
    assert str(error.value) == message


@pytest.mark.parametrize("make", [lambda: RowLSTM(1, 6, colors=3), lambda: ResidualRowBlock(2, colors=3)])
def test_too_few_features_for_the_colours(make):
    with pytest.raises(ValueError, match="at least one feature for each colour"):
        make()
