"""What a computation is counted as: its arithmetic, its memory, what it keeps; and when a result is the reference's."""

import math

import pytest
import torch
from torch import nn

from genfast import ops
from genfast.benchmarks import matching, work

X, Y = torch.ones(8, 5), torch.ones(5, 3)


@pytest.mark.parametrize(
    "function, flops",
    [
        (lambda: X @ Y, 2 * 8 * 5 * 3),
        (lambda: torch.addmm(torch.ones(3), X, Y), 2 * 8 * 5 * 3),
        (lambda: nn.functional.conv2d(torch.ones(2, 3, 6, 6), torch.ones(4, 3, 3, 3)), 2 * 2 * 4 * 4 * 4 * 27),
        (lambda: (X * 2).exp(), 2 * 40),
        (lambda: X.sum(), 40),
        (lambda: X.softmax(1), 40),
        (lambda: X.t().contiguous().view(-1).clone(), 0),
    ],
)
def test_arithmetic(function, flops):
    assert work.flops(function) == flops


def test_arithmetic_of_a_backward_pass():
    x = X.clone().requires_grad_()
    assert work.flops(lambda: torch.autograd.grad((x @ Y).sum(), x)) == 2 * (2 * 8 * 5 * 3) + 8 * 3


def test_bytes_that_are_kept():
    x, weight = X.clone().requires_grad_(), Y.clone().requires_grad_()
    assert work.kept_bytes(lambda: (x @ weight).exp(), [x, weight]) == 4 * 8 * 3  # of exp, its result
    assert work.kept_bytes(lambda: (x @ weight).exp(), [x]) == 4 * 8 * 3 + 4 * 5 * 3
    gates = torch.randn(2, 4, 4, 1, 12, requires_grad=True)
    scan = torch.randn(1, 2, 3, 12, requires_grad=True)
    kept = work.kept_bytes(lambda: ops.diagonal_lstm(gates, scan), [gates, scan])
    assert kept >= 4 * 2 * 4 * 4 * 3  # the states, at least


def test_bytes_that_are_moved():
    assert work.moved_bytes([X, {"y": Y}], torch.ones(8, 3)) == 4 * (40 + 15 + 24)
    assert work.moved_bytes([X, Y], (torch.ones(8, 3),), [Y]) == 4 * (2 * (40 + 15 + 24) + 15)


def result(**tensors):
    return {name: torch.as_tensor(value) for name, value in tensors.items()}


@pytest.mark.parametrize(
    "got, expected, matches, difference",
    [
        (result(a=[1.0, 2.0]), result(a=[1.0, 2.0]), True, 0.0),
        (result(a=[1.0, 2.1]), result(a=[1.0, 2.0]), False, 0.05),
        (result(a=[0.0, 1000.001]), result(a=[0.0, 1000.0]), True, 1e-6),
        (result(a=[math.nan]), result(a=[1.0]), False, math.inf),
        (result(a=[1.0]), result(a=[math.nan]), False, math.inf),
        (result(a=[1.0]), result(a=[[1.0]]), False, math.inf),
        (result(a=[1, 2, 3, 4]), result(a=[1, 2, 3, 5]), False, 0.25),
        (result(a=[1.0], b=[1.0]), result(a=[1.0]), False, 0.0),
    ],
)
def test_a_result_is_that_of_the_reference(got, expected, matches, difference):
    found = matching.match(
        got, {name: value.double() if value.is_floating_point() else value for name, value in expected.items()}
    )
    assert found.matches == matches and found.difference == pytest.approx(difference, rel=0.1)
