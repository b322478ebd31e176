"""The layers of vector quantisation: learning by means and by gradients, restarts, and one codebook on all ranks."""

import pytest
import torch
from support.ranks import run_two_ranks

from genfast.nn import ResidualVectorQuantizer, VectorQuantizer


def vectors(n=60, features=3, seed=0):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


def quantizer(codes=5, features=3, **options):
    torch.manual_seed(1)
    return VectorQuantizer(codes, features, **options)


@pytest.mark.parametrize("ema", [True, False])
def test_images_are_their_vectors(ema):
    x = torch.randn(2, 3, 4, 5)
    layer = quantizer(ema=ema).eval()
    quantized, codes, loss = layer(x)
    assert (quantized.shape, codes.shape, loss.shape) == (x.shape, (2, 4, 5), ())
    flat, flat_codes, flat_loss = layer(x.permute(0, 2, 3, 1).reshape(-1, 3))
    assert torch.equal(quantized.permute(0, 2, 3, 1).reshape(-1, 3), flat)
    assert torch.equal(codes.flatten(), flat_codes) and torch.equal(loss, flat_loss)
    assert torch.equal(layer.lookup(codes), quantized) and torch.equal(layer.lookup(flat_codes), flat)
    assert torch.equal(layer.encode(x), codes) and torch.equal(layer.encode(flat), flat_codes)


def test_codes_are_the_nearest():
    x, layer = vectors(), quantizer().eval()
    distances = torch.cdist(x.double(), layer.codebook.double())
    assert torch.equal(layer(x)[1], distances.argmin(1))


def test_gradient_goes_straight_through_and_to_the_commitment():
    x, layer = vectors(7).requires_grad_(), quantizer(commitment=0.5)
    direction = torch.randn(7, 3)
    quantized, _, loss = layer(x)
    (gradient,) = torch.autograd.grad((quantized * direction).sum(), x, retain_graph=True)
    assert torch.equal(gradient, direction)
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(gradient, 0.5 * 2 * (x - quantized.detach()).detach() / x.numel())


def test_a_codebook_of_gradients_moves_to_its_vectors():
    x, layer = vectors(40), quantizer(4, ema=False, commitment=0.0)
    assert isinstance(layer.codebook, torch.nn.Parameter)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    losses = []
    for _ in range(200):
        _, codes, loss = layer(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    used = codes.unique()
    means = torch.stack([x[codes == k].mean(0) for k in used])
    torch.testing.assert_close(layer.codebook[used].detach(), means, atol=0.05, rtol=0)


def test_moving_means_are_those_of_the_paper():
    layer = quantizer(restart=0.0, from_batch=False, decay=0.9, epsilon=1e-3)
    codebook = layer.codebook.double()
    counts = torch.full((5,), 60 / 5, dtype=torch.float64)
    sums = codebook * counts[:, None]
    for step in range(4):
        x = vectors(seed=step)
        codes = torch.cdist(x.double(), codebook).argmin(1)
        assert torch.equal(layer(x)[1], codes)
        for k in range(5):
            counts[k] = 0.9 * counts[k] + 0.1 * (codes == k).sum()
            sums[k] = 0.9 * sums[k] + 0.1 * x.double()[codes == k].sum(0)
        smooth = (counts + 1e-3) / (counts.sum() + 5 * 1e-3) * counts.sum()
        codebook = sums / smooth[:, None]
        torch.testing.assert_close(layer.codebook.double(), codebook, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.counts.double(), counts, atol=1e-4, rtol=1e-5)


def rows_found(rows, among):
    return [int((among == row).all(1).nonzero()[0]) if (among == row).all(1).any() else -1 for row in rows]


@pytest.mark.parametrize("ema", [True, False])
def test_the_first_batch_gives_the_codes(ema):
    x, layers = vectors(), [quantizer(6, ema=ema, decay=0.0 if not ema else 0.99) for _ in range(2)]
    codebooks = []
    for layer in layers:
        torch.manual_seed(5)
        before = layer.codebook.detach().clone()
        layer._restart(x, torch.rand(6, dtype=torch.float64))
        places = rows_found(layer.codebook, x)
        assert -1 not in places and len(set(places)) == 6 and not torch.equal(before, layer.codebook)
        codebooks.append(layer.codebook.detach().clone())
        layer._restart(vectors(seed=9), torch.rand(6, dtype=torch.float64))
        assert torch.equal(layer.codebook, codebooks[-1]), "only the first batch"
    assert torch.equal(*codebooks)
    torch.manual_seed(6)
    other = quantizer(6, ema=ema)
    torch.manual_seed(7)
    other._restart(x, torch.rand(6, dtype=torch.float64))
    assert not torch.equal(other.codebook, codebooks[0]), "the draw follows torch's generator"


def test_fewer_vectors_than_codes():
    x, layer = vectors(3), quantizer(8)
    layer(x)
    assert layer.codebook.isfinite().all() and set(layer(x)[1].tolist()) <= set(range(8))


@pytest.mark.parametrize("ema", [True, False])
def test_a_dead_code_begins_anew(ema):
    layer = quantizer(4, ema=ema, decay=0.5, restart=0.2)
    torch.manual_seed(3)
    centres = torch.tensor([[0.0, 0, 0], [8, 0, 0], [0, 8, 0], [0, 0, 8]])
    x = centres.repeat(10, 1) + 0.01 * vectors(40)
    layer(x)
    with torch.no_grad():
        layer.codebook.copy_(centres)
        layer.codebook[2] = 1000.0  # nothing is near
        if ema:
            layer.sums.copy_(layer.codebook * layer.counts[:, None])
    lowest, replaced = 1.0, False
    for _ in range(8):
        layer(x)
        lowest = min(lowest, float(layer.counts[2] / layer.counts.mean()))
        replaced |= bool(layer.codebook[2].abs().max() < 20)
    assert replaced and lowest < 0.6
    frozen = quantizer(4, ema=ema, decay=0.5, restart=0.0, from_batch=False)
    with torch.no_grad():
        frozen.codebook[2] = 1000.0
    for _ in range(8):
        frozen(x)
    assert frozen.codebook[2].abs().max() > 20, "without restarts it stays away"


def test_all_codes_come_into_use():
    """Of codes that all begin in one place, where one alone would be used for ever."""
    layer = quantizer(16, decay=0.8, from_batch=False, restart=0.3)
    layer.codebook.copy_(50 + 0.001 * layer.codebook)
    for step in range(60):
        codes = layer(vectors(400, seed=step))[1]
    assert len(codes.unique()) == 16 and layer.perplexity > 10


def test_evaluation_changes_nothing():
    layer = quantizer()
    layer(vectors())
    layer.eval()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    random = torch.get_rng_state()
    layer(vectors(seed=1))
    layer.encode(vectors(seed=1))
    assert all(torch.equal(state[name], value) for name, value in layer.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert {value.dtype for value in state.values()} == {torch.float32}, "one dtype, as model files have"


def test_two_passes_before_one_backward():
    """As with accumulated gradients: the second pass changes the codebook that the first one used."""
    for ema in (True, False):
        layer, x = quantizer(ema=ema), vectors().requires_grad_()
        loss = layer(x)[2] + layer(x.flip(0))[2]
        loss.backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("ema", [True, False])
def test_an_empty_batch(ema):
    layer = quantizer(ema=ema)
    before = layer.codebook.detach().clone()
    quantized, codes, loss = layer(torch.zeros(0, 3))
    assert (quantized.shape, codes.shape, float(loss.detach())) == ((0, 3), (0,), 0.0)
    assert torch.equal(before, layer.codebook)
    layer(vectors())
    counts = layer.counts.clone()
    assert layer(torch.zeros(0, 3, 2, 2))[1].shape == (0, 2, 2)
    assert layer.codebook.isfinite().all() and (layer.counts <= counts).all()
    assert rows_found(layer.codebook, before) == [-1] * 5, "the first batch that has vectors gives the codes"


@pytest.mark.parametrize("ema", [True, False])
def test_a_batch_that_is_not_finite_leaves_no_trace(ema):
    layer, x = quantizer(ema=ema), vectors()
    layer(x)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    broken = x.clone()
    broken[::7] = float("nan")
    layer(broken)
    assert all(torch.equal(state[name], value) for name, value in layer.state_dict().items())


def test_perplexity():
    layer = quantizer(4)
    layer.counts.copy_(torch.tensor([3.0, 3, 3, 3]))
    assert float(layer.perplexity) == pytest.approx(4)
    layer.counts.copy_(torch.tensor([5.0, 5, 0, 0]))
    assert float(layer.perplexity) == pytest.approx(2)


def test_half_precision_around_it():
    layer, x = quantizer(), vectors()
    layer(x)
    layer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x)[1], layer.encode(x)), "distances in float32"
        codes = layer(x)[1]
    assert torch.equal(codes, layer(x)[1])


@pytest.mark.parametrize("train", [True, False])
def test_compiles_as_one_graph(train):
    layers = [quantizer().train(train) for _ in range(2)]
    outputs = []
    for layer in (layers[0], torch.compile(layers[1], fullgraph=True, backend="eager")):
        torch.manual_seed(2)
        outputs.append([part for seed in range(2) for part in layer(vectors(seed=seed))])
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other)


def test_residual_codebooks():
    torch.manual_seed(0)
    layer, x = ResidualVectorQuantizer(3, 8, 3, decay=0.9), torch.randn(4, 3, 5, 5)
    for _ in range(20):
        layer(x)
    layer.eval()
    quantized, codes, loss = layer(x)
    assert codes.shape == (4, 3, 5, 5) and torch.equal(layer.encode(x), codes)
    assert torch.equal(layer.lookup(codes), quantized)
    errors, rest = [], x
    for stage in layer.stages:
        rest = rest - stage(rest)[0]
        errors.append(float(rest.square().mean()))
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert float(loss) == pytest.approx(0.25 * sum(errors) / 3, rel=1e-4)
    flat = layer(x.permute(0, 2, 3, 1).reshape(-1, 3))
    assert torch.equal(flat[1], codes.permute(0, 2, 3, 1).reshape(-1, 3))
    assert float(layer.perplexity) == pytest.approx(float(sum(s.perplexity for s in layer.stages) / 3))
    x.requires_grad_()
    direction = torch.randn_like(x)
    (gradient,) = torch.autograd.grad((layer(x)[0] * direction).sum(), x)
    assert torch.equal(gradient, direction)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: VectorQuantizer(0, 3), ValueError, "codes must be at least 1; got 0"),
        (lambda: VectorQuantizer(True, 3), TypeError, "codes must be an int"),
        (lambda: VectorQuantizer(4, 3, decay=1.0), ValueError, r"decay must lie in \[0, 1\); got 1.0"),
        (lambda: VectorQuantizer(4, 3, commitment=-1.0), ValueError, "commitment must be at least 0"),
        (lambda: ResidualVectorQuantizer(0, 4, 3), ValueError, "stages must be at least 1"),
        (lambda: quantizer()(torch.zeros(2, 4)), ValueError, r"x must have shape .* with D=3; got \(2, 4\)"),
        (lambda: quantizer()(torch.zeros(2, 3, 4)), ValueError, "x must have shape"),
        (lambda: quantizer()(torch.zeros(2, 3, dtype=torch.int64)), TypeError, "x must be a float tensor"),
        (lambda: quantizer().lookup(torch.tensor([5])), ValueError, r"codes must lie in 0\.\.4; got 5"),
        (lambda: quantizer().lookup(torch.tensor([-1])), ValueError, r"codes must lie in 0\.\.4; got -1"),
        (lambda: quantizer().lookup(torch.tensor([0.0])), TypeError, "codes must be torch.int64"),
        (lambda: quantizer().lookup(torch.zeros(2, 2, dtype=torch.int64)), ValueError, "dimensions"),
        (
            lambda: ResidualVectorQuantizer(2, 4, 3).lookup(torch.zeros(2, 3, dtype=torch.int64)),
            ValueError,
            r"with Q=2; got \(2, 3\)",
        ),
    ],
)
def test_bad_input(make, error, text):
    with pytest.raises(error, match=text):
        make()


RANK = """
import sys, torch
from torch import distributed
from genfast.nn import VectorQuantizer

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)

def same(tensor):
    parts = [torch.empty_like(tensor) for _ in range(2)]
    distributed.all_gather(parts, tensor.detach().contiguous())
    return torch.equal(*parts)

def batch(step, rank):
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(2 * step + rank))

for ema in (True, False):
    torch.manual_seed(0)
    layer = VectorQuantizer(8, 3, ema=ema, decay=0.5, restart=0.5)
    torch.manual_seed(rank)  # every rank has its own numbers, as with dropout
    sources = set()
    for step in range(6):
        x = batch(step, rank)
        layer(x if step != 3 or rank == 0 else x[:0])
        assert same(layer.codebook) and same(layer.counts), (ema, step)
    if not ema:
        layer = VectorQuantizer(8, 3, ema=False)
        layer._restart(batch(0, rank), torch.rand(8, dtype=torch.float64))
        held = (layer.codebook[:, None] == torch.cat((batch(0, 0), batch(0, 1)))).all(2).nonzero()[:, 1]
        assert len(held) == 8 and (held < 50).any() and (held >= 50).any(), "vectors of both ranks"

# Without draws, two ranks are one process with both batches.
torch.manual_seed(0)
options = {"decay": 0.7, "restart": 0.0, "from_batch": False}
layer, judge = (VectorQuantizer(8, 3, **options) for _ in range(2))
judge.load_state_dict(layer.state_dict())
for step in range(3):
    layer(batch(step, rank))
distributed.barrier()
distributed.destroy_process_group()
for step in range(3):
    judge(torch.cat((batch(step, 0), batch(step, 1))))
torch.testing.assert_close(layer.codebook, judge.codebook, atol=1e-5, rtol=1e-5)
torch.testing.assert_close(layer.counts, judge.counts)
"""


def test_all_ranks_have_one_codebook(tmp_path):
    run_two_ranks(RANK, tmp_path)
