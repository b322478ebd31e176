"""What is special to spectral normalisation: torch's own parametrization, singular values, and networks around it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from genfast.nn import SpectralNorm


def network(dtype=torch.float64):
    """Two layers of one shape, transposed ones, groups, and a layer of another kind."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.Tanh(),
        nn.ConvTranspose2d(3, 3, 3, padding=1),
        nn.ConvTranspose2d(3, 3, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(192, 5),
        nn.PReLU(),
        nn.Linear(5, 5),
        nn.Linear(5, 5),
        nn.Linear(5, 1),
    ).to(dtype)


LAYERS = [0, 2, 3, 4, 6, 7, 9, 11, 12, 13]


def zeros():
    layer = nn.Linear(2, 3)
    nn.init.zeros_(layer.weight)
    return layer


def images(seed=0, dtype=torch.float64):
    return torch.randn(3, 2, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def places(net):
    """Index of a layer -> (its stack, its place in that stack)."""
    return {int(path): (i, k) for i, stack in enumerate(net._layers) for k, same in enumerate(stack) for path in same}


def judge(net):
    """The same network by torch's parametrizations, with the weights and the u and v of ours."""
    reference = network()
    for index, (stack, place) in places(net).items():
        parametrizations.spectral_norm(reference[index])
        held = reference[index].parametrizations.weight
        with torch.no_grad():
            held.original.copy_(net.weights[stack][place])
            held[0]._u.copy_(getattr(net, f"u_{stack}")[place])
            held[0]._v.copy_(getattr(net, f"v_{stack}")[place])
    return reference


def test_weights_of_one_shape_are_one_parameter():
    plain = network()
    net = SpectralNorm(network())
    assert sorted(places(net)) == LAYERS
    shapes = {tuple(weight.shape) for weight in net.weights}
    assert shapes == {
        (3, 4, 2, 3, 3),
        (1, 4, 3, 2, 2),
        (2, 3, 3, 3, 3),
        (1, 5, 192),
        (2, 5, 5),
        (1, 1, 5),
    }
    for index, (stack, place) in places(net).items():
        assert torch.equal(net.weights[stack][place], plain[index].weight)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in plain.parameters())


def test_equals_torch_over_training():
    """Logits, gradients, u and v and weights, with D(real), D(fake) and one backward pass in every step."""
    net = SpectralNorm(network())
    torchs = judge(net)
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.02) for module in (net, torchs)]
    start = [weight.detach().clone() for weight in net.weights]
    for step in range(5):
        for module, optimizer in zip((net, torchs), optimizers):
            optimizer.zero_grad()
            real, fake = module(images(2 * step)), module(images(2 * step + 1))
            (fake.exp().mean() - real.mean() + real.square().mean()).backward()
        for index, (stack, place) in places(net).items():
            held = torchs[index].parametrizations.weight
            torch.testing.assert_close(net.weights[stack].grad[place], held.original.grad)
            torch.testing.assert_close(getattr(net, f"u_{stack}")[place], held[0]._u)
            torch.testing.assert_close(getattr(net, f"v_{stack}")[place], held[0]._v)
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(net(images(9)), torchs(images(9)))
    assert all((weight - before).abs().max() > 0.01 for weight, before in zip(net.weights, start))
    net.eval(), torchs.eval()
    torch.testing.assert_close(net(images()), torchs(images()))


def test_largest_singular_values():
    net = SpectralNorm(network())
    for _ in range(200):
        net(images())
    sigmas, baked = net.sigma(), net.remove()
    for index, (stack, place) in places(net).items():
        weight = net.weights[stack][place].detach()
        rows = weight.transpose(0, 1) if isinstance(baked[index], nn.ConvTranspose2d) else weight
        largest = torch.linalg.matrix_norm(rows.flatten(1), 2)
        torch.testing.assert_close(sigmas[str(index)], largest, rtol=1e-6, atol=0)
        torch.testing.assert_close(baked[index].weight.detach(), weight / largest, rtol=1e-6, atol=1e-9)


def test_one_step_of_the_power_method_in_training_and_none_in_evaluation():
    net = SpectralNorm(network())

    def state():
        return [buffer.clone() for buffer in net.buffers()]

    before = state()
    net(images())
    after = state()
    # A matrix of one row has found its vectors at once.
    assert sum(not torch.equal(one, other) for one, other in zip(before, after)) >= 8
    with torch.no_grad():
        net(images())
    assert not all(torch.equal(one, other) for one, other in zip(after, state())), "without gradients too, as torch"
    net.eval()
    before = state()
    torch.testing.assert_close(net(images()), net(images()))
    torch.func.grad(lambda x: net.train()(x).sum())(images())
    assert all(torch.equal(one, other) for one, other in zip(before, state()))


def test_evaluation_then_training_then_backward():
    """A pass in training changes what is held, and must not change what a pass before it goes backward with."""
    net = SpectralNorm(network())
    expected = copy.deepcopy(net).eval()
    expected(images()).sum().backward()
    total = net.eval()(images()).sum()
    net.train()(images(1))
    total.backward()
    for one, other in zip(net.parameters(), expected.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


def test_second_order():
    net = SpectralNorm(network()).eval()
    torchs = judge(net).eval()
    gradients = []
    for module in (net, torchs):
        x = images().requires_grad_()
        (gradient,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()
        gradients.append(gradient.detach())
    torch.testing.assert_close(*gradients)
    for index, (stack, place) in places(net).items():
        expected = torchs[index].parametrizations.weight.original.grad
        torch.testing.assert_close(net.weights[stack].grad[place], expected)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_as_one_graph(training):
    layers = nn.Conv2d(2, 2, 3, padding=1), nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(75, 1)
    net = SpectralNorm(nn.Sequential(*layers).double()).train(training)
    nets = [net, copy.deepcopy(net)]

    def step(net, x, y):
        return (net(x).square() - net(y)).mean()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        losses = [function(net, images(seed), images(9)) for function, net in zip((compiled, step), nets)]
        torch.testing.assert_close(*losses)
        for loss in losses:
            loss.backward()
    for one, other in zip(nets[0].parameters(), nets[1].parameters()):
        torch.testing.assert_close(one.grad, other.grad)
    for one, other in zip(nets[0].buffers(), nets[1].buffers()):
        torch.testing.assert_close(one, other)


def test_state_dict_copies_and_averages():
    net = SpectralNorm(network())
    for seed in range(3):
        net(images(seed)).sum().backward()
    other = SpectralNorm(network())
    other.load_state_dict(net.state_dict())
    twin = copy.deepcopy(net)
    average = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    average.update_parameters(net)
    net.eval(), other.eval(), twin.eval(), average.eval()
    for module in (other, twin, average):
        assert torch.equal(module(images()), net(images()))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(other(images()), net(images())) and not torch.equal(twin(images()), net(images()))


def test_remove():
    net = SpectralNorm(network())
    net(images())
    plain = net.remove()
    assert {name: p.shape for name, p in plain.named_parameters()} == {
        name: p.shape for name, p in network().named_parameters()
    }
    net.eval()
    torch.testing.assert_close(plain(images()), net(images()))
    plain(images()).sum().backward()
    assert all(p.grad is not None for p in plain.parameters()) and net.weights[0].grad is None
    net.train()(images())


def test_shared_weights_stay_shared():
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    two.weight = one.weight
    net = SpectralNorm(nn.Sequential(one, nn.Tanh(), two, one))
    assert [tuple(weight.shape) for weight in net.weights] == [(1, 4, 4)]
    x = torch.randn(2, 4)
    plain = net.remove()
    assert plain[0].weight is plain[2].weight and plain[0] is plain[3]
    torch.testing.assert_close(plain(x), net.eval()(x))


def test_one_layer_and_other_kinds():
    layer = nn.Linear(4, 3)
    weight = layer.weight.detach().clone()
    net = SpectralNorm(layer).eval()
    torch.testing.assert_close(net.remove().weight.detach(), weight / net.sigma()[""])
    both = nn.ModuleDict({"table": nn.Embedding(5, 4), "last": nn.Linear(4, 5)})
    assert len(SpectralNorm(copy.deepcopy(both)).weights) == 1
    wrapped = SpectralNorm(both, kinds=(nn.Linear, nn.Embedding))
    assert [tuple(weight.shape) for weight in wrapped.weights] == [(2, 5, 4)] or len(wrapped.weights) == 2


def test_autocast_and_keywords():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, *, scale):
            return self.layer(x) * scale

    net = SpectralNorm(Scaled()).eval()
    x = torch.randn(2, 4)
    expected = net(x, scale=2.0)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(x, scale=2.0)
    assert outputs.dtype == torch.bfloat16 and all(part.dtype == torch.float32 for part in net.state_dict().values())
    torch.testing.assert_close(outputs.float(), expected, rtol=0.02, atol=0.02)
    half = net.bfloat16().train()
    assert half(x.bfloat16(), scale=1.0).isfinite().all()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: SpectralNorm(nn.Tanh()), ValueError, "SpectralNorm: module must have a layer among Linear, Conv1d"),
        (lambda: SpectralNorm(torch.zeros(3)), TypeError, "module must be a torch.nn.Module; got Tensor"),
        (lambda: SpectralNorm(SpectralNorm(nn.Linear(2, 2))), ValueError, "layer 'module' .Linear. has none"),
        (lambda: SpectralNorm(parametrizations.weight_norm(nn.Linear(2, 2))), ValueError, "the ParametrizedLinear has"),
        (lambda: SpectralNorm(nn.Sequential(nn.LazyLinear(2))), ValueError, "layer '0' .LazyLinear. has none"),
        (lambda: SpectralNorm(nn.Sequential(zeros())), ValueError, "a singular value above 0; '0' has none"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()


def orthogonal(module):
    """Singular values of 3, which one step of the power method finds."""
    if "Conv" in type(module).__name__ or "Linear" in type(module).__name__:
        nn.init.orthogonal_(module.weight.data, gain=3.0)


def initialised_by_hand(net):
    for layer in net.module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(layer.weight, gain=3.0)


@pytest.mark.parametrize("initialise", [lambda net: net.apply(orthogonal), initialised_by_hand])
@pytest.mark.parametrize("train", [True, False])
def test_an_initialisation_of_the_layers_reaches_the_network(initialise, train):
    layers = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 4)
    net, x = SpectralNorm(nn.Sequential(*layers)).train(train), torch.randn(3, 2, 5, 5)
    before, random = net(x), torch.get_rng_state()
    assert net.module[0].weight.shape == (8, 2, 3, 3) and not list(net.module[0].named_parameters())[1:]
    torch.manual_seed(7)
    initialise(net)
    torch.manual_seed(7)
    plain = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    judge = plain.load_state_dict(net.remove().state_dict()) and plain
    torch.manual_seed(7)
    for layer in judge:
        orthogonal(layer)
        if hasattr(layer, "weight"):
            layer.weight.data /= 3.0
    torch.testing.assert_close(net(x), judge(x))
    assert not torch.equal(net(x), before)
    assert all(sigma == pytest.approx(3.0, rel=1e-4) for sigma in net.sigma().values())
    torch.set_rng_state(random)


def test_layers_are_called_through_the_wrapper():
    net, x = SpectralNorm(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))), torch.randn(2, 4)
    for call in (net.module, net.module[0], copy.deepcopy(net.module)):
        with pytest.raises(RuntimeError, match="its layers must be called through it.*; got a call of a Linear"):
            call(x)

    class Within(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return checkpoint(self.layer, x, use_reentrant=False)

    with pytest.raises(RuntimeError, match="with torch.utils.checkpoint around it and not within"):
        SpectralNorm(Within())(x).sum().backward()
    plain = net.eval().remove()
    torch.testing.assert_close(plain(x), net(x))
    net.module[2].weight = nn.Parameter(torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="the weight of a layer must be changed in place; that of layer '2' was"):
        net(x)
