"""`check` of models that take or return other forms than tensors [B, C, H, W]."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

import genfast

SHAPE, LEVELS = (1, 3, 4), 5


class Sequence(nn.Module):
    """Logits of each value from the one before it; `returned` is made of the logits [B, H * W, L]."""

    def __init__(self, returned):
        super().__init__()
        torch.manual_seed(2)
        self.table, self.returned = nn.Embedding(LEVELS, LEVELS), returned

    def forward(self, x):
        before = F.pad(self.table(x)[:, :-1], (0, 0, 1, 0))
        return self.returned(before)


class Scaled(Sequence):
    """The same of floats in -1..1, with a distribution of images as its output."""

    def forward(self, x):
        return super().forward(((x + 1) * 2).round().long().flatten(1))


def test_a_distribution_is_read():
    model = Scaled(lambda logits: Categorical(logits=logits.unflatten(1, SHAPE[1:])))
    images = torch.randint(LEVELS, (4, *SHAPE), generator=torch.Generator().manual_seed(1))

    def nll(levels):
        return -model(levels / 2.0 - 1).log_prob(levels[:, 0].long()).sum((1, 2))

    told = {"shape": SHAPE, "levels": LEVELS}
    assert genfast.check(model, images, nll, **told, input_range=(-1, 1)).ok
    with pytest.warns(RuntimeWarning, match=r"input_range should be \(-1, 1\)"):
        wrong = genfast.check(model, images, nll, **told, input_range=(1, -1))
    assert not wrong.ok and "input_range=(-1, 1) makes them agree" in wrong.remedy


def test_flat_levels_have_no_range():
    model = Sequence(lambda logits: logits)
    images = torch.randint(LEVELS, (4, *SHAPE), generator=torch.Generator().manual_seed(1))

    def nll(levels):
        logits = model(levels.flatten(1).long()).movedim(2, 1)
        return F.cross_entropy(logits, levels.flatten(1).long(), reduction="none").sum(1)

    told = {"shape": SHAPE, "levels": LEVELS, "output": "B (H W) L"}
    assert genfast.check(model, images, nll, **told, inputs="flat-levels").ok
    wrong = genfast.check(model, images, nll, **told, inputs="levels")
    assert not wrong.ok and wrong.remedy.startswith("inputs='flat-levels' makes them agree"), wrong.remedy
