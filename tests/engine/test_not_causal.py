"""Models that look ahead, and models that fail: what the errors say of them."""

import re

import pytest
import torch
from support.anyone import Function, Masked, alive, plain
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine.compiler import NotCausal, compile_program

GREY = {"shape": (1, 5, 5), "levels": 4, "input_range": (0, 1)}
COLOUR = {"shape": (3, 4, 4), "levels": 3, "input_range": (0, 1), "head": "categorical"}


class Net(nn.Module):
    """Three masked layers by name, of which any may be another."""

    def __init__(self, **others):
        super().__init__()
        self.first, self.second, self.third = Masked(1, 6, 3, "A"), Masked(6, 6), Masked(6, 6)
        self.out = nn.Conv2d(6, 4, 1)
        for name, layer in others.items():
            setattr(self, name, layer)
        alive(self)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        x = F.relu(self.third(x))
        return self.out(x)


class Colours(nn.Module):
    """Channels drawn one after the other, by masks of weights; `leak` takes one of the masks off."""

    def __init__(self, leak=None):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.out = nn.Conv2d(6, 9, 1)
        group = torch.arange(6) // 2  # of hidden features: that of their channel
        masks = {"first": group[:, None] > torch.arange(3), "second": group[:, None] >= group}
        masks["out"] = (torch.arange(9) // 3)[:, None] >= group
        alive(self)
        with torch.no_grad():
            self.first.weight[:, :, 1, 2:] = self.first.weight[:, :, 2] = 0
            for name, mask in masks.items():
                if name != leak:
                    getattr(self, name).weight[:, :, -1 + (name == "first") * 2 :, -1 + (name == "first") * 2 :][
                        ..., :1, :1
                    ] *= mask[..., None, None]

    def forward(self, x):
        return self.out(F.relu(self.second(F.relu(self.first(x))))).unflatten(1, (3, 3))


LEAKS = {
    "a mask B in the first layer": (
        lambda: Net(first=Masked(1, 6, 3, "B")),
        GREY,
        "output 0 of the conditional of draw 0",
        "channel 0 of its own pixel",
        "first",
    ),
    "a symmetric layer behind two others": (
        lambda: Net(third=nn.Conv2d(6, 6, 3, padding=1)),
        GREY,
        "of the conditional of draw 0",
        r"the pixel \+1 rows and \+0 columns away",
        "third",
    ),
    "a row too many": (
        lambda: Net(second=nn.Sequential(nn.ZeroPad2d((0, 0, 0, 1)), nn.Conv2d(6, 6, (2, 1)))),
        GREY,
        "of the conditional of draw 0",
        r"the pixel \+1 rows and -1 columns away",
        r"second\.1",
    ),
    "a column too many at the end": (
        lambda: Net(out=nn.Conv2d(6, 4, (1, 3), padding=(0, 1))),
        GREY,
        "of the conditional of draw 0",
        "channel 0 of its own pixel",
        "out",
    ),
    "channels that see themselves": (
        lambda: Colours("first"),
        COLOUR,
        "output 0 of the conditional of draw 0",
        "channel 2 of its own pixel",
        "first",
    ),
    "channels mixed in the middle": (
        lambda: Colours("second"),
        COLOUR,
        "of the conditional of draw 0",
        "channel 1 of its own pixel",
        "second",
    ),
    "channels mixed at the end": (
        lambda: Colours("out"),
        COLOUR,
        "of the conditional of draw 0",
        "channel 1 of its own pixel",
        "out",
    ),
}


@pytest.mark.parametrize("name", LEAKS)
def test_an_error_names_output_input_and_layer(name):
    model, keywords, output, later, layer = LEAKS[name]
    with pytest.raises(NotCausal) as caught:
        genfast.sample(model(), 1, **keywords)
    expected = rf"sample: the model must be causal; got .*{output}, which depends on ({later}), drawn later; "
    assert re.search(expected + rf"it enters at aten\.conv2d at {layer} \(", str(caught.value)), str(caught.value)


def test_without_a_leak_they_are_causal():
    compile_program(Net(), **GREY)
    compile_program(Colours(), **COLOUR)


@pytest.mark.parametrize("leak", ["first", "second", "out"])
def test_a_full_forward_finds_leaks_between_channels(leak):
    with pytest.raises(NotCausal, match=r"moves with what comes after it, from channel \d of the pixel \(\d, \d\) on"):
        genfast.sample(Colours(leak), 1, backend="full_forward", **COLOUR)
    assert genfast.sample(Colours(), 1, backend="full_forward", **COLOUR).shape == (1, 3, 4, 4)


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.body, self.error = plain(), error

    def forward(self, x, *rest, **named):
        raise self.error


ERRORS = [
    (RuntimeError("shapes cannot be multiplied (2x9 and 4x4)\nand more"), "RuntimeError: shapes cannot be multiplied"),
    (AssertionError(), "AssertionError: AssertionError"),
    (KeyError("y"), "KeyError: 'y'"),
]


@pytest.mark.parametrize("backend", ["auto", "cpp", "full_forward"])
@pytest.mark.parametrize("error, message", ERRORS)
def test_an_error_of_forward_says_what_was_called(error, message, backend, capfd):
    keywords = GREY | {"classes": 3, "condition": {"h": torch.zeros(1, 7)}, "backend": backend}
    with pytest.raises(ValueError) as caught:
        genfast.sample(Raises(error), 2, labels=0, **keywords)
    given = r"float32 \[\d, 1, 5, 5\] in input_range \(0, 1\), int64 \[\d\], float32 \[\d, 7\]"
    text = str(caught.value)
    assert re.match(rf"sample: genfast calls model\(x, labels, h=h\) with {given}", text), text
    assert f"which must work; got {message}" in text and "\n" not in text
    assert text.count("sample:") == 1 and type(caught.value.__cause__) is type(error)
    assert capfd.readouterr() == ("", "")


UNTRACEABLE = {
    "a branch": lambda x: x if x.sum() > -1 else -x,
    "an item": lambda x: x if x.mean().item() > -5 else -x,
    "a distribution": lambda x: x + 0 * torch.distributions.Normal(x.mean(), x.std() + 1).sample(),
    "numpy": lambda x: torch.from_numpy(x.numpy().copy()),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_what_cannot_be_traced_prints_no_pages_of_graph(name, capfd):
    model = nn.Sequential(Function(UNTRACEABLE[name]), plain())
    with pytest.warns(RuntimeWarning, match="every value runs the whole network") as warned:
        genfast.sample(model, 1, **GREY)
    texts = [str(one.message) for one in warned if "whole network" in str(one.message)]
    assert len(texts) == 1 and "\n" not in texts[0] and len(texts[0]) < 600
    assert texts[0].count("sample:") == 1
    assert capfd.readouterr() == ("", "")


def test_a_refusal_by_name_prints_nothing_more(capfd):
    with pytest.warns(RuntimeWarning, match=r"aten\.sin at 1 "):
        genfast.sample(nn.Sequential(Masked(1, 4, 3, "A"), Function(torch.sin)), 1, **GREY)
    assert capfd.readouterr() == ("", "")
