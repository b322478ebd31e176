"""What holds for every layer, found by the example of its docstring: copies, casts, the meta device, checkpoints."""

import ast
import copy
import importlib
import io
import pickle
import pkgutil
import re

import pytest
import torch
from support.ranks import run_two_ranks
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import genfast.nn
from genfast import losses


def evaluated(node, scope):
    return eval(compile(ast.Expression(node), "example", "eval"), scope)


def example(text, scope):
    """A function that makes the layer of an example, and one that makes its inputs."""
    call = ast.parse(text, mode="eval").body
    return lambda: evaluated(call.func, scope), lambda: [evaluated(arg, scope) for arg in call.args]


def examples():
    found = {}
    for info in pkgutil.iter_modules(genfast.nn.__path__, "genfast.nn."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            own = isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == info.name
            if own and not name.startswith("_"):
                text = re.search("Example: `(.*)`", value.__doc__)[1]
                found[name] = text, vars(module)
    assert {name for name in genfast.nn.__all__ if isinstance(getattr(genfast.nn, name), type)} <= found.keys()
    scope = {name: value for _, held in found.values() for name, value in held.items()} | {"torch": torch, "nn": nn}
    # Colours have masks that grey images do without; options that have a state of their own.
    more = {
        "colours of MaskedConv2d": 'MaskedConv2d(3, 6, 3, "A", 3)(torch.randn(2, 3, 5, 4))',
        "colours of RowLSTM": "RowLSTM(6, 3, 3)(torch.randn(2, 6, 5, 4))",
        "colours of DiagonalBiLSTM": "DiagonalBiLSTM(6, 3, 3)(torch.randn(2, 6, 5, 4))",
        "colours of ResidualDiagonalBlock": "ResidualDiagonalBlock(3, 3, dropout=0.5)(torch.randn(2, 6, 5, 4))",
        "colours of GatedStackLayer": 'GatedStackLayer(6, 6, 3, 3, "B", 3, 0, 0.5)(x := torch.randn(2, 6, 5, 4), x)',
        "a filter of 3 taps": "Blur2d((1, 1, 1))(torch.randn(2, 3, 5, 4))",
        "a codebook of gradients": "VectorQuantizer(8, 3, ema=False, restart=0.5)(torch.randn(40, 3))",
        "a codebook that restarts": "VectorQuantizer(8, 3, decay=0.5, restart=0.5)(torch.randn(40, 3))",
        "two shapes of weights": "SpectralNorm(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(36, 36), "
        "nn.Linear(36, 36)))(torch.randn(2, 2, 5, 5))",
    }
    return {name: example(text, scope) for name, text in {**{n: t for n, (t, _) in found.items()}, **more}.items()}


EXAMPLES = examples()
every_layer = pytest.mark.parametrize("name", EXAMPLES)


def trained(name):
    """A layer after two passes in training, and inputs."""
    make, inputs = EXAMPLES[name]
    layer, inputs = make(), inputs()
    for scale in (1.0, 1.5):
        layer(*(x * scale if x.is_floating_point() else x for x in inputs))
    return layer, inputs


def outputs(layer, inputs):
    torch.manual_seed(3)
    found = layer(*inputs)
    return [found] if isinstance(found, Tensor) else list(found)


def floats(tensors):
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def saved_and_loaded(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(layer, other, **options):
    layer.load_state_dict(copy.deepcopy(other.state_dict()), **options)
    return layer


COPIES = {
    "deep copy": lambda layer, meta: copy.deepcopy(layer),
    "pickle": lambda layer, meta: pickle.loads(pickle.dumps(layer)),
    "torch.save": lambda layer, meta: saved_and_loaded(layer),
    "float64 and back": lambda layer, meta: copy.deepcopy(layer).double().float(),
    "AveragedModel": lambda layer, meta: torch.optim.swa_utils.AveragedModel(layer, use_buffers=True),
    "share_memory": lambda layer, meta: copy.deepcopy(layer).share_memory(),
    "to_empty": lambda layer, meta: loaded(meta.to_empty(device="cpu"), layer),
    "to_empty of what was there": lambda layer, meta: loaded(copy.deepcopy(layer).to_empty(device="cpu"), layer),
    "assign": lambda layer, meta: loaded(meta, layer, assign=True),
    "copy of a meta one": lambda layer, meta: loaded(copy.deepcopy(meta).to_empty(device="cpu"), layer),
}


@every_layer
def test_copies_are_the_layer(name):
    layer, inputs = trained(name)
    layer.eval()
    expected = outputs(layer, inputs)
    for way, copied in COPIES.items():
        with torch.device("meta"):
            meta = EXAMPLES[name][0]()
        assert all(tensor.is_meta for tensor in [*meta.parameters(), *meta.buffers()])
        got = outputs(copied(layer, meta).eval(), inputs)
        assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True)), way


def changed_in_training(layer, inputs):
    """The names of the floating buffers that a forward pass in training changes."""
    layer = copy.deepcopy(layer).train()
    before = copy.deepcopy(dict(layer.named_buffers()))
    layer(*(x + 0.1 if x.is_floating_point() else x for x in inputs))
    buffers = {key: buffer for key, buffer in layer.named_buffers() if buffer.is_floating_point()}
    return {key: value for key, value in buffers.items() if not torch.equal(value, before[key])}


@every_layer
def test_running_state_is_float32_in_a_half_type(name):
    layer, inputs = trained(name)
    running = changed_in_training(layer, inputs)
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(layer).to(dtype)
        buffers = dict(half.named_buffers())
        for key in running:
            assert buffers[key].dtype == torch.float32 and torch.equal(buffers[key], dict(layer.named_buffers())[key])
        got = outputs(half.train(), [x.to(dtype) if x.is_floating_point() else x for x in inputs])
        assert all(part.isfinite().all() for part in got)
        assert {b.dtype for k, b in half.named_buffers() if k in running} <= {torch.float32}
        # A file of an earlier version holds its state in the half type.
        old = {
            key: value.to(dtype) if value.is_floating_point() else value for key, value in layer.state_dict().items()
        }
        for assign in (False, True):
            half.load_state_dict(old, assign=assign)
            assert {b.dtype for k, b in half.named_buffers() if k in running} <= {torch.float32}
        assert {b.dtype for k, b in half.double().named_buffers() if k in running} <= {torch.float64}


def test_running_state_counts_what_a_half_type_cannot():
    for dtype, decay in ((torch.float16, 0.99), (torch.bfloat16, 0.999)):
        half, judge = (genfast.nn.VectorQuantizer(64, 4, decay=decay, restart=0.0) for _ in range(2))
        half.to(dtype)
        for step in range(3):
            x = torch.randn(65_536, 4).to(dtype)
            torch.manual_seed(step)
            quantized, codes, _ = half(x)
            torch.manual_seed(step)
            judge(x.float())
            assert quantized.dtype == half.lookup(codes).dtype == dtype
        assert torch.equal(half.counts, judge.counts) and torch.equal(half.codebook, judge.codebook)
        assert half.counts.sum() == pytest.approx(65_536, rel=1e-3)
    average = losses.HistoricalAverage([nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))]).bfloat16()
    assert average.mean_0.dtype == torch.float32


def gradients_and_state(layer, inputs, call):
    """Of two passes before one backward pass: losses, all gradients, buffers and the state of the random numbers."""
    layer = copy.deepcopy(layer).train()
    batches = [[x.detach().add(k).requires_grad_() if x.is_floating_point() else x for x in inputs] for k in (0, 1)]
    torch.manual_seed(5)
    parts = []
    for batch in batches:
        got = call(layer, *batch)
        got = [got] if isinstance(got, Tensor) else got
        parts += [(part * (torch.arange(part.numel()).view(part.shape) % 3)).sum() for part in floats(got)]
    torch.stack(parts).sum().backward()
    leaves = [*floats(x for batch in batches for x in batch), *layer.parameters()]
    gradients = [torch.zeros(()) if leaf.grad is None else leaf.grad for leaf in leaves]
    return [*(part.detach() for part in parts), *gradients, *layer.buffers(), torch.get_rng_state()]


@every_layer
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_changes_nothing(name, reentrant):
    """The recomputation sees the state of its forward pass, and changes none."""
    layer, inputs = trained(name)
    if not floats(inputs):
        return
    expected = gradients_and_state(layer, inputs, lambda layer, *x: layer(*x))
    got = gradients_and_state(layer, inputs, lambda layer, *x: checkpoint(layer, *x, use_reentrant=reentrant))
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("name", ["VectorQuantizer", "SpectralNorm"])
def test_a_recomputation_of_another_pass_is_an_error(name):
    layer, inputs = trained(name)
    calls = iter((0.0, 1.0))

    def other(x):
        found = layer(x + next(calls))
        return found if isinstance(found, Tensor) else found[0]

    y = checkpoint(other, inputs[0].requires_grad_(), use_reentrant=False)
    with pytest.raises(RuntimeError, match="expected the repetition of one of the last 16 forward passes"):
        y.sum().backward()


@pytest.mark.parametrize("outer", ["checkpoint", "compile"])
@pytest.mark.parametrize("name", ["VectorQuantizer", "a codebook of gradients", "SpectralNorm"])
def test_a_compiled_pass_that_is_repeated_is_an_error(name, outer):
    """It would begin with the state that it has changed."""
    layer, (x, *_) = trained(name)
    x.requires_grad_()

    def loss(x):
        found = layer(x.tanh())
        return found.square().sum() if isinstance(found, Tensor) else found[0].square().sum() + found[2]

    def repeated(x):
        return checkpoint(loss if outer == "compile" else compiled, x, use_reentrant=False)

    compiled = torch.compile(loss, backend="aot_eager")
    compiled(x).backward()
    with pytest.raises(RuntimeError, match="expected a pass that is not repeated, where torch.compile is at work"):
        (torch.compile(repeated, backend="aot_eager", fullgraph=True) if outer == "compile" else repeated)(x).backward()


@pytest.mark.parametrize("name", ["VectorQuantizer", "a codebook of gradients", "SpectralNorm", "ClassBatchNorm2d"])
def test_transforms_leave_the_state_alone(name):
    layer, inputs = trained(name)
    before = copy.deepcopy(layer.state_dict())
    torch.func.grad(lambda x: sum(part.sum() for part in floats(outputs(layer, [x, *inputs[1:]]))))(inputs[0])
    after = layer.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


RANK = """
import copy, sys, torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from genfast.nn import SpectralNorm, VectorQuantizer
from genfast.nn.class_batch_norm import ClassBatchNorm2d

rank, path = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.conv = ClassBatchNorm2d(3), SpectralNorm(nn.Conv2d(3, 3, 3, padding=1))
        self.quantizer, self.repeat = VectorQuantizer(4, 3, restart=0.0, from_batch=False), False

    def body(self, x):
        quantized, _, loss = self.quantizer(self.conv(self.norm(x)))
        return quantized.square().mean() + loss

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=False) if self.repeat else self.body(x)

torch.manual_seed(0)
start, batches = Network(), torch.randn(2, 6, 3, 4, 4)
results = []
for repeat in (False, True):
    for parallel in (False, True):
        plain = copy.deepcopy(start)
        plain.repeat = repeat
        network = DistributedDataParallel(plain) if parallel else plain
        (network(batches[0]) + 2 * network(batches[1])).backward()
        results.append([p.grad for p in plain.parameters()] + list(plain.buffers()))
for other in results[1:]:
    for one, two in zip(results[0], other, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)
distributed.destroy_process_group()
"""


def test_two_passes_of_a_network_on_two_processes(tmp_path):
    """With `DistributedDataParallel`, which sends the buffers before each pass, and with checkpoints."""
    run_two_ranks(RANK, tmp_path)


@pytest.mark.parametrize("make", [lambda: genfast.nn.MaskedConv2d(2, 4, 3, "B"), lambda: genfast.nn.RowLSTM(2, 2)])
def test_a_parametrization_of_a_weight(make):
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    layer, x = make(), torch.randn(1, 2, 5, 4)
    twice = copy.deepcopy(layer)
    with torch.no_grad():
        twice.weight.mul_(2)
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert torch.equal(layer(x), twice(x)) and torch.equal(copy.deepcopy(layer)(x), twice(x))
    assert torch.equal(layer.to_empty(device="cpu").mask, twice.mask) if twice.mask is not None else True
