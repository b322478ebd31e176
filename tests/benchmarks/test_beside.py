"""A user's own layer beside ours."""

import pytest
import torch
from torch import nn

import genfast
from genfast.benchmarks import compare

X = torch.randn(4, 8, 6, 6)
SHORT = {"seconds": 0.01, "passes": 1}


def test_one_that_computes_the_same():
    ours, theirs = genfast.nn.BiasAct(8, "relu"), nn.ReLU()
    result = compare({"mine": theirs, "genfast": ours}, [X.clone().requires_grad_()], **SHORT)
    assert [row.direction for row in result.rows] == ["forward", "forward+backward"]
    for row in result.rows:
        assert list(row.times) == ["genfast", "mine"] and row.match and row.difference == 0
    text = str(result)
    assert text.count("the same results") == 2 and "mine" in text and " 1.00x" in text


def test_without_a_gradient_only_forward():
    result = compare({"a": torch.sin, "b": torch.cos}, [X], **SHORT)
    (row,) = result.rows
    assert row.direction == "forward" and list(row.times) == ["b", "a"] and row.match is False
    assert "DIFFERENT RESULTS" in str(result) and row.kept_bytes is None


def test_one_with_another_gradient():
    x = X.clone().requires_grad_()
    result = compare({"mine": lambda x: 2 * x - x.detach(), "genfast": lambda x: x}, [x], **SHORT)
    assert [row.match for row in result.rows] == [True, False]


def test_times_of_a_busy_machine_say_so(monkeypatch):
    monkeypatch.setattr("genfast.benchmarks.machine.Neighbours.cores", lambda self: 1.5)
    assert "others kept 1.5 cores busy" in str(compare({"a": torch.sin, "b": torch.sin}, [X], **SHORT))


def test_errors():
    with pytest.raises(ValueError, match=r"^compare: contenders must be at least two; got 1$"):
        compare({"a": torch.sin}, [X])
    with pytest.raises(TypeError, match=r"^compare: contenders must be functions or modules; got int as 'b'$"):
        compare({"a": torch.sin, "b": 3}, [X])
