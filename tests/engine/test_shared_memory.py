"""Models that write into tensors, into parts and views of them, and into constants, against their own forward."""

import pytest
import torch
from support.compiled import Function, assert_compiled, causal
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine.compiler import compile_program
from genfast.engine.compiler.plan import NotIncremental


def feature_changed(x):
    x[:, 2:4] = torch.tanh(x[:, :2])
    return x


def slice_changed_then_whole_read(x):
    part = x[:, 1::2]
    part *= 0.5
    return x + F.pad(part, (0, 0, 0, 0, 0, 3))


def whole_changed_then_view_read(x):
    last = x.permute(0, 2, 3, 1)
    x += 1
    return x * last.permute(0, 3, 1, 2)


def view_of_view_changed(x):
    pairs = x.view(x.shape[0], 2, 3, *x.shape[2:])
    pairs[:, 1].mul_(0.25).sub_(1)
    pairs.transpose(1, 2)[:, 0] -= 2
    return x


def piece_changed(x):
    first, second = x.chunk(2, 1)
    first += second
    second.sigmoid_()
    return x


def unbound_piece_changed(x):
    red, green, _ = x.view(x.shape[0], 2, 3, *x.shape[2:]).unbind(2)
    red *= green
    return x


def rows_changed(x):
    x[:, :, 1:] += 0.5 * x[:, :, :-1].clone()
    x[:, :, :, :-2] *= 2
    return x


def overlapping_rows_changed(x):
    """As of a convolution of one row more, whose crop and whose shifted crop overlap."""
    tall = F.pad(x, (0, 0, 1, 0))
    here, above = tall[:, :, 1:], tall[:, :, :-1]
    here += torch.tanh(x)
    return torch.cat((here[:, :3], above[:, 3:]), 1)


def zeros_filled(x):
    out = torch.zeros(x.shape[0], 6, *x.shape[2:], device=x.device, dtype=x.dtype)
    out[:, 0:2] = x[:, 4:]
    out[:, 5] = x[:, 0] - 1
    out[:, 2] += x[:, 1]
    return out


def numbers_overwritten(x):
    out = x.new_full(x.shape, float("nan"))
    out[:, :3] = 0.0
    out[:, 3:] = x[:, :3]
    return out + x


def channels_last_filled(x):
    out = torch.ones(x.shape[0], x.shape[2], x.shape[3], 2, 3)
    out[..., 0, :2] = x.permute(0, 2, 3, 1)[..., :2]
    out[:, :, :, 1, 2] = -x[:, 5]
    return out.flatten(3).permute(0, 3, 1, 2)


def rows_filled(x):
    below = torch.zeros_like(x)
    below[:, :, 1:] = x[:, :, :-1]
    below[:, :, :, 0].zero_()
    return below - x


def whole_copied(x):
    y = torch.empty_like(x)
    y.copy_(x)
    y.mul_(2)
    x.fill_(0.5)
    return y + x


def dropped(x):
    y = F.dropout(x, 0.5, training=False)
    y += 1
    return x * 2


def cloned(x):
    y = x.clone()
    y += 1
    return x * y


def copied_by_contiguous(x):
    y = x.permute(0, 2, 3, 1).contiguous()
    y += 1
    return x * 2


WRITES = {
    function.__name__: function
    for function in (
        feature_changed,
        slice_changed_then_whole_read,
        whole_changed_then_view_read,
        view_of_view_changed,
        piece_changed,
        unbound_piece_changed,
        rows_changed,
        overlapping_rows_changed,
        zeros_filled,
        numbers_overwritten,
        channels_last_filled,
        rows_filled,
        whole_copied,
        dropped,
        cloned,
        copied_by_contiguous,
    )
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("assigned", [False, True])
def test_writes(name, assigned):
    """Traced in both ways: that of a forward which assigns weights, too, is another."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = causal(Function(WRITES[name]))

        def forward(self, x):
            if assigned:
                self.model[-1].weight.data *= 1
            return self.model(x)

    assert_compiled(Model().eval())


def changed_out_of_reach(x):
    out = torch.zeros_like(x)
    out[:, :, ::2] = x[:, :, ::2]
    return out


def test_what_is_refused():
    """A value that could not be written is missed, not taken for what was there before."""
    with pytest.raises(NotIncremental, match="every other row"):
        compile_program(causal(Function(changed_out_of_reach)), shape=(1, 5, 6), levels=4, input_range=(0, 1))


class RowByRow(nn.Module):
    """A recurrence down the rows, written out; the rows are joined in three ways."""

    def __init__(self, join):
        super().__init__()
        self.join, self.down = join, nn.Conv1d(6, 6, 3, padding=1)

    def forward(self, x):
        state, states = torch.zeros(x.shape[0], 6, x.shape[3]), []
        out = torch.zeros_like(x)
        for row in range(x.shape[2]):
            state = torch.tanh(x[:, :, row] + self.down(state))
            states.append(state)
            out[:, :, row] = state
        return {"cat": torch.cat([s.unsqueeze(2) for s in states], 2), "written": out}[self.join]


@pytest.mark.parametrize("join", ["cat", "written"])
def test_rows_written_out(join):
    torch.manual_seed(0)
    assert_compiled(causal(RowByRow(join).eval()))


def test_maps_side_by_side():
    torch.manual_seed(0)

    def halves(x):
        return torch.cat((torch.tanh(x[..., :2]), torch.ones_like(x[..., 2:3]), x[..., 3:] * 2), 3)

    assert_compiled(causal(Function(halves)))


class OneHot(nn.Module):
    """Labels written as ones into zeros, also through `.data`, as before there was F.one_hot."""

    def __init__(self, classes, kind):
        super().__init__()
        self.classes, self.kind = classes, kind
        self.net = causal()
        self.label = nn.Linear(classes, 4)

    def forward(self, x, y):
        self.net[-1].weight.data *= 1
        ones = torch.zeros(y.size(0), self.classes)
        if self.kind == "scatter":
            ones.scatter_(1, y.data.unsqueeze(1), 1)
        elif self.kind == "index":
            ones[range(len(y)), y] = 1
        else:
            ones[:, 1:].scatter_(1, (y % (self.classes - 1)).unsqueeze(1), 1)
        return self.net(x) + self.label(ones)[:, :, None, None]


@pytest.mark.parametrize("kind", ["scatter", "index", "part"])
@pytest.mark.parametrize("classes", [3, 40])
def test_labels_written_as_ones(kind, classes):
    torch.manual_seed(0)
    model = OneHot(classes, kind).eval()
    labels = torch.arange(6) * 7 % classes
    images = torch.randint(4, (6, 1, 5, 6), dtype=torch.uint8)
    with torch.no_grad():
        nats = F.cross_entropy(model(images / 3, labels), images[:, 0].long(), reduction="none").sum((1, 2))
    told = {"shape": (1, 5, 6), "levels": 4, "input_range": (0, 1)}
    engine = genfast.Engine(model, classes=classes, **told)
    assert engine.backend == "cpp"
    assert torch.allclose(-genfast.log_prob(engine, images, labels=labels).float(), nats, rtol=1e-5)
    conditioned = genfast.Engine(model, condition={"y": labels}, **told)
    assert torch.allclose(-genfast.log_prob(conditioned, images).float(), nats, rtol=1e-5)
