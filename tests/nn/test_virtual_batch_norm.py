"""Virtual batch normalisation against a double loop over the words of the paper."""

import copy

import pytest
import torch
from torch import nn

from genfast.nn import ReferenceBatch, VirtualBatchNorm2d


def images(batch, seed=0, channels=2):
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(batch, channels, 3, 2, dtype=torch.float64, generator=generator)


def looped(x, reference, epsilon=1e-5):
    """Every x by the statistics of the reference batch and of itself; None for x: the reference by its own."""
    normalised = torch.empty_like(reference if x is None else x)
    for i, image in enumerate(normalised):
        for c in range(image.shape[0]):
            batch = [*reference] if x is None else [*reference, x[i]]
            values = [value for one in batch for value in one[c].flatten().tolist()]
            mean = sum(values) / len(values)
            square = sum(value**2 for value in values) / len(values)
            given = (reference if x is None else x)[i, c]
            normalised[i, c] = (given - mean) / (square - mean**2 + epsilon) ** 0.5
    return normalised


def layer(channels=2):
    torch.manual_seed(2)
    norm = VirtualBatchNorm2d(channels).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return norm


def network():
    torch.manual_seed(1)
    first, last = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
    return nn.Sequential(first, VirtualBatchNorm2d(3), nn.Tanh(), last, VirtualBatchNorm2d(2)).double()


@pytest.mark.parametrize("batch", [1, 4])
def test_formula(batch):
    reference, x, plain = images(5), images(batch, seed=1), layer()
    net = ReferenceBatch(plain, reference)
    weight, bias = plain.weight.view(-1, 1, 1), plain.bias.view(-1, 1, 1)
    torch.testing.assert_close(net(x), looped(x, reference) * weight + bias)
    both = plain(torch.cat((reference, x)))
    torch.testing.assert_close(both[:5], looped(None, reference) * weight + bias)


def test_a_network_takes_the_reference_batch_along():
    reference, x, plain = images(4), images(3, seed=1), network()
    net = ReferenceBatch(plain, reference)
    values, outputs = reference, x
    for part in plain:
        if isinstance(part, VirtualBatchNorm2d):
            outputs, values = looped(outputs.detach(), values.detach()), looped(None, values.detach())
        else:
            outputs, values = part(outputs), part(values)
    torch.testing.assert_close(net(x), outputs)


def test_neighbours_do_not_matter():
    net = ReferenceBatch(network(), images(4))
    x = images(5, seed=1)
    together = net(x)
    for index in range(5):
        torch.testing.assert_close(net(x[index : index + 1])[0], together[index])
    assert not torch.allclose(ReferenceBatch(network(), images(4, seed=7))(x), together), "the reference batch does"


def test_gradients_flow_through_the_statistics():
    reference = images(3)

    def function(x, weight):
        net = nn.Conv2d(2, 2, 1, bias=False).double()
        whole = ReferenceBatch(nn.Sequential(net, VirtualBatchNorm2d(2).double()), reference)
        return torch.func.functional_call(whole, {"network.0.weight": weight}, (x,))

    weight = torch.randn(2, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    inputs = images(2, seed=1).requires_grad_(), weight
    assert torch.autograd.gradcheck(function, inputs) and torch.autograd.gradgradcheck(function, inputs)
    (through,) = torch.autograd.grad(function(*inputs).square().sum(), weight)
    # Of one weight for all channels the scale is normalised away: its gradient is 0 through the statistics alone.
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    base = weight.detach()
    (flat,) = torch.autograd.grad(function(images(2, seed=1), base * scale).square().sum(), scale)
    assert through.abs().max() > 1e-3 and flat.abs() < 1e-3


def test_two_passes_one_backward_and_the_next_step():
    net = ReferenceBatch(network(), images(4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        (net(images(3, seed)).square().mean() - net(images(2, seed + 9)).mean()).backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()


def test_large_values_keep_their_digits():
    reference, x = images(5).float() + 4096, images(2, seed=1).float() + 4096
    outputs = ReferenceBatch(VirtualBatchNorm2d(2), reference)(x)
    torch.testing.assert_close(outputs.double(), looped(x.double(), reference.double()), rtol=1e-3, atol=1e-3)


def test_labels_beside_the_images():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = nn.Embedding(4, 2), VirtualBatchNorm2d(2)

        def forward(self, x, labels):
            normalised = self.norm(x + self.table(labels)[:, :, None, None])
            return normalised, normalised.mean((1, 2, 3))

    net = ReferenceBatch(Conditional().double(), images(4), torch.tensor([0, 1, 2, 3]))
    normalised, score = net(images(3, seed=1), torch.tensor([2, 2, 0]))
    assert normalised.shape == (3, 2, 3, 2) and score.shape == (3,)
    torch.testing.assert_close(score, normalised.mean((1, 2, 3)))


def test_saved_copied_and_compiled():
    net, other = ReferenceBatch(network(), images(4)), ReferenceBatch(network(), images(4, seed=5))
    x = images(3, seed=1)
    assert not torch.allclose(other(x), net(x))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), net(x)) and torch.equal(copy.deepcopy(net)(x), net(x))
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), net(x))
    half = ReferenceBatch(VirtualBatchNorm2d(2), images(4).float())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = half(x.bfloat16())
    assert outputs.isfinite().all()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: VirtualBatchNorm2d(2)(torch.zeros(3, 2, 4, 4)), RuntimeError, "wrap the network in ReferenceBatch"),
        (lambda: VirtualBatchNorm2d(0), ValueError, "features must be an int of at least 1; got 0"),
        (lambda: VirtualBatchNorm2d(2, epsilon=0.0), ValueError, "epsilon must be above 0; got 0.0"),
        (lambda: ReferenceBatch(network(), images(1)), ValueError, "reference must hold at least 2 images .*; got 1"),
        (lambda: ReferenceBatch(network()), ValueError, "reference must be a tensor"),
        (lambda: ReferenceBatch(network(), images(3), torch.zeros(2)), ValueError, "got 3, 2"),
        (lambda: ReferenceBatch(nn.Tanh(), images(3)), ValueError, "must have a VirtualBatchNorm2d layer"),
        (lambda: ReferenceBatch(network(), images(3))(images(1), images(1)), ValueError, "expected 1 inputs; got 2"),
        (
            lambda: ReferenceBatch(network(), images(3))(images(2, channels=1)),
            ValueError,
            r"an input must have shape \[B, 2, 3, 2\]; got \(2, 1, 3, 2\)",
        ),
        (lambda: ReferenceBatch(network(), images(3))(images(2).byte()), TypeError, "must have dtype torch.float64"),
        (
            lambda: ReferenceBatch(VirtualBatchNorm2d(3), images(3))(images(2)),
            ValueError,
            r"x must have shape \[n \+ B, C, H, W\] with n=3, C=3",
        ),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
