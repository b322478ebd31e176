"""From a model to its pixel program: every program is run and compared with the model's own forward."""

import math

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import everyday
from support.compiled import Function, assert_close, assert_compiled, causal, some_images, taught
from support.compiler_stacks import KINDS, ColorStack, Stack
from torch import nn
from torch.nn import functional as F

from genfast._native import backends
from genfast.engine.compiler import compile_program
from genfast.engine.compiler.plan import NotCausal, NotIncremental
from genfast.models import build
from genfast.nn import MaskedConv2d

SMALL_CNN = {"layers": 2, "hidden": 6, "head": 9}
SMALL_RNN = {"layers": 2, "hidden": 5, "head": 8}
SMALL_PLUS = {"filters": 4, "blocks": 1, "mixtures": 2, "levels": 8}
COLOR = {"channels": 3, "height": 5, "width": 7, "levels": 4}
MODELS = [
    ("pixelcnn", SMALL_CNN | {"height": 7, "width": 6}),
    ("pixelcnn", SMALL_CNN | COLOR),
    ("pixelcnn", SMALL_CNN | COLOR | {"levels": 2, "layers": 0}),
    ("pixelcnn", SMALL_CNN | {"height": 1, "width": 1}),
    ("gated-pixelcnn", SMALL_CNN | {"height": 7, "width": 5}),
    ("gated-pixelcnn", SMALL_CNN | COLOR | {"classes": 3, "kernel": 5}),
    ("gated-pixelcnn", SMALL_CNN | {"height": 3, "width": 4, "classes": 1}),
    ("pixelrnn", SMALL_RNN | {"height": 7, "width": 5}),
    ("pixelrnn", SMALL_RNN | {"height": 5, "width": 4, "virtual_column": True}),
    ("pixelrnn", SMALL_RNN | COLOR),
    ("pixelrnn", SMALL_RNN | COLOR | {"virtual_column": True, "layers": 1}),
    ("pixelrnn", SMALL_RNN | {"height": 6, "width": 7, "kind": "row"}),
    ("pixelrnn", SMALL_RNN | COLOR | {"kind": "row"}),
    ("pixelrnn", SMALL_RNN | {"height": 1, "width": 5}),
    ("pixelrnn", SMALL_RNN | {"height": 5, "width": 1, "virtual_column": True}),
    ("pixelrnn", SMALL_RNN | {"height": 3, "width": 1, "kind": "row"}),
    ("pixelcnn++", SMALL_PLUS | {"height": 5, "width": 7, "resolutions": 1}),
    ("pixelcnn++", SMALL_PLUS | {"channels": 3, "height": 4, "width": 6, "resolutions": 2}),
    ("pixelcnn++", SMALL_PLUS | {"channels": 3, "height": 8, "width": 12, "resolutions": 3, "classes": 2}),
]


def instructions(program):
    return [*program.row, *(it for part in program.pixel for it in part)]


@pytest.mark.parametrize("name, config", MODELS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_model(name, config):
    torch.manual_seed(0)
    model = build(name, **config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.25)
    program = compile_program(model)
    assert all(module.training for module in model.modules())
    assert program.columns == model.config.width + config.get("virtual_column", False)
    images, labels = some_images(program), None
    if program.spec.classes:
        labels = torch.arange(3) % program.spec.classes
    with torch.no_grad():
        expected = model.eval()(images, labels)
    expected = expected.flatten(1, 2) if expected.dim() == 5 else expected
    assert_close(taught(program, images, labels), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_and_batch_norm_as_in_evaluation(dropout):
    torch.manual_seed(0)
    model = causal(nn.BatchNorm2d(6), nn.Dropout2d(dropout), nn.ReLU(inplace=True))
    nn.init.normal_(model[1].running_mean)
    model[2].train()
    assert_compiled(model)
    assert not model[1].training


EVERYDAY = [
    (everyday.PlainPixelCNN, {"features": 8, "layers": 3}, (1, 7, 6), 256),
    (everyday.GatedPixelCNN, {"features": 8, "layers": 2}, (1, 6, 7), 256),
    (everyday.ColorPixelCNN, {"features": 12, "layers": 2, "levels": 5}, (3, 5, 6), 5),
]


@pytest.mark.parametrize("kind, sizes, shape, levels", EVERYDAY, ids=lambda v: getattr(v, "__name__", ""))
def test_everyday_models(kind, sizes, shape, levels):
    torch.manual_seed(0)
    model = kind(**sizes).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    program = compile_program(model, shape=shape, levels=levels, input_range=(-1, 1))
    assert all(module.training for module in model.modules())
    assert all(type(value.data) is torch.Tensor for value in model.state_dict().values())
    images = some_images(program)
    with torch.no_grad():
        expected = model.eval()(images.float() * 2 / (levels - 1) - 1)
    expected = expected if shape[0] == 1 else expected.transpose(1, 2).flatten(1, 2)
    assert_close(taught(program, images), expected)


def test_one_instruction_for_a_convolution():
    torch.manual_seed(0)
    model = everyday.PlainPixelCNN(8, 7)
    kinds = [
        (it.kind, it.activation)
        for it in instructions(compile_program(model, shape=(1, 9, 9), levels=256, input_range=(0, 1)))
    ]
    assert kinds == [("linear", "relu")] * 7 + [("linear", "none")]


def test_one_instruction_more_for_a_residual_join():
    model = build("pixelcnn", layers=3, hidden=4, head=4)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    program = compile_program(model)
    assert [len(program.row), *map(len, program.pixel)] == [0, 1 + 3 * 4 + 3, 0]
    assert sum(it.kind == "relu" for it in program.pixel[0]) == 3
    assert sum(bool(it.adds) for it in program.pixel[0]) == 3


def test_neighbouring_columns_are_one_read():
    program = assert_compiled(causal(MaskedConv2d(6, 6, 5, "B")))
    reads = program.pixel[0][1].reads
    assert [(r.row, r.column, r.count) for r in reads] == [(-2, -2, 30), (-1, -2, 30), (0, -2, 18)]


def test_vertical_stack_runs_by_rows():
    torch.manual_seed(0)
    program = compile_program(everyday.GatedPixelCNN(8, 2), shape=(1, 6, 7), levels=256, input_range=(0, 1))
    assert [it.kind for it in program.row] == ["linear", "gate"] * 2 + ["linear"]
    assert program.columns == 7


def test_what_leads_nowhere_is_dropped():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.unused, self.last = (
                MaskedConv2d(1, 6, 3, "A"),
                nn.Conv2d(6, 6, 3, padding=1),
                nn.Conv2d(6, 4, 1),
            )

        def forward(self, x):
            x = self.first(x)
            y = x + 0 * self.unused(x)
            return self.last(torch.cat((y[:, :5], x[:, :1] * 0), 1))

    program = assert_compiled(Model().eval())
    assert [it.kind for it in instructions(program)].count("linear") == 2


def fuzzed(examples):
    """Settings of a fuzz: the same examples every time, and none of the minutes that shrinking one would take."""
    phases = (Phase.explicit, Phase.generate)
    return settings(
        max_examples=examples, deadline=None, phases=phases, derandomize=True, suppress_health_check=list(HealthCheck)
    )


@fuzzed(30)
@given(
    layers=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=7),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
)
def test_random_stacks(layers, height, width):
    torch.manual_seed(0)
    model = Stack(layers).eval()
    assert_compiled(model, (1, height, width))


@fuzzed(10)
@given(
    layers=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=5),
    features=st.sampled_from([3, 6, 7, 20]),
)
def test_random_color_stacks(layers, features):
    torch.manual_seed(0)
    assert_compiled(ColorStack(layers, features).eval(), (3, 4, 3), 3, head="categorical")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("a", range(6))
def test_every_layer_of_the_stacks(kind, a):
    torch.manual_seed(0)
    assert_compiled(Stack([(kind, a, 5 - a), ("join", 0, 0)]).eval(), (1, 4, 5))


NOT_CAUSAL = {
    "3x3": (
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)),
        r"output \d of the conditional of draw 0.*\+1 rows and \+1 col",
    ),
    "mask B": (nn.Sequential(MaskedConv2d(1, 4, 3, "B")), "channel 0 of its own pixel"),
}


@pytest.mark.parametrize("name", ["3x3", "mask B"])
def test_what_is_not_causal(name):
    model, message = NOT_CAUSAL[name]
    with pytest.raises(NotCausal, match=message):
        compile_program(model, shape=(1, 5, 5), levels=4, input_range=(0, 1))


def test_what_is_not_causal_behind_others():
    with pytest.raises(NotCausal, match="drawn later"):
        compile_program(
            causal(nn.ReLU(), nn.Conv2d(6, 6, (1, 5), padding=(0, 2))), shape=(1, 5, 5), levels=4, input_range=(0, 1)
        )
    colors = nn.Sequential(MaskedConv2d(3, 6, 3, "A", 3), nn.Conv2d(6, 9, 1), nn.Unflatten(1, (3, 3)))
    with pytest.raises(NotCausal, match="own pixel"):
        compile_program(colors, shape=(3, 4, 4), levels=3, input_range=(0, 1), head="categorical")


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = causal()
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x):
        x = self.pool(x)
        return self.body(x)


REFUSED = {
    "aten.sin": torch.sin,
    "aten.sort": lambda x: x.sort(1)[0],
    "every other row": lambda x: x[:, :, ::2].repeat_interleave(2, 2)[:, :, :5],
    "maps of different sizes": lambda x: x + x[:, :, :1, 0][..., None],
    "by replicate": lambda x: F.pad(x[:, :, 1:], (0, 0, 1, 0), mode="replicate"),
    "mixes features": lambda x: x.reshape(x.shape[0], -1).view_as(x) if x.shape[2] == 0 else x.flatten(1).view_as(x),
    "to torch.float64": lambda x: x.double().float(),
    "weights that depend on the image": lambda x: F.conv2d(x, x[:, :, :1, :1]).repeat(1, 3, 1, 1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_by_name(message):
    function = REFUSED[message]
    with pytest.raises(NotIncremental, match=message) as caught:
        compile_program(causal(Function(function)), shape=(1, 5, 5), levels=4, input_range=(0, 1))
    assert str(caught.value).startswith("sample: aten.")
    assert "at 1 (test_compiler.py:" in str(caught.value) or "at 1 (" in str(caught.value)


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def numbers(*shape):
    return torch.randn(shape, generator=generator_of(1))


PLACES = {
    "a row of ones": lambda x: F.pad(x[:, :, :-1], (0, 0, 1, 0), value=1.0),
    "columns of a number, before and after": lambda x: F.pad(x[..., :-3], (2, 1), value=-0.7) * x,
    "rows and columns of a number": lambda x: F.pad(x[:, :, :-1, :-2], (2, 0, 1, 0), value=2.5),
    "a crop and a number": lambda x: F.pad(F.pad(x, (0, -1, 0, -2), value=9.0), (1, 0, 2, 0), value=0.5),
    "a row of parameters": lambda x: torch.cat((numbers(1, 6, 1, 6).expand(len(x), -1, -1, -1), x[:, :, :-1]), 2),
    "numbers of rows": lambda x: x + torch.arange(5.0).view(5, 1),
    "numbers of columns, times features": lambda x: x * numbers(6, 1, 6),
    "numbers of places": lambda x: numbers(5, 6) * (x - numbers(1, 6, 5, 6)),
    "coordinates as features": lambda x: F.conv2d(
        torch.cat((x, numbers(1, 2, 5, 6).expand(len(x), -1, -1, -1)), 1), numbers(6, 8, 1, 1)
    ),
    "numbers of places, moved": lambda x: F.pad((x + numbers(6, 5, 6))[:, :, :-1], (0, 0, 1, 0)) + numbers(5, 6),
}


@pytest.mark.parametrize("name", PLACES)
def test_numbers_that_vary_over_rows_and_columns(name):
    torch.manual_seed(0)
    model = causal(Function(PLACES[name]))
    model[0].weight.data *= 3
    assert_compiled(model)


def seeded_twice(x):
    generator = generator_of(1)
    first, second = torch.randn(6, 1, 1, generator=generator), torch.randn(5, 6, generator=generator)
    generator.manual_seed(1)
    return x * first + second * torch.rand(6, 1, 1, generator=generator)


def drawn_in_place(x):
    weight = nn.init.xavier_normal_(torch.empty(6, 6, 1, 1), generator=generator_of(2))
    return F.conv2d(x, weight, torch.zeros(6).uniform_(-1, 1, generator=generator_of(3)))


DRAWN = {
    "seeded twice": seeded_twice,
    "in place": drawn_in_place,
    "an order": lambda x: x[:, torch.randperm(6, generator=generator_of(5))],
}


@pytest.mark.parametrize("name", DRAWN)
def test_constants_drawn_in_the_forward(name):
    """Each in the state that its generator is in there, though a graph runs later."""
    torch.manual_seed(0)
    assert_compiled(causal(Function(DRAWN[name])))


class Labelled(nn.Module):
    """A product, a sum, a gate and a map that depend on the label."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.last, self.kind = MaskedConv2d(1, 6, 3, "A"), nn.Conv2d(6, 4, 1), kind
        self.embedding, self.map = nn.Embedding(3, 6), nn.Embedding(3, 30)

    def forward(self, x, labels):
        x, y = self.first(x), self.embedding(labels)[:, :, None, None]
        if self.kind == "product":
            x = x * y
        if self.kind == "scale and shift":
            x = (1 + y.tanh()) * x + y.flip(1)
        if self.kind == "gate":
            x = x.tanh() * y.sigmoid()
        if self.kind == "map":
            x = x * self.map(labels).view(-1, 1, 5, 6) + y
        return self.last(x.relu())


@pytest.mark.parametrize("kind", ["product", "scale and shift", "gate", "map"])
def test_what_depends_on_labels(kind):
    torch.manual_seed(0)
    model = Labelled(kind).eval()
    model.first.weight.data *= 3
    program = compile_program(model, shape=(1, 5, 6), levels=4, input_range=(-1, 1), classes=3)
    images, labels = some_images(program, 4), torch.tensor([2, 0, 1, 2])
    with torch.no_grad():
        expected = model(images * (2 / 3) - 1, labels)
        other = model(images * (2 / 3) - 1, labels.roll(1))
    assert_close(taught(program, images, labels), expected)
    assert (other - expected).abs().max() > 0.1


def test_a_refusal_names_operation_module_and_line():
    expected = (
        r"sample: aten.max_pool2d at pool \(test_compiler.py:\d+: x = self.pool\(x\)\) cannot be run pixel by pixel"
    )
    with pytest.raises(NotIncremental, match=expected):
        compile_program(Pooled(), shape=(1, 5, 5), levels=4, input_range=(0, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_only_float32(dtype):
    model = build("pixelcnn", layers=1, hidden=4, head=4).to(dtype)
    with pytest.raises(NotIncremental, match=f"input.weight must be float32.*{str(dtype)[6:]}"):
        compile_program(model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_must_be_finite(value):
    model = build("pixelcnn", layers=4, hidden=4, head=4)
    model.blocks[3].conv.weight.data[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="blocks.3.conv.weight must be finite; got 1 values") as caught:
        compile_program(model)
    assert not isinstance(caught.value, NotIncremental)


def test_a_forward_that_changes_is_found():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls = causal(), 0

        def forward(self, x):
            self.calls += 1
            return self.body(x) * self.calls

    with pytest.raises(NotIncremental, match="must equal the model's forward to 1e-04"):
        compile_program(Counting(), shape=(1, 5, 5), levels=4, input_range=(0, 1))


def test_hidden_looks_ahead_are_found():
    """What tracing cannot see (here a branch on a value) is met by trying."""

    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = causal()

        def forward(self, x):
            y = self.body(x)
            if type(x) is torch.Tensor and not torch.compiler.is_compiling() and x.shape[0] > 2:
                y = y + x.flip(2, 3)
            return y

    with pytest.raises(NotCausal, match="moves with what comes after it"):
        compile_program(Peeking(), shape=(1, 5, 5), levels=4, input_range=(0, 1))


OUTPUTS = {
    "categorical": ((2, 3), lambda y: y.unflatten(1, (2, 3)), lambda y: y),
    "categorical-levels-first": ((2, 3), lambda y: y.unflatten(1, (2, 3)).transpose(1, 2), lambda y: y),
    "bernoulli": ((2, 1), lambda y: y, lambda y: y),
}


@pytest.mark.parametrize("head", OUTPUTS)
def test_the_order_of_an_output_is_inferred(head):
    torch.manual_seed(0)
    (channels, logits), arrange, _ = OUTPUTS[head]
    body = MaskedConv2d(channels, channels * logits, 3, "A", channels)
    model = nn.Sequential(body, Function(arrange)).eval()
    levels = max(2, logits)
    program = compile_program(model, shape=(channels, 4, 5), levels=levels, input_range=(0, 1))
    assert program.likelihood.name == head.partition("-")[0] and program.draws == channels
    images = some_images(program)
    with torch.no_grad():
        assert_close(taught(program, images), body(images.float() / (levels - 1)))


def test_channels_last_outputs_and_two_logits():
    model = nn.Sequential(MaskedConv2d(1, 2, 3, "A"), Function(lambda y: y.permute(0, 2, 3, 1))).eval()
    program = compile_program(model, shape=(1, 4, 5), levels=2, input_range=(0, 1))
    assert program.likelihood.name == "categorical" and program.parameters[0].count == 2
    images = some_images(program)
    with torch.no_grad():
        assert_close(taught(program, images), model[0](images.float()))


@pytest.mark.parametrize(
    "outputs, shape, levels, message",
    [
        (9, (3, 4, 4), 3, r"output must say how the output is laid out, 'B \(C L\) H W' or 'B \(L C\) H W'; got None"),
        (5, (1, 4, 4), 4, r"must return 4 values for each pixel \(C=1, H=4, W=4, L=4\); got \(2, 5, 4, 4\)$"),
        (4, (1, 4), 4, "shape must be"),
        (4, (1, 4, 4), 1, "levels must be an int, 2 to 65536"),
        (4, (1, 4, 4), 65537, "levels must be an int, 2 to 65536"),
    ],
)
def test_settings_that_do_not_fit(outputs, shape, levels, message):
    model = MaskedConv2d(shape[0], outputs, 3, "A")
    with pytest.raises(ValueError, match=message):
        compile_program(model, shape=shape, levels=levels, input_range=(0, 1))


def test_settings_of_an_own_model_are_its_own():
    with pytest.raises(ValueError, match="levels must be None for a PixelCNN, whose config has it"):
        compile_program(build("pixelcnn", layers=0), levels=2)
    with pytest.raises(ValueError, match="input_range must be two different numbers"):
        compile_program(causal(), shape=(1, 4, 4), levels=4, input_range=(1, 1))
    with pytest.raises(ValueError, match="head must be one of"):
        compile_program(causal(), shape=(1, 4, 4), levels=4, input_range=(0, 1), head="softmax")


def test_operations_are_traced_where_no_backend_can_run_them(monkeypatch):
    monkeypatch.setattr(backends, "cpp", None)
    monkeypatch.setattr(backends, "_CPP_MISSING", "not compiled")
    program = compile_program(build("pixelrnn", layers=1, hidden=4, head=4, height=4, width=4))
    assert sum(it.kind == "lstm" for it in instructions(program)) in (0, 2)


def test_in_place_operations():
    class Model(nn.Module):
        def __init__(self, view):
            super().__init__()
            self.first, self.last, self.view = MaskedConv2d(1, 6, 3, "A"), nn.Conv2d(6, 4, 1), view

        def forward(self, x):
            self.first.weight.data *= self.first.mask
            x = self.first(x)
            seen = x.permute(0, 2, 3, 1)
            y = F.relu(x, inplace=True)
            return self.last(y + (seen.permute(0, 3, 1, 2) if self.view else x))

    for view in (False, True):
        torch.manual_seed(0)
        assert_compiled(Model(view).eval())
