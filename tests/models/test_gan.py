"""Generative adversarial networks: what their losses are, what they draw, and what they refuse."""

import math

import pytest
import torch
from torch import nn

import genfast
from genfast import models, ops
from genfast.nn.class_batch_norm import ClassBatchNorm2d
from genfast.nn.fixup import FixupBlock, FixupDiscriminator, FixupGenerator
from genfast.nn.projection import Projection
from genfast.nn.residual_resampling import DownResidualBlock, UpResidualBlock
from genfast.nn.strided import StridedTrunk
from genfast.random.streams import PRIOR

SIZES = {"height": 8, "width": 4, "levels": 16, "features": 8, "latent": 6, "stages": 1}
KINDS = {
    "dcgan": {},
    "sngan": {},
    "wgan-gp": {"network": "strided"},
    "r3gan": {"group": 4},
    "projection-gan": {"network": "strided", "layers": 1},
}


def gan(name, seed=0, **options):
    torch.manual_seed(seed)
    classes = {"classes": 3} if name == "projection-gan" else {}
    return models.build(name, **(SIZES | KINDS[name] | classes | options))


def batch(model, n=6, seed=0):
    c, generator = model.config, torch.Generator().manual_seed(seed)
    x = torch.randint(c.levels, (n, c.channels, c.height, c.width), dtype=torch.uint8, generator=generator)
    return (x, torch.arange(n) % c.classes) if c.classes else (x,)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", KINDS)
def test_each_loss_teaches_its_network(name, classes):
    model = gan(name, classes=classes or (3 if name == "projection-gan" else 0))
    parts = batch(model)
    loss, report = model.discriminator_loss(*parts)
    assert loss.shape == () and report["real_logits"].shape == report["fake_logits"].shape == (6,)
    assert not any(value.requires_grad for value in report.values())
    loss.backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad.isfinite().all() for p in model.discriminator.parameters())
    model.zero_grad(set_to_none=True)
    loss, _ = model.generator_loss(*parts)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.generator.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 32])
def test_sizes_of_images(channels, side):
    stages = 2 if side == 28 else 3 if side == 32 else 1
    for name, network in (("dcgan", None), ("r3gan", None), ("sngan", "residual"), ("sngan", "strided")):
        options = {"network": network} if network else {}
        sizes = {"height": side, "width": side, "channels": channels, "levels": 256, "stages": stages, "features": 4}
        model = models.build(name, latent=3, **sizes, **options)
        assert model.generate(torch.randn(2, 3)).shape == (2, channels, side, side)
        assert model.discriminate(torch.zeros(2, channels, side, side)).shape == (2,)


# losses


def test_penalties_of_r3gan_are_those_of_the_paper():
    """gamma / 2 (E |grad D(x)|^2 + E |grad D(G(z))|^2), and its gradient, by double backward in float64."""
    model = gan("r3gan", classes=3, gamma=0.7).double()
    x, labels = batch(model)
    torch.manual_seed(5)
    loss, report = model.discriminator_loss(x, labels)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.discriminator.named_parameters()}
    model.zero_grad()
    torch.manual_seed(5)
    with torch.no_grad():
        fake = model.generator(torch.randn(6, 6, dtype=torch.float64), labels)
    total = 0.0
    for images in (x.double() / 7.5 - 1, fake):
        images = images.requires_grad_()
        (grad,) = torch.autograd.grad(model.discriminator(images, labels).sum(), images, create_graph=True)
        total = total + 0.35 * grad.square().sum((1, 2, 3)).mean()
    assert float(report["penalty"]) == pytest.approx(float(total.detach()), rel=1e-9)
    difference = model.discriminator(fake, labels) - model.discriminator(x.double() / 7.5 - 1, labels)
    total = total + torch.log1p(difference.exp()).mean()
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-9)
    total.backward()
    for name, p in model.discriminator.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-8, atol=1e-12)


def test_relativistic_generator_is_the_other_side():
    model = gan("r3gan").double().eval()
    (x,) = batch(model)
    torch.manual_seed(5)
    loss, report = model.generator_loss(x)
    torch.manual_seed(5)
    with torch.no_grad():
        fake = model.discriminator(model.generator(torch.randn(6, 6, dtype=torch.float64)))
        real = model.discriminator(x.double() / 7.5 - 1)
    assert float(loss.detach()) == pytest.approx(float(torch.log1p((real - fake).exp()).mean()), rel=1e-9)
    torch.testing.assert_close(report["fake_logits"], fake)


def test_wasserstein_loss_and_its_weight():
    one, other = (gan("wgan-gp", weight=weight) for weight in (10.0, 0.0))
    (x,) = batch(one)
    reports = []
    for model in (one, other):
        torch.manual_seed(1)
        loss, report = model.discriminator_loss(x)
        difference = float(report["fake_logits"].mean() - report["real_logits"].mean())
        assert float(loss.detach()) == pytest.approx(difference + float(report["penalty"]), abs=1e-5)
        reports.append(report)
    assert float(reports[0]["penalty"]) > 0 == float(reports[1]["penalty"])


def test_hinge_of_a_normalised_discriminator():
    model = gan("sngan")
    loss, report = model.discriminator_loss(*batch(model))
    expected = (1 - report["real_logits"]).clamp(min=0).mean() + (1 + report["fake_logits"]).clamp(min=0).mean()
    torch.testing.assert_close(loss.detach(), expected)
    with torch.no_grad():
        for _ in range(50):
            model.discriminator(model.scaled(batch(model)[0]))
    baked = model.eval().discriminator.remove()
    for module in baked.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            assert float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), 2)) == pytest.approx(1, rel=0.01)


def test_techniques_of_a_dcgan():
    """Label smoothing touches real targets alone; feature matching compares means; kernels make images meet."""
    model = gan("dcgan", smooth=0.1, feature_matching=True, kernels=4, dim=2)
    (x,) = batch(model)
    loss, report = model.discriminator_loss(x)
    bce = nn.functional.binary_cross_entropy_with_logits
    real, fake = report["real_logits"], report["fake_logits"]
    expected = bce(real, torch.full_like(real, 0.9)) + bce(fake, torch.zeros_like(fake))
    torch.testing.assert_close(loss.detach(), expected)
    model.eval()
    torch.manual_seed(3)
    loss, _ = model.generator_loss(x)
    torch.manual_seed(3)
    with torch.no_grad():
        means = [model.discriminator.features(y).mean(0) for y in (model.generator(torch.randn(6, 6)), model.scaled(x))]
    torch.testing.assert_close(loss.detach(), (means[0] - means[1]).square().sum())
    y = model.scaled(x)
    together, alone = model.discriminate(y), torch.cat([model.discriminate(y[i : i + 1]) for i in range(6)])
    assert (together - alone).abs().max() > 1e-3
    plain = gan("dcgan").eval()
    alone = torch.cat([plain.discriminate(y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(plain.discriminate(y), alone, rtol=1e-4, atol=1e-5)


def test_virtual_batch_norms_do_without_neighbours():
    model, z = gan("dcgan", virtual_batch_norm=True).train(), torch.randn(4, 6)
    alone = torch.cat([model.generate(z[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model.generate(z), alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="virtual_batch_norm must be off with classes; got 3 classes"):
        gan("dcgan", virtual_batch_norm=True, classes=3)


# drawing


@pytest.mark.parametrize("name", KINDS)
def test_an_image_depends_on_its_seed_and_number_alone(name):
    model = gan(name)
    labels = None if name != "projection-gan" else torch.arange(150) % 3
    whole = genfast.sample(model, 150, seed=4, labels=labels)
    assert whole.dtype == torch.uint8 and whole.shape == (150, 1, 8, 4) and int(whole.max()) < 16
    for first, n, size in ((0, 1, None), (63, 3, None), (5, 140, 7)):
        part_labels = None if labels is None else labels[first : first + n]
        part = genfast.sample(model, n, seed=4, first=first, labels=part_labels, batch_size=size)
        assert torch.equal(part, whole[first : first + n])
    again = torch.cat(list(genfast.stream(model, 150, seed=4, labels=labels, batch_size=33)))
    assert torch.equal(again, whole) and not torch.equal(genfast.sample(model, 150, seed=5, labels=labels), whole)


def test_samples_are_decoded_draws_of_the_prior():
    model = gan("dcgan").eval()
    zero = torch.zeros(64, 6)
    z, _ = ops.gaussian_latent(zero, zero, 9, 64, first_sample=PRIOR)
    with torch.no_grad():
        levels = ((model.generator(z) + 1) * 7.5).round()
    assert torch.equal(genfast.sample(model, 64, seed=9, first=64), levels.to(torch.uint8))
    with torch.no_grad():
        levels = ((model.generator(0.5 * z) + 1) * 7.5).round()
    assert torch.equal(genfast.sample(model, 64, seed=9, first=64, temperature=0.5), levels.to(torch.uint8))


def test_levels_there_and_back():
    model = gan("r3gan")
    levels = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    assert torch.equal(model.quantised(model.scaled(levels)), levels)
    assert model.scaled(levels).min() == -1 and model.scaled(levels).max() == 1
    assert model.quantised(torch.tensor([-3.0, 3.0])).tolist() == [0, 15], "what lies outside is the last level"
    assert model.generate(100 * torch.randn(4, 6)).abs().max() <= 1


def test_sampling_leaves_the_mode_and_the_statistics_alone():
    model = gan("dcgan").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    genfast.sample(model, 3)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_settled_statistics_are_those_of_what_the_weights_make():
    model = gan("dcgan", classes=3, height=16, width=8, stages=2).eval()
    seen = []
    norm = model.generator.norms[1]
    handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model.settle()
    handle.remove()
    assert len(seen) == 32 and not model.training and not norm.training and norm.momentum == 0.1
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-6)
    again = model.generator.norms[0].running_mean.clone()
    model.settle()
    assert torch.equal(model.generator.norms[0].running_mean, again)


@pytest.mark.parametrize("name", KINDS)
def test_saving_and_loading(tmp_path, name):
    model = gan(name)
    model.save_pretrained(tmp_path)
    loaded = models.load(tmp_path)
    assert type(loaded) is type(model) and loaded.config == model.config and not loaded.training
    labels = 2 if name == "projection-gan" else None
    assert torch.equal(genfast.sample(loaded, 5, labels=labels), genfast.sample(model, 5, labels=labels))


def test_previews_show_every_class():
    model = gan("projection-gan").eval()
    labels = torch.arange(9) % 3
    assert torch.equal(model.preview(*batch(model)), genfast.sample(model, 9, labels=labels))
    assert gan("dcgan").preview(torch.zeros(0)).shape == (64, 1, 8, 4)


# refusals


def test_images_must_fit_the_strides():
    for name, options in (("dcgan", {"stages": 3}), ("sngan", {"stages": 3}), ("r3gan", {"stages": 1, "patch": 4})):
        with pytest.raises(
            ValueError, match="height and width must be multiples of 8, the networks' stride, such as 8x8; got 8 and 4"
        ):
            gan(name, **options)
    with pytest.raises(ValueError, match="multiples of 4, the networks' stride, such as 4x4; got 2 and 2"):
        models.build("dcgan", height=2, width=2)


def test_configs_are_checked():
    for name, options, text in (
        ("dcgan", {"smooth": 1.0}, r"smooth must be a number in \[0, 1\); got 1.0"),
        ("wgan-gp", {"weight": -1.0}, "weight must be a finite number of at least 0"),
        ("r3gan", {"gamma": math.nan}, "gamma must be a finite number"),
        ("sngan", {"network": "deep"}, "network must be one of residual, strided; got 'deep'"),
        ("sngan", {"network": "residual", "layers": 2}, "layers must be 0 for residual networks; got 2"),
        ("projection-gan", {"classes": 0}, "classes must be at least 1; got 0"),
        ("dcgan", {"latent": 0}, "latent must be at least 1; got 0"),
        ("dcgan", {"discriminator_steps": 0}, "discriminator_steps must be at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            gan(name, **options)


def test_labels_and_images_are_checked():
    model = gan("projection-gan")
    x, labels = batch(model)
    for call, text in (
        (lambda: model.discriminator_loss(x, labels + 1), r"labels must lie in 0..2; got 3"),
        (lambda: model.generator_loss(x), "labels must be integers"),
        (lambda: model.generate(torch.randn(2, 6), torch.tensor([0, 3])), r"labels must lie in 0..2; got 3"),
        (lambda: gan("dcgan").generator_loss(x, labels), "labels must be None for a model without classes"),
        (lambda: model.discriminator_loss(x + 16, labels), r"x must lie in 0..15; got"),
        (lambda: model.generate(torch.randn(2, 5), labels[:2]), r"z must have shape \[B, 6\]; got \(2, 5\)"),
        (lambda: model.discriminate(torch.zeros(2, 1, 8, 8), labels[:2]), "x must have shape .*; got"),
        (lambda: genfast.sample(model, 3, labels=5), r"labels must lie in 0..2; got 5"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(TypeError, match=r"x must be a float tensor; got torch.uint8"):
        model.discriminate(x, labels)
    with pytest.raises(TypeError, match="log_prob: model must have a likelihood; got ProjectionGAN"):
        genfast.log_prob(model, x, labels)


def test_a_batch_of_one_has_no_statistics():
    model = gan("dcgan")
    for loss in (model.discriminator_loss, model.generator_loss):
        with pytest.raises(ValueError, match="DCGAN: x must be a batch of at least 2 images.*; got 1"):
            loss(*batch(model, 1))
    assert gan("r3gan").least_batch == 1
    gan("r3gan").discriminator_loss(*batch(gan("r3gan"), 1))


# networks


def test_class_batch_norm_is_a_batch_norm_and_a_scale_of_each_class():
    torch.manual_seed(0)
    norm, x, labels = ClassBatchNorm2d(3, 4), 2 * torch.randn(5, 3, 2, 3) + 1, torch.tensor([0, 3, 1, 3, 2])
    nn.init.normal_(norm.scale.weight)
    nn.init.normal_(norm.shift.weight)
    plain = nn.BatchNorm2d(3, affine=False)
    scale, shift = (table.weight[labels][..., None, None] for table in (norm.scale, norm.shift))
    expected = scale * plain(x) + shift
    torch.testing.assert_close(norm(x, labels), expected)
    torch.testing.assert_close(norm.running_var, plain.running_var)


def test_projection_adds_the_inner_product_with_the_label():
    torch.manual_seed(0)
    head = Projection(StridedTrunk(1, 8, 8, 4, 1), 3)
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([2, 0])
    features = head.trunk(x)
    weights = head.output.weight[0] + head.labels.weight[labels]
    expected = [w @ f + head.output.bias[0] for w, f in zip(weights, features)]
    torch.testing.assert_close(head(x, labels), torch.stack(expected))


def test_residual_blocks_resample():
    torch.manual_seed(0)
    up, down = UpResidualBlock(3, 5).eval(), DownResidualBlock(3, 5)
    x = torch.randn(2, 3, 4, 6)
    for block in (up, down):
        nn.init.zeros_(block.output.weight)
        nn.init.zeros_(block.output.bias)
    enlarged = nn.functional.interpolate(up.skip(x), scale_factor=2, mode="nearest")
    torch.testing.assert_close(up(x), enlarged)
    torch.testing.assert_close(down(x), nn.functional.avg_pool2d(down.skip(x), 2), rtol=1e-4, atol=1e-5)


def test_fixup_blocks_begin_as_the_identity_and_keep_their_scale():
    torch.manual_seed(0)
    block = FixupBlock(32, expansion=2, group=16, depth=16)
    x = torch.randn(4, 32, 6, 6)
    assert torch.equal(block(x), x) and block.spatial.groups == 4 and FixupBlock(5).spatial.groups == 1
    inside = block.first(block.expand(x))
    gain = math.sqrt(2 / 1.04)  # a leaky ReLU halves the power of N(0, s^2), and (1 + 0.2^2) times that remains
    assert float(block.expand.weight.std()) == pytest.approx(gain / math.sqrt(32) * 16**-0.25, rel=0.1)
    assert float(inside.square().mean()) == pytest.approx(16**-0.5, rel=0.3)


def test_fixup_networks_mirror_each_other():
    torch.manual_seed(0)
    sizes = (7, 3, 16, 8, 4, 1, 2, 2, 4, 2, 5)
    generator, discriminator = FixupGenerator(*sizes), FixupDiscriminator(*sizes)
    labels = torch.tensor([0, 4])
    x = generator(torch.randn(2, 7), labels)
    assert x.shape == (2, 3, 16, 8) and generator.basis.shape == discriminator.gather.shape == (8, 4, 2)
    logits = discriminator(x, labels)
    assert logits.shape == (2,) and not torch.equal(logits, discriminator(x, labels.flip(0)))
    assert not torch.equal(generator(torch.ones(2, 7), labels)[0], generator(torch.ones(2, 7), labels)[1])
