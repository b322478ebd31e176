"""The networks of pix2pix against plain torch modules, its losses against their formulas, and that it learns."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.data import load
from genfast.models import MODELS, Pix2Pix, Pix2PixConfig
from genfast.models import load as load_model
from genfast.models.pix2pix import PatchDiscriminator, PhiloxDropout, UNet
from genfast.random.philox import uniform


def config(**changes):
    options = {"channels": 3, "height": 16, "width": 20, "levels": 7, "features": 3, "patch": 1} | changes
    return Pix2PixConfig(**options)


def batch(c, count=2):
    source = torch.randint(0, c.levels, (count, c.source_channels, c.height, c.width), dtype=torch.uint8)
    return source, torch.randint(0, c.levels, (count, c.channels, c.height, c.width), dtype=torch.uint8)


def enlarge(network):
    """Weights that let every path through the network count."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)


# networks


def plain_layer(layer, activation):
    """The same layer of torch.nn."""
    conv = layer.conv
    kind = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose2d) else nn.Conv2d
    plain = kind(conv.in_channels, conv.out_channels, 4, conv.stride, 1, bias=False)
    plain.weight = conv.weight
    norm = nn.InstanceNorm2d(conv.out_channels, affine=True) if layer.normalised else nn.Identity()
    if layer.normalised:
        norm.bias = layer.act.bias
        return nn.Sequential(plain, norm, activation)

    class WithBias(nn.Module):
        def forward(self, x):
            return x + layer.act.bias[:, None, None]

    return nn.Sequential(plain, WithBias(), activation)


def test_u_net_of_plain_layers():
    """Three halvings: C, 2C, 4C features; the innermost and the outermost layers are not normalised."""
    net = UNet(2, 3, 4, 3, 0.0)
    enlarge(net)
    assert [layer.normalised for layer in (*net.down, *net.up)] == [False, True, False, True, True, False]
    assert [tuple(layer.conv.weight.shape[:2]) for layer in net.down] == [(4, 2), (8, 4), (16, 8)]
    assert [tuple(layer.conv.weight.shape[:2]) for layer in net.up] == [(16, 8), (16, 4), (8, 3)]
    leaky, relu = nn.LeakyReLU(0.2), nn.ReLU()
    down = [plain_layer(layer, leaky) for layer in net.down]
    up = [plain_layer(layer, activation) for layer, activation in zip(net.up, (relu, relu, nn.Tanh()), strict=True)]
    x = torch.randn(2, 2, 16, 24)
    a = down[0](x)
    b = down[1](a)
    h = up[0](down[2](b))
    expected = up[2](torch.cat((up[1](torch.cat((h, b), 1)), a), 1))
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


def test_features_stop_at_eight_times():
    assert [layer.conv.out_channels for layer in UNet(1, 1, 2, 6, 0.5).down] == [2, 4, 8, 16, 16, 16]
    assert [layer.conv.out_channels for layer in PatchDiscriminator(2, 2, 5).layers] == [2, 4, 8, 16, 16, 16, 1]


def test_discriminator_of_plain_layers():
    net = PatchDiscriminator(3, 4, 2)
    enlarge(net)
    leaky = [nn.LeakyReLU(0.2)] * 3
    plain = nn.Sequential(*(plain_layer(*pair) for pair in zip(net.layers, (*leaky, nn.Identity()), strict=True)))
    assert [layer.normalised for layer in net.layers] == [False, True, True, False]
    assert [layer.conv.stride[0] for layer in net.layers] == [2, 2, 1, 1]
    source, target = torch.randn(2, 1, 24, 24), torch.randn(2, 2, 24, 24)
    torch.testing.assert_close(net(source, target), plain(torch.cat((source, target), 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch, side", [(1, 16), (2, 34), (3, 70)])
def test_the_patch_of_a_logit(patch, side):
    """The paper's 16, 34 and 70 pixels: where the gradient of one logit is, without the norms, which see all."""
    net = PatchDiscriminator(2, 2, patch).double()
    enlarge(net)
    for layer in net.layers:
        layer.normalised = False
    x = torch.randn(1, 1, 120, 120, dtype=torch.float64, requires_grad=True)
    logits = net(x, torch.zeros_like(x))
    middle = logits.shape[2] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows, columns = (gradient[0, 0].abs().sum(dim).nonzero().flatten() for dim in (0, 1))
    assert [len(rows), int(rows[-1] - rows[0]) + 1, len(columns)] == [side] * 3


def test_every_value_of_the_source_can_move_every_value_of_the_target():
    net = UNet(1, 1, 2, 3, 0.0).double()
    enlarge(net)
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    moved = torch.autograd.functional.jacobian(net, x).reshape(64, 64).abs() > 0
    assert moved.all()


def test_sizes_that_the_strides_do_not_divide_are_padded_by_reflection():
    net = UNet(1, 2, 2, 3, 0.0)
    enlarge(net)
    x = torch.randn(2, 1, 9, 13)
    padded = torch.cat((x, x[:, :, 1:8].flip(2)), 2)  # rows 9 to 15 mirror rows 7 to 1
    padded = torch.cat((padded, padded[..., 9:12].flip(3)), 3)
    assert padded.shape[2:] == (16, 16)
    assert torch.equal(net(x), net(padded)[:, :, :9, :13])


# configuration


@pytest.mark.parametrize("side, depth", [(16, 4), (28, 4), (31, 4), (32, 5), (64, 6), (256, 8), (1024, 8)])
def test_halvings_that_the_size_allows(side, depth):
    assert Pix2PixConfig(height=side, width=2 * side).depth == Pix2PixConfig(height=side, width=side).depth == depth
    assert Pix2PixConfig(height=side, width=side, halvings=3).depth == 3


@pytest.mark.parametrize(
    ("changes", "kind", "fragment"),
    [
        ({"height": 11, "patch": 2}, ValueError, "at least 12 for patch=2, the discriminator's strides; got 11x64"),
        ({"width": 63, "halvings": 6}, ValueError, "at least 64, the stride of the U-Net; got 64x63"),
        ({"width": 5, "patch": 1}, ValueError, "at least 6 for patch=1"),
        ({"patch": 0}, ValueError, "patch must be at least 1; got 0"),
        ({"features": 1.5}, TypeError, "features must be an int; got 1.5"),
        ({"l1_weight": -1.0}, ValueError, "l1_weight must be a finite number of at least 0; got -1.0"),
        ({"l1_weight": "much"}, TypeError, "l1_weight must be a number; got 'much'"),
        ({"dropout": 1.0}, ValueError, r"dropout must be a number in \[0, 1\); got 1.0"),
        ({"discriminator_steps": 0}, ValueError, "discriminator_steps must be at least 1; got 0"),
    ],
)
def test_sizes_that_no_network_has(changes, kind, fragment):
    with pytest.raises(kind, match=f"^Pix2PixConfig: .*{fragment}"):
        Pix2PixConfig(**changes)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_the_smallest_size_trains(patch):
    side = 3 * 2**patch
    model = Pix2Pix(config(patch=patch, height=side, width=side))
    for loss in (model.discriminator_loss, model.generator_loss):
        value, _ = loss(*batch(model.config, 1))
        value.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# losses


@pytest.mark.parametrize("l1_weight", [100.0, 3.0])
def test_losses_are_the_formulas(l1_weight):
    model = Pix2Pix(config(dropout=0.0, l1_weight=l1_weight))
    enlarge(model)
    source, target = batch(model.config)
    x, y = (images.float() / 3 - 1 for images in (source, target))  # levels 0 to 6 as -1 to 1
    fake = model.generator(x)
    real_logits, fake_logits = model.discriminator(x, y), model.discriminator(x, fake)
    ones, zeros, entropy = (
        torch.ones_like(real_logits),
        torch.zeros_like(real_logits),
        F.binary_cross_entropy_with_logits,
    )
    loss, report = model.discriminator_loss(source, target)
    torch.testing.assert_close(loss, (entropy(real_logits, ones) + entropy(fake_logits, zeros)) / 2)
    assert report.keys() == {"real_logits", "fake_logits"}
    torch.testing.assert_close(report["real_logits"], real_logits.detach().flatten())
    torch.testing.assert_close(report["fake_logits"], fake_logits.detach().flatten())
    loss, report = model.generator_loss(source, target)
    torch.testing.assert_close(loss, entropy(fake_logits, ones) + l1_weight * F.l1_loss(fake, y))
    torch.testing.assert_close(report["l1"], F.l1_loss(fake, y).detach())
    torch.testing.assert_close(report["adversarial"], entropy(fake_logits, ones).detach())
    assert not any(value.requires_grad for value in report.values()) and report["l1"].shape == ()


def test_each_side_moves_its_own_network():
    model = Pix2Pix(config())
    loss, _ = model.discriminator_loss(*batch(model.config))
    loss.backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.discriminator.parameters())
    loss, _ = model.generator_loss(*batch(model.config))
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.generator.parameters())
    assert model.discriminator_steps == 1 and Pix2Pix(config(discriminator_steps=2)).discriminator_steps == 2


def test_the_noise_of_training_is_torchs():
    model = Pix2Pix(config(dropout=0.5))
    enlarge(model)
    pair, losses = batch(model.config), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model.generator_loss(*pair)[0].item())
    assert losses[0] == losses[1] != losses[2]


def test_half_precision():
    model = Pix2Pix(config())
    with torch.autocast("cpu", torch.bfloat16):
        for loss in (model.discriminator_loss, model.generator_loss):
            value, _ = loss(*batch(model.config))
            assert value.isfinite() and value.dtype == torch.float32
            value.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "kind", "fragment"),
    [
        (lambda s, t: (s.float(), t), TypeError, "source must hold levels as torch.uint8; got torch.float32"),
        (lambda s, t: (s, None), TypeError, "target must hold levels as torch.uint8; got NoneType"),
        (lambda s, t: (s, t[:, :1]), ValueError, r"target must have shape .* C=3, H=16, W=20; got \(2, 1, 16, 20\)"),
        (lambda s, t: (s[..., :16], t), ValueError, r"source must have shape .*; got \(2, 1, 16, 16\)"),
        (lambda s, t: (s, t[:1]), ValueError, "target must have shape .* with B=2"),
        (lambda s, t: (s + 7, t), ValueError, r"source must lie in 0..6; got \d+"),
    ],
)
def test_batches_that_are_no_pairs(change, kind, fragment):
    model = Pix2Pix(config())
    for call in (model.discriminator_loss, model.generator_loss, model.preview):
        with pytest.raises(kind, match=f"^Pix2Pix: {fragment}"):
            call(*change(*batch(model.config)))


# translation's parts


def test_preview_shows_source_translation_and_target():
    model = Pix2Pix(config())
    source, target = batch(model.config)
    shown = model.preview(source, target)
    assert shown.shape == (2, 3, 16, 60) and shown.dtype == torch.uint8
    assert torch.equal(shown[..., :20], source.expand(-1, 3, -1, -1)) and torch.equal(shown[..., 40:], target)
    assert torch.equal(shown[..., 20:40], genfast.translate(model, source))


def test_masks_are_those_of_their_places():
    h = torch.rand(3, 4, 5, 6) + 1
    dropped = PhiloxDropout(0.3, 8, 100)(h, 2)
    u = torch.from_numpy(uniform(8, [[100], [101], [102]], range(4 * 5 * 6), 2)).view(3, 4, 5, 6)
    torch.testing.assert_close(dropped, torch.where(u >= 0.3, h / 0.7, 0.0))
    many = PhiloxDropout(0.3, 8, 0)(torch.ones(1, 400, 10, 10), 0)
    assert abs(float((many == 0).float().mean()) - 0.3) < 0.01 and abs(float(many.mean()) - 1) < 0.02
    assert PhiloxDropout(0.0, 8, 100)(h, 2) is h


def test_saved_and_loaded(tmp_path):
    assert MODELS["pix2pix"] == (Pix2Pix, Pix2PixConfig)
    model = Pix2Pix(config(l1_weight=10.0))
    enlarge(model)
    model.save_pretrained(tmp_path)
    other = load_model(tmp_path)
    source, _ = batch(model.config)
    assert other.config == model.config and torch.equal(
        genfast.translate(other, source), genfast.translate(model, source)
    )


def test_learns_digits_from_their_outlines():
    """A hundred steps of a small one beat the mean image of the digits that it has not seen."""
    train, valid = (load("digit-outlines", split=split, size=16) for split in ("train", "valid"))
    torch.manual_seed(0)
    model = Pix2Pix(Pix2PixConfig(height=16, width=16, features=8, patch=1))
    sides = [
        (model.discriminator_loss, torch.optim.Adam(model.discriminator.parameters(), 1e-3, (0.5, 0.999))),
        (model.generator_loss, torch.optim.Adam(model.generator.parameters(), 2e-3, (0.5, 0.999))),
    ]
    for _ in range(100):
        indices = torch.randint(len(train), (16,))
        for loss, optimizer in sides:
            optimizer.zero_grad()
            loss(train.source[indices], train.target[indices])[0].backward()
            optimizer.step()
    truth = valid.target.float()
    translated = genfast.translate(model, valid.source).float()
    mean = train.target.float().mean(0)
    error, mean_error = (float((images - truth).abs().mean()) for images in (translated, mean.expand_as(truth)))
    assert error < 0.6 * mean_error, (error, mean_error)
