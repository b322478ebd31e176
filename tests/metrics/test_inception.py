"""The inception score against a double loop over samples and classes, and in closed form."""

import math

import numpy as np
import pytest
import torch

from genfast.metrics import inception_score


def by_loops(p, splits):
    scores = []
    for part in np.array_split(p, splits):
        marginal, total = part.mean(0), 0.0
        for row in part:
            for share, overall in zip(row, marginal, strict=True):
                total += share * (math.log(share) - math.log(overall)) if share > 0 else 0.0
        scores.append(math.exp(total / len(part)))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("splits", [1, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inception_score_is_that_of_a_double_loop(splits, dtype):
    p = (3 * torch.randn(205, 7)).softmax(1)
    p[:20] = torch.eye(7)[torch.arange(20) % 7]
    score = inception_score(p.to(dtype), splits)
    assert score == pytest.approx(by_loops(p.double().numpy(), splits), abs=1e-6)
    assert 1.2 < score[0] < 6


def test_inception_score_in_closed_form():
    """Constants: 1. Sure and even over K classes: K. Sure and of M classes: M. Halves of two pairs: 2."""
    assert inception_score(torch.rand(1, 10).softmax(1).expand(60, 10)) == pytest.approx((1, 0), abs=1e-9)
    assert inception_score(torch.eye(10).repeat(30, 1)) == pytest.approx((10, 0), abs=1e-9)
    assert inception_score(torch.eye(10)[torch.arange(40) % 4], 1)[0] == pytest.approx(4)
    pairs = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).repeat(10, 1)
    assert inception_score(pairs, 2) == pytest.approx((2, 0), abs=1e-9)
    rows = torch.eye(3).repeat_interleave(5, 0)
    assert inception_score(rows, 3) == pytest.approx((1, 0), abs=1e-9), "each part is of one class"


def test_bad_probabilities():
    p = torch.rand(20, 4).softmax(1)
    for given, splits, error, text in (
        (p.tolist(), 2, TypeError, "probabilities must be a float tensor; got list"),
        (p.long(), 2, TypeError, "probabilities must be a float tensor; got torch.int64"),
        (p[0], 2, ValueError, r"probabilities must have shape \[N, K\]; got \(4,\)"),
        (p, 21, ValueError, "splits must lie in 1..N with N=20; got 21"),
        (p, 0, ValueError, "splits must lie in 1..N with N=20; got 0"),
        (p.log(), 2, ValueError, "probabilities must be at least 0, each row of sum 1; got"),
        (p * math.nan, 2, ValueError, "probabilities must be at least 0, each row of sum 1; got"),
    ):
        with pytest.raises(error, match=f"inception_score: {text}"):
            inception_score(given, splits)
