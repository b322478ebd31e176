"""`VectorQuantize` beside vector-quantize-pytorch where it is installed, else beside its formulas: codes, outputs,
gradients, and the codebook after several steps of training."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from genfast.compat.vector_quantize_pytorch import VectorQuantize

CASES = {
    "plain": ({"dim": 6, "codebook_size": 8}, (3, 5, 6)),
    "straight through": ({"dim": 6, "codebook_size": 8, "rotation_trick": False, "commitment_weight": 0.3}, (3, 5, 6)),
    "one vector each": ({"dim": 6, "codebook_size": 8, "decay": 0.9}, (7, 6)),
    "image": ({"dim": 6, "codebook_size": 8, "accept_image_fmap": True}, (2, 6, 4, 5)),
    "channels first": ({"dim": 6, "codebook_size": 8, "channel_last": False}, (2, 6, 7)),
    "projected": ({"dim": 6, "codebook_size": 8, "codebook_dim": 3}, (2, 5, 6)),
    "k-means": ({"dim": 6, "codebook_size": 8, "kmeans_init": True, "kmeans_iters": 4}, (4, 9, 6)),
    "k-means of few": ({"dim": 6, "codebook_size": 8, "kmeans_init": True}, (1, 5, 6)),
    "dead codes": ({"dim": 6, "codebook_size": 16, "threshold_ema_dead_code": 2}, (2, 20, 6)),
    "more dead than vectors": ({"dim": 6, "codebook_size": 32, "threshold_ema_dead_code": 2}, (1, 5, 6)),
    "frozen": ({"dim": 6, "codebook_size": 8, "freeze_codebook": True}, (2, 5, 6)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_original(name):
    original = pytest.importorskip("vector_quantize_pytorch")
    options, size = CASES[name]
    torch.manual_seed(0)
    theirs, mine = original.VectorQuantize(**options), VectorQuantize(**options)
    mine.load_state_dict(theirs.state_dict())
    inputs = torch.randn(4, *size)
    for step, x in enumerate(inputs):
        results = []
        for layer in (theirs, mine):
            torch.manual_seed(step)
            given = x.clone().requires_grad_()
            quantized, indices, loss = layer(given)
            total = (quantized * torch.linspace(-1, 1, quantized.numel()).view(quantized.shape)).sum() + 3 * loss
            results.append((quantized, indices, loss, *torch.autograd.grad(total, given)))
        assert torch.equal(results[0][1], results[1][1])
        for other, value in zip(*results):
            torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5)
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=1e-5, atol=1e-5)
    theirs.eval(), mine.eval()
    for other, value in zip(theirs(inputs[0]), mine(inputs[0])):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-5)
    indices = mine(inputs[0])[1]
    torch.testing.assert_close(mine.get_output_from_indices(indices), theirs.get_output_from_indices(indices))
    torch.testing.assert_close(mine.get_codes_from_indices(indices), theirs.get_codes_from_indices(indices))
    theirs.load_state_dict(mine.state_dict())


def test_formulas():
    """Without the package: the nearest codes, the loss, both gradients and the averages of the docstring."""
    layer = VectorQuantize(3, 5, decay=0.7, commitment_weight=2.0, rotation_trick=False)
    codebook, x = layer.codebook.clone(), torch.randn(2, 6, 3).requires_grad_()
    quantized, indices, loss = layer(x)
    flat = x.detach().view(-1, 3)
    expected = torch.cdist(flat, codebook).argmin(1)
    assert torch.equal(indices.flatten(), expected)
    torch.testing.assert_close(quantized.detach().view(-1, 3), codebook[expected])
    torch.testing.assert_close(loss.detach(), 2 * (flat - codebook[expected]).square().mean())
    (gradient,) = torch.autograd.grad(quantized.sum() + loss, x)
    torch.testing.assert_close(gradient.view(-1, 3), 1 + 4 * (flat - codebook[expected]) / flat.numel())
    chosen = torch.nn.functional.one_hot(expected, 5).float()
    counts, sums = 0.7 + 0.3 * chosen.sum(0), 0.7 * codebook + 0.3 * chosen.T @ flat
    smoothed = (counts + 1e-5) / (counts.sum() + 5e-5) * counts.sum()
    torch.testing.assert_close(layer.codebook, sums / smoothed[:, None])


def test_the_rotation():
    """The Jacobian is |q| / |x| times the rotation that takes x to q: it keeps angles, and has no other scale."""
    layer = VectorQuantize(4, 6).train()
    x = torch.randn(1, 1, 4)
    code = layer.codebook[layer.eval()(x)[1].item()].clone()
    jacobian = torch.autograd.functional.jacobian(lambda x: copy.deepcopy(layer).train()(x)[0].flatten(), x).view(4, 4)
    scale = code.norm() / x.norm()
    torch.testing.assert_close(jacobian @ jacobian.T, scale**2 * torch.eye(4), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(jacobian @ x.flatten(), code, rtol=1e-4, atol=1e-5)


def test_a_half_module_learns_in_float32():
    layer = VectorQuantize(4, 6).to(torch.bfloat16)
    assert layer.codebook.dtype == torch.float32
    quantized, _, _ = layer(torch.randn(2, 3, 4, dtype=torch.bfloat16))
    assert quantized.dtype == torch.bfloat16


def test_refusals():
    for name, value in (("heads", 2), ("use_cosine_sim", True), ("learnable_codebook", True), ("affine_param", True)):
        with pytest.raises(ValueError, match=f"VectorQuantize: {name} must be .*; got {value}"):
            VectorQuantize(4, 6, **{name: value})
    with pytest.raises(TypeError, match="arguments must be those of the original; got 'codes'"):
        VectorQuantize(4, 6, codes=3)
    layer, x = VectorQuantize(4, 6), torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match="VectorQuantize: mask must be None"):
        layer(x, mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"x must have shape \[B, D\] or \[B, N, D\] with D=4; got \(2, 4, 3\)"):
        layer(x.mT)
    with pytest.raises(ValueError, match="indices must lie in 0 .. 5"):
        layer.get_codes_from_indices(torch.tensor([[6]]))
    network = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match="torch.utils.checkpoint"):
        checkpoint(lambda x: layer(network(x))[0], x, use_reentrant=False).sum().backward()


def test_every_option_of_the_original_is_known():
    """None of them is a TypeError, so that a program's arguments are either served or refused by what they ask for."""
    original = pytest.importorskip("vector_quantize_pytorch")
    for function, call in (
        (original.VectorQuantize.__init__, lambda **options: VectorQuantize(4, 6, **options)),
        (original.VectorQuantize.forward, lambda **options: VectorQuantize(4, 6)(torch.randn(2, 3, 4), **options)),
    ):
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in ("self", "dim", "codebook_size", "x"):
                call(**{name: parameter.default})
