"""`spectral_norm` beside torch's own: weights, gradients, u and v after several passes, state dicts both ways."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm as of_torch
from torch.utils.checkpoint import checkpoint

from genfast.compat.parametrizations import spectral_norm

LAYERS = {
    "linear": (lambda: nn.Linear(5, 7), (3, 5)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 4, 4)),
    "embedding": (lambda: nn.Embedding(6, 5), None),
}


def pair(name, **options):
    """torch's layer and ours, with one state."""
    plain = LAYERS[name][0]()
    theirs, mine = of_torch(copy.deepcopy(plain), **options), spectral_norm(copy.deepcopy(plain), **options)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_torchs(name, steps):
    theirs, mine = pair(name, n_power_iterations=steps)
    size = LAYERS[name][1]
    x = torch.randn(size) if size else torch.tensor([0, 3, 3])
    for training in (True, True, False):
        outputs = [layer.train(training)(x) for layer in (theirs, mine)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
        gradients = [
            torch.autograd.grad(y.square().sum(), layer.parametrizations.weight.original)[0]
            for y, layer in zip(outputs, (theirs, mine))
        ]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    theirs.load_state_dict(mine.state_dict())


def test_two_passes_before_one_backward():
    theirs, mine = pair("linear")
    x, y = torch.randn(3, 5), torch.randn(3, 5)
    gradients = []
    for layer in (theirs, mine):
        (layer(x).sum() - layer(y).square().sum()).backward()
        gradients.append(layer.parametrizations.weight.original.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-5)


def test_a_pass_that_checkpoint_repeats_takes_no_further_step():
    _, mine = pair("linear")
    again, x = copy.deepcopy(mine), torch.randn(3, 5)
    mine(x).square().sum().backward()
    checkpoint(again, x, use_reentrant=False).square().sum().backward()
    for key, value in mine.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert torch.equal(again.parametrizations.weight.original.grad, mine.parametrizations.weight.original.grad)


def test_a_new_weight_has_its_largest_singular_value():
    layer = spectral_norm(nn.Linear(20, 30)).eval()
    assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1, abs=0.05)
    vector = spectral_norm(nn.Linear(20, 30), "bias")
    assert float(vector.bias.detach().norm()) == pytest.approx(1, abs=1e-5)


def test_a_half_module_keeps_its_vectors():
    layer = spectral_norm(nn.Linear(4, 4)).to(torch.bfloat16)
    assert layer.parametrizations.weight[0]._u.dtype == torch.float32
    assert layer(torch.randn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options, error", [({"name": "weights"}, "name"), ({"eps": 1e-6}, "eps"), ({"dim": 2}, "dim"), ({"dim": -3}, "dim")]
)
def test_refusals(options, error):
    with pytest.raises(ValueError, match=f"spectral_norm: {error} must be .*; got"):
        spectral_norm(nn.Linear(2, 2), **options)
    with pytest.raises(ValueError, match="n_power_iterations must lie in"):
        spectral_norm(nn.Linear(2, 2), n_power_iterations=0)
