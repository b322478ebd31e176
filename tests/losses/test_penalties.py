"""Gradient penalties: closed forms, autograd.grad(create_graph=True), finite differences, and one compiled graph."""

import pytest
import torch
from support.ranks import run_two_ranks
from torch import nn
from torch.utils.checkpoint import checkpoint

from genfast import losses
from genfast.nn import BiasAct, Blur2d, Downsample2d, MinibatchDiscrimination, MinibatchStddev, SpectralNorm, Upsample2d


def images(batch=4, size=4, seed=0, dtype=torch.float64):
    return torch.randn(batch, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def critic(dtype=torch.float64):
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 3, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(48, 4), nn.Tanh(), nn.Linear(4, 1)
    return nn.Sequential(*layers, nn.Flatten(0)).to(dtype)


def every_layer(dtype=torch.float64):
    """A discriminator with all of our layers; smooth enough for finite differences."""
    torch.manual_seed(4)
    return SpectralNorm(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False),
            BiasAct(3, "swish", gain=1.4),
            Downsample2d(),
            nn.Conv2d(3, 3, 3, padding=1),
            BiasAct(3, "leaky_relu"),
            nn.Conv2d(3, 3, 3, padding=1),
            Upsample2d(),
            Blur2d((1, 2, 1)),
            BiasAct(3, "tanh"),
            MinibatchStddev(2),
            nn.Flatten(),
            nn.Linear(64, 4),
            BiasAct(4, "sigmoid"),
            MinibatchDiscrimination(4, 3, 2),
            nn.Linear(7, 1),
            nn.Flatten(0),
        ).to(dtype)
    )


REAL, FAKE = images(), images(seed=1)
NORM = nn.BatchNorm2d(1).double()
PENALTIES = {
    "r1_penalty": lambda net: losses.r1_penalty(net, REAL),
    "r2_penalty": lambda net: losses.r2_penalty(net, FAKE),
    "wgan_gp_penalty": lambda net: losses.wgan_gp_penalty(net, REAL, FAKE),
    "dragan_penalty": lambda net: losses.dragan_penalty(net, REAL),
}


def judged(name, net):
    """The same by autograd.grad(create_graph=True), with the draws of the penalty."""
    if name == "r1_penalty":
        x = REAL
    elif name == "r2_penalty":
        x = FAKE
    elif name == "wgan_gp_penalty":
        share = torch.rand(4, dtype=torch.float64).view(4, 1, 1, 1)
        x = share * REAL + (1 - share) * FAKE
    else:
        x = REAL + 0.5 * REAL.std(correction=0) * torch.randn(4, 1, 4, 4, dtype=torch.float64)
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    squares = gradient.square().sum((1, 2, 3))
    return squares.mean() if name.startswith("r") else (squares.sqrt() - 1).square().mean()


def seeded(function, net):
    """A penalty and its gradients to the parameters."""
    net.zero_grad()
    torch.manual_seed(7)
    loss = function(net)
    loss.backward()
    return loss.detach(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


def assert_same(got, expected, **tolerance):
    torch.testing.assert_close(got[0], expected[0], **tolerance)
    assert sum(float(part.abs().sum()) for part in expected[1]) > 0
    for one, other in zip(got[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("make", [critic, every_layer])
@pytest.mark.parametrize("name", PENALTIES)
def test_equals_autograd(name, make):
    net = make().eval()
    assert_same(seeded(PENALTIES[name], net), seeded(lambda net: judged(name, net), net), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PENALTIES)
def test_one_compiled_graph_equals_autograd(name):
    """The backward pass to the parameters, the second order, stays outside of the graph."""
    net = critic()
    compiled = torch.compile(lambda: PENALTIES[name](net), fullgraph=True, backend="aot_eager")
    assert_same(seeded(lambda net: compiled(), net), seeded(lambda net: judged(name, net), net), rtol=1e-9, atol=1e-12)


def test_a_compiled_penalty_through_every_layer():
    net = every_layer().eval()
    compiled = torch.compile(lambda: losses.r1_penalty(net, REAL), fullgraph=True, backend="aot_eager")
    expected = seeded(lambda net: judged("r1_penalty", net), net)
    assert_same(seeded(lambda net: compiled(), net), expected, rtol=1e-8, atol=1e-10)


def test_a_compiled_step_through_every_layer():
    """Two passes and a penalty in one graph, in float32, against eager autograd.grad(create_graph=True)."""
    real, fake = REAL.float(), FAKE.float()

    def step(net, penalty):
        logits = net(real), net(fake)
        return losses.hinge_discriminator(*logits) + penalty(net)

    def by_autograd(net):
        # The penalty leaves the vectors of spectral normalisation where they are.
        x = real.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net.eval()(x).sum(), x, create_graph=True)
        net.train()
        return gradient.square().sum((1, 2, 3)).mean()

    nets = [every_layer(torch.float32) for _ in range(2)]
    compiled = torch.compile(step, fullgraph=True, backend="eager")
    got = seeded(lambda net: compiled(net, lambda net: losses.r1_penalty(net, real)), nets[0])
    expected = seeded(lambda net: step(net, by_autograd), nets[1])
    assert_same(got, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)


def test_inductor():
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1), nn.Flatten(0))
    x = torch.randn(4, 3)
    compiled = torch.compile(lambda: losses.r1_penalty(net, x), fullgraph=True)
    got, expected = seeded(lambda net: compiled(), net), seeded(lambda net: losses.r1_penalty(net, x), net)
    assert_same(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_linear_critic(name):
    """Of w x + b the gradient is w everywhere: |w|^2, or (|w| - 1)^2."""
    weight = torch.randn(16, dtype=torch.float64).requires_grad_()
    penalty = PENALTIES[name](lambda x: x.flatten(1) @ weight + 3)
    length = weight.detach().norm()
    expected = length**2 if name.startswith("r") else (length - 1) ** 2
    torch.testing.assert_close(penalty.detach(), expected)
    (gradient,) = torch.autograd.grad(penalty, weight)
    slope = 2 if name.startswith("r") else 2 * (length - 1) / length
    torch.testing.assert_close(gradient, slope * weight.detach())


def test_quadratic_critic():
    """Of a |x|^2 / 2 the gradient is a x: the penalty tells the images apart."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def quadratic(x):
        return a * x.flatten(1).square().sum(1) / 2

    expected = sum(float(image.square().sum()) for image in REAL) / 4 * 0.49
    assert float(losses.r1_penalty(quadratic, REAL).detach()) == pytest.approx(expected)
    torch.manual_seed(7)
    share = torch.rand(4, dtype=torch.float64).tolist()
    norms = [0.7 * float((e * r + (1 - e) * f).norm()) for e, r, f in zip(share, REAL, FAKE)]
    torch.manual_seed(7)
    penalty = losses.wgan_gp_penalty(quadratic, REAL, FAKE, target=0.5)
    assert float(penalty.detach()) == pytest.approx(sum((norm - 0.5) ** 2 for norm in norms) / 4)


def test_patches_count_as_their_sum():
    net = nn.Conv2d(1, 1, 3, padding=1).double()
    patches = losses.r1_penalty(net, REAL)
    torch.testing.assert_close(patches, losses.r1_penalty(lambda x: net(x).sum((1, 2, 3)), REAL))


def test_labels_reach_the_critic():
    net, labels = nn.Embedding(3, 16).double(), torch.tensor([2, 0, 1, 1])

    def projected(x, labels):
        return (x.flatten(1) * net(labels)).sum(1)

    expected = net.weight[labels].square().sum(1).mean()
    for penalty in (losses.r1_penalty(projected, REAL, labels), losses.r2_penalty(projected, FAKE, labels)):
        torch.testing.assert_close(penalty, expected)
    expected = (net.weight[labels].norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(losses.wgan_gp_penalty(projected, REAL, FAKE, labels), expected)
    torch.testing.assert_close(losses.dragan_penalty(projected, REAL, labels), expected)


def test_a_flat_critic_has_finite_gradients():
    weight = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    for name, penalty in PENALTIES.items():
        (gradient,) = torch.autograd.grad(penalty(lambda x: x.flatten(1) @ weight), weight)
        assert torch.equal(gradient, torch.zeros_like(gradient)), name


def test_draws():
    net = critic()
    for penalty in (
        lambda generator: losses.wgan_gp_penalty(net, REAL, FAKE, generator=generator),
        lambda generator: losses.dragan_penalty(net, REAL, generator=generator),
    ):
        one, same, other = (penalty(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same) and not torch.equal(one, other)
    torch.testing.assert_close(losses.dragan_penalty(net, REAL, noise=0.0), judged_norm(net, REAL))


def judged_norm(net, x):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def test_second_order_through_every_layer_against_finite_differences():
    """d R1 / d parameters, by central differences of R1, whose own gradients are finite differences of the logits."""
    net = every_layer().eval()
    loss, gradients = seeded(lambda net: losses.r1_penalty(net, REAL), net)
    with torch.no_grad():
        step, total = 1e-5, 0.0
        for place in range(REAL[0].numel()):
            shift = torch.zeros(16, dtype=torch.float64)
            shift[place] = step
            for image in range(4):
                moved = torch.zeros_like(REAL)
                moved[image] = shift.view(1, 4, 4)
                slope = (net(REAL + moved).sum() - net(REAL - moved).sum()) / (2 * step)
                total += float(slope) ** 2 / 4
    assert float(loss) == pytest.approx(total, rel=1e-6)
    generator = torch.Generator().manual_seed(9)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-5 * direction)
            values.append(float(losses.r1_penalty(net, REAL).detach()))
            with torch.no_grad():
                parameter.sub_(sign * 1e-5 * direction)
        slope = (values[0] - values[1]) / 2e-5
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-9)


def test_what_autograd_alone_takes():
    """Recomputed activations, statistics of a batch, a critic of the parameters alone."""
    net = every_layer().remove()

    def recomputed(x):
        return checkpoint(net, x, use_reentrant=False)

    got, expected = (seeded(lambda _: losses.r1_penalty(f, REAL), net) for f in (recomputed, net))  # noqa: B023
    assert_same(got, expected, rtol=0, atol=0)
    norm = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3), nn.Softplus()).double()
    assert_same(seeded(PENALTIES["r1_penalty"], norm), seeded(lambda net: judged("r1_penalty", net), norm))
    weight = torch.ones(4, dtype=torch.float64)
    for constant in (weight, weight.requires_grad_()):
        assert float(losses.r1_penalty(lambda x: constant, REAL).detach()) == 0  # noqa: B023


def test_spectral_norm_stays_as_it_is():
    net = every_layer()
    buffers = [buffer.clone() for buffer in net.buffers()]
    got = seeded(PENALTIES["r1_penalty"], net.train())
    assert_same(got, seeded(PENALTIES["r1_penalty"], net.eval()), rtol=0, atol=0)
    assert all(map(torch.equal, net.buffers(), buffers))


def test_within_functional_transforms():
    """The penalty is itself a function that torch.func differentiates."""
    net = critic()
    parameters = dict(net.named_parameters())

    def penalty(parameters):
        return losses.r1_penalty(lambda x: torch.func.functional_call(net, parameters, (x,)), REAL)

    expected = torch.autograd.grad(losses.r1_penalty(net, REAL), list(parameters.values()), materialize_grads=True)
    for got, one in zip(torch.func.grad(penalty)(parameters).values(), expected, strict=True):
        torch.testing.assert_close(got, one)


RANK = """
import sys, torch
from torch import distributed, nn
from genfast import losses
from genfast.nn import BiasAct

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
torch.manual_seed(0)
layers = nn.Conv2d(1, 3, 3, padding=1, bias=False), BiasAct(3, "swish"), nn.Flatten(), nn.Linear(48, 1), nn.Flatten(0)
net = nn.Sequential(*layers).double()
real, fake = torch.randn(2, 4, 1, 4, 4, dtype=torch.float64)

def step(critic, part):
    penalty = losses.r1_penalty(critic, real[part]) + losses.wgan_gp_penalty(critic, real[part], real[part])
    return losses.hinge_discriminator(critic(real[part]), critic(fake[part])) + penalty

critic = nn.parallel.DistributedDataParallel(net)
for _ in range(2):
    net.zero_grad()
    step(critic, slice(2 * rank, 2 * rank + 2)).backward()
got = [p.grad.clone() for p in net.parameters()]
distributed.barrier()
distributed.destroy_process_group()
net.zero_grad()
step(net, slice(None)).backward()
for one, p in zip(got, net.parameters(), strict=True):
    torch.testing.assert_close(one, p.grad)
assert got[0].abs().max() > 0
"""


def test_two_processes_are_one(tmp_path):
    """A critic in DistributedDataParallel, each process with half of the batch."""
    run_two_ranks(RANK, tmp_path)


def test_precision():
    net = critic(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = losses.r1_penalty(net, REAL.float())
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, losses.r1_penalty(net, REAL.float()), rtol=0.05, atol=1e-3)
    assert losses.r1_penalty(critic(torch.bfloat16), REAL.bfloat16()).dtype == torch.float32


def test_images_get_no_gradient():
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    net = critic()
    (losses.r1_penalty(net, real) + losses.wgan_gp_penalty(net, real, fake)).backward()
    assert real.grad is None and fake.grad is None
    with torch.no_grad():
        torch.testing.assert_close(losses.r1_penalty(net, REAL), losses.r1_penalty(net, REAL))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: losses.r1_penalty(critic(), REAL.long()), TypeError, "r1_penalty: real must be a float tensor; got"),
        (lambda: losses.r2_penalty(critic(), REAL[:0]), ValueError, "r2_penalty: fake must have shape .*, not empty"),
        (lambda: losses.r1_penalty(lambda x: x.sum(), REAL), ValueError, r"critic must give .* with B=4; got \(\)"),
        (lambda: losses.r1_penalty(lambda x: None, REAL), ValueError, "critic must give .*; got NoneType"),
        (lambda: losses.wgan_gp_penalty(critic(), REAL, FAKE[:2]), ValueError, r"fake must have the shape of real"),
        (lambda: losses.dragan_penalty(critic(), REAL, noise=-1.0), ValueError, "noise must be at least 0; got -1.0"),
        (
            lambda: torch.func.grad(lambda x: losses.r1_penalty(NORM, x))(REAL),
            RuntimeError,
            "in-place",
        ),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
