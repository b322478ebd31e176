"""Models of codes and of sequences in everyday styles: native, equal to their own losses, drawn as by full forwards."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import genfast


def lively(model, scale=2.0, seed=0):
    """A model with weights from which conditionals come that are not flat."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * (scale / math.sqrt(max(parameter.shape[-1], 4)) if parameter.dim() > 1 else 0.3)
    return model.eval()


def agrees(model, loss, backend="cpp", **conventions):
    """The likelihoods are those of the loss, of levels [n, C, H, W]; the samples are those of full forwards."""
    shape, levels = conventions["shape"], conventions["levels"]
    engine = genfast.Engine(model, **conventions)
    assert engine.backend == backend, engine.explanation.others
    images = torch.randint(levels, (4, *shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = -loss(images).double()
    assert (engine.log_prob(images) - expected).abs().max() < 1e-6 * math.prod(shape) * max(1, math.log(levels))
    assert expected.std() > 0
    slow = genfast.Engine(model, backend="full_forward", **conventions)
    assert torch.equal(genfast.sample(engine, 3, seed=2), genfast.sample(slow, 3, seed=2))


def bernoulli(function):
    """The loss of a function from floats 0 and 1 to logits."""

    def loss(levels):
        logits = function(levels.float()).reshape(len(levels), -1)
        return F.binary_cross_entropy_with_logits(logits, levels.flatten(1).float(), reduction="none").sum(1)

    return loss


class Triangular(nn.Linear):
    """A linear layer over pixels that reads the pixels before, and with `own` the present one."""

    def __init__(self, size, own):
        super().__init__(size, size)
        self.register_buffer("mask", torch.ones(size, size).tril(0 if own else -1))

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.05), nn.PReLU(16), nn.SiLU()], ids=lambda a: type(a).__name__)
def test_triangular_layers_with_activations_of_several_steps(activation):
    model = lively(nn.Sequential(Triangular(16, False), activation, Triangular(16, True)))
    conventions = {"shape": (1, 4, 4), "levels": 2, "input_range": (0, 1), "inputs": "flat"}
    agrees(model, bernoulli(lambda x: model(x.flatten(1))), **conventions)


class RecurrentPixels(nn.Module):
    """A recurrent layer over all pixels in a line, each fed the one before."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(layer.hidden_size, 1)
        shape = layer.num_layers, 1, layer.hidden_size
        self.first = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        line = x.flatten(1).unsqueeze(-1)
        line = torch.cat((torch.zeros_like(line[:, :1]), line[:, :-1]), 1)
        hidden, _ = self.layer(line, self.first.expand(-1, len(x), -1).contiguous())
        return self.out(hidden).view_as(x)


RECURRENT = {
    "gru": lambda: nn.GRU(1, 6, batch_first=True),
    "two layers": lambda: nn.GRU(1, 5, 2, batch_first=True),
    "gru without biases": lambda: nn.GRU(1, 6, bias=False, batch_first=True),
    "rnn": lambda: nn.RNN(1, 6, 2, batch_first=True),
    "rnn of relu": lambda: nn.RNN(1, 6, nonlinearity="relu", batch_first=True),
}


@pytest.mark.parametrize("layer", RECURRENT.values(), ids=RECURRENT)
@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 1, 9)], ids=["image", "row"])
def test_recurrent_layers(layer, shape):
    torch.manual_seed(0)
    model = lively(RecurrentPixels(layer()), scale=1.5)
    agrees(model, bernoulli(model), shape=shape, levels=2, input_range=(0, 1))


class RecurrentRows(nn.Module):
    """A GRU along the columns of every row, which also reads the row above."""

    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(2, 6), nn.Linear(6, 3)

    def forward(self, x):
        above = F.pad(x, (0, 0, 1, 0))[:, :, :-1]
        left = F.pad(x, (1, 0))[..., :-1]
        both = torch.cat((above, left), 1).permute(3, 0, 2, 1)  # [W, B, H, 2]
        hidden, _ = self.gru(both.flatten(1, 2))
        return self.out(hidden).unflatten(1, (len(x), -1)).permute(1, 3, 2, 0)


def test_a_recurrent_layer_along_rows():
    model = lively(RecurrentRows())

    def loss(levels):
        return F.cross_entropy(model(levels / 2), levels[:, 0], reduction="none").sum((1, 2))

    agrees(model, loss, shape=(1, 4, 4), levels=3, input_range=(0, 1))


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_a_loop_of_cells(cell):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = cell(1, 5), nn.Linear(5, 1)

        def forward(self, x):
            state, value, logits = None, torch.zeros(len(x), 1), []
            for i in range(x.shape[1]):
                state = self.cell(value, state)
                logits.append(self.out(state[0] if isinstance(state, tuple) else state))
                value = x[:, i : i + 1]
            return torch.cat(logits, 1)

    model = lively(Loop())
    conventions = {"shape": (1, 3, 3), "levels": 2, "input_range": (0, 1), "inputs": "flat"}
    agrees(model, bernoulli(lambda x: model(x.flatten(1))), **conventions)


class Sequence(nn.Module):
    """A model of a sequence of codes, by convolutions of one dimension."""

    def __init__(self, codes=20, width=8):
        super().__init__()
        self.embedding, self.out = nn.Embedding(codes, width), nn.Conv1d(width, codes, 1)
        self.first, self.second = nn.Conv1d(width, width, 3), nn.Conv1d(width, width, 3)

    def forward(self, codes):
        x = F.pad(self.embedding(codes).transpose(1, 2), (3, 0))[..., :-1]
        x = torch.tanh(self.first(x))
        return self.out(x + torch.tanh(self.second(F.pad(x, (2, 0)))))


@pytest.mark.parametrize("shape", [(1, 1, 10), (1, 4, 3)], ids=["row", "image"])
def test_a_sequence_of_codes(shape):
    model = lively(Sequence())

    def loss(levels):
        codes = levels.flatten(1)
        return F.cross_entropy(model(codes), codes, reduction="none").sum(1)

    agrees(model, loss, shape=shape, levels=20, inputs="flat-levels")


def test_logits_that_happen_to_lie_between_0_and_1():
    """The graph shows a linear layer at the end: no reason to refuse."""
    model = lively(nn.Sequential(Triangular(9, False), nn.Tanh(), Triangular(9, True)), scale=0.05)
    model[2].bias.data.fill_(0.5)
    conventions = {"shape": (1, 3, 3), "levels": 2, "input_range": (0, 1), "inputs": "flat"}
    assert ((model(torch.rand(64, 9)) - 0.5).abs() < 0.5).all()
    agrees(model, bernoulli(lambda x: model(x.flatten(1))), **conventions)


class Changing(nn.Module):
    """A layer with other masks at every call."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(9, 9), 0

    def forward(self, x):
        self.calls += 1
        mask = (torch.rand(9, 9, generator=torch.Generator().manual_seed(self.calls)) < 0.5).float().tril(-1)
        return F.linear(x, self.linear.weight * mask, self.linear.bias)


@pytest.mark.filterwarnings("ignore:sample. every value runs the whole network")
def test_a_model_that_changes_from_call_to_call_is_refused():
    model = lively(Changing())
    with pytest.raises(ValueError, match="must return the same for the same images; got outputs that differ by"):
        genfast.Engine(model, shape=(1, 3, 3), levels=2, input_range=(0, 1), inputs="flat").backend  # noqa: B018


class StartToken(nn.Module):
    """A recurrent model of codes, with an entry of the embedding of its own before the first."""

    def __init__(self, codes=11, width=6, layer=nn.GRU):
        super().__init__()
        self.start, self.embedding = codes, nn.Embedding(codes + 1, width)
        self.layer, self.out = layer(width, width, batch_first=True), nn.Linear(width, codes)

    def forward(self, codes):
        line = codes.flatten(1)
        line = torch.cat((torch.full((len(line), 1), self.start), line[:, :-1]), 1)
        hidden, _ = self.layer(self.embedding(line))
        return self.out(hidden)


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM])
def test_a_start_token_beyond_the_levels(layer):
    model = lively(StartToken(layer=layer))

    def loss(levels):
        return F.cross_entropy(model(levels[:, 0]).transpose(1, 2), levels.flatten(1), reduction="none").sum(1)

    agrees(model, loss, shape=(1, 3, 4), levels=11, inputs="codes")


class ShiftedCodes(nn.Module):
    """Codes moved by a row and by a column, with one that is none of them at the border, before they are embedded."""

    def __init__(self, codes=9, width=6):
        super().__init__()
        self.codes, self.embedding = codes, nn.Embedding(codes + 1, width)
        self.above, self.out = nn.Conv2d(width, width, (1, 3), padding=(0, 1)), nn.Conv2d(width, codes, 1)

    def forward(self, codes):
        down = torch.cat((torch.full_like(codes[:, :1], self.codes), codes[:, :-1]), 1)
        right = F.pad(codes, (1, 0), value=self.codes)[..., :-1]
        corner = F.pad(down, (2, 0))[..., :-2]  # the first code, which is a code like others
        above, left, other = (self.embedding(x).permute(0, 3, 1, 2) for x in (down, right, corner))
        return self.out(torch.tanh(self.above(above) + left - other))


def test_codes_that_are_moved_before_an_embedding():
    model = lively(ShiftedCodes())

    def loss(levels):
        return F.cross_entropy(model(levels[:, 0]), levels[:, 0], reduction="none").sum((1, 2))

    agrees(model, loss, shape=(1, 4, 4), levels=9, inputs="codes")


def scattered(x, levels):
    hot = torch.zeros(*x.shape, levels)
    return hot.scatter_(-1, x.unsqueeze(-1), 1)


ONE_HOT = {
    "scatter": scattered,
    "rows of an identity": lambda x, levels: torch.eye(levels)[x],
    "index_select": lambda x, levels: torch.eye(levels).index_select(0, x.reshape(-1)).view(*x.shape, levels),
    "comparison": lambda x, levels: (x.unsqueeze(-1) == torch.arange(levels)).float(),
}


@pytest.mark.parametrize("one_hot", ONE_HOT.values(), ids=ONE_HOT)
def test_one_hot_inputs(one_hot):
    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Triangular(16, False), nn.Linear(4, 4)
            mask = torch.ones(4, 4).tril(-1)
            self.register_buffer("blocks", mask.repeat_interleave(4, 0).repeat_interleave(4, 1))

        def forward(self, x):
            hot = one_hot(x.flatten(1), 4).flatten(1)
            hidden = torch.tanh(F.linear(hot, self.first.weight * self.blocks, self.first.bias))
            return self.second(hidden.view(len(x), 4, 4)).permute(0, 2, 1).reshape(len(x), 4, 1, 2, 2)

    model = lively(Made())

    def loss(levels):
        return F.cross_entropy(model(levels), levels, reduction="none").flatten(1).sum(1)

    agrees(model, loss, shape=(1, 2, 2), levels=4, inputs="levels")


def test_the_range_of_a_model_that_makes_floats_of_its_input():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Triangular(9, False)

        def forward(self, x):
            return self.layer((2 * x.float() - 1).flatten(1)).view_as(x)

    assert genfast.Engine(Scaled(), shape=(1, 3, 3), levels=2).network.conventions.input_range == (0, 1)


class DrawsInForward(nn.Module):
    """A NADE whose forward draws the values that are -1, and returns all; a loop over pixels with one hidden state."""

    def __init__(self, pixels, width=5):
        super().__init__()
        self.enter, self.leave = nn.Linear(pixels, width), nn.Linear(width, pixels)

    def forward(self, x):
        state, logits, values = self.enter.bias.expand(len(x), -1), [], []
        for i in range(x.shape[1]):
            logits.append(torch.relu(state) @ self.leave.weight[i : i + 1].t() + self.leave.bias[i])
            drawn = torch.distributions.Bernoulli(logits=logits[-1]).sample()
            values.append(torch.where(x[:, i : i + 1] == -1, drawn, x[:, i : i + 1]))
            state = state + values[-1] @ self.enter.weight[:, i : i + 1].t()
        return torch.cat(logits, 1), torch.cat(values, 1)


def test_a_model_that_also_draws_in_forward():
    model = lively(DrawsInForward(9))
    conventions = {"shape": (1, 3, 3), "levels": 2, "input_range": (0, 1), "inputs": "flat", "output": "0: B (C H W)"}
    before = torch.distributions.Distribution._validate_args
    agrees(model, bernoulli(lambda x: model(x.flatten(1))[0]), **conventions)
    assert torch.distributions.Distribution._validate_args == before


def test_a_long_loop_is_recorded(monkeypatch):
    """torch.export takes milliseconds for every operation: minutes for a loop over all pixels of an image."""
    monkeypatch.setattr("torch.export.export", None)
    model = lively(DrawsInForward(14 * 14))
    conventions = {"shape": (1, 14, 14), "levels": 2, "input_range": (0, 1), "inputs": "flat"}
    engine = genfast.Engine(model, **conventions, output="0: B (C H W)")
    assert engine.backend == "cpp"
    images = torch.randint(2, (3, 1, 14, 14), generator=torch.Generator().manual_seed(0))
    expected = -bernoulli(lambda x: model(x.flatten(1))[0])(images)
    assert engine.log_prob(images) == pytest.approx(expected.detach().double(), abs=1e-4)


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr("genfast.engine.compiler.trace.MOST_EXPORTED", 0)
    monkeypatch.setattr("torch.export.export", None)


@pytest.mark.usefixtures("recorded")
def test_recorded_models():
    test_triangular_layers_with_activations_of_several_steps(nn.PReLU(16))
    test_codes_that_are_moved_before_an_embedding()


def test_what_cannot_be_read_as_recorded_is_traced(monkeypatch):
    """A norm over groups of features of a pixel is recorded as an operation that has no handler."""
    monkeypatch.setattr("genfast.engine.compiler.trace.MOST_EXPORTED", 0)

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm, self.out = nn.Conv2d(1, 4, (1, 2)), nn.GroupNorm(2, 4), nn.Linear(4, 1)

        def forward(self, x):
            y = self.layer(F.pad(x, (2, 0))[..., :-1]).permute(0, 2, 3, 1)
            return self.out(self.norm(y.reshape(-1, 4)).view(y.shape)).permute(0, 3, 1, 2)

    model = lively(Grouped())
    agrees(model, bernoulli(model), shape=(1, 3, 4), levels=2, input_range=(0, 1))


class Labelled(nn.Module):
    """Logits that depend on the pixels before, a label and a vector."""

    def __init__(self):
        super().__init__()
        self.layer, self.label, self.vector = Triangular(9, False), nn.Embedding(3, 9), nn.Linear(2, 9)

    def forward(self, x, y, h):
        return torch.tanh(self.layer(x)) + self.label(y) * self.vector(h)


@pytest.mark.usefixtures("recorded")
def test_recorded_labels_and_conditions():
    model, h = lively(Labelled()), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    conventions = {"shape": (1, 3, 3), "levels": 2, "input_range": (0, 1), "inputs": "flat", "classes": 3}
    engine = genfast.Engine(model, **conventions, condition={"h": h})
    assert engine.backend == "cpp"
    images, labels = torch.randint(2, (4, 1, 3, 3)), torch.tensor([0, 2, 1, 2])
    expected = -bernoulli(lambda x: model(x.flatten(1), labels, h))(images)
    assert engine.log_prob(images, labels=labels) == pytest.approx(expected.detach().double(), abs=1e-5)


@pytest.mark.usefixtures("recorded")
def test_a_recorded_branch_on_values_is_refused():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Triangular(9, False)

        def forward(self, x):
            return self.layer(x) if x.sum() > -1 else x

    with pytest.warns(RuntimeWarning, match="cannot be traced: .*depends on values"):
        engine = genfast.Engine(lively(Branch()), shape=(1, 3, 3), levels=2, input_range=(0, 1), inputs="flat")
        assert engine.backend == "full_forward"


def test_a_forward_that_masks_its_weights_compiles_once(monkeypatch):
    class Masking(Triangular):
        def forward(self, x):
            self.weight.data *= self.mask
            return F.linear(x, self.weight, self.bias)

    model = lively(Masking(9, False))
    conventions = {"shape": (1, 3, 3), "levels": 2, "input_range": (0, 1), "inputs": "flat"}
    before = genfast.sample(model, 2, seed=0, **conventions)
    model(torch.zeros(2, 9))  # the weights are other ones now, the model is the same
    monkeypatch.setattr("genfast.engine.engine.compile_traced", None)
    assert torch.equal(genfast.sample(model, 2, seed=0, **conventions), before)
