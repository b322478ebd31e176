"""Tests of dependence, of two sets and of duplicates: right on known answers, and uniform where nothing is planted."""

import math

import numpy as np
import pytest
import torch

from genfast import metrics


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_g_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    from genfast.metrics.dependence import g_statistics

    codes = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1, 2, -1])
    partition = torch.tensor([0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1])
    observed, null = g_statistics(codes, partition[None], permutations=20)
    table = np.zeros((3, 2))
    np.add.at(table, (codes[:-1].numpy(), partition[:-1].numpy()), 1)
    wanted = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert float(observed) == pytest.approx(wanted) and null.shape == (20, 1)


def test_dependence_is_found_and_its_partition_named():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(2, (400,), generator=generator)
    noise = torch.randint(8, (400,), generator=generator)
    tied = torch.where(torch.rand(400, generator=generator) < 0.6, codes, torch.randint(2, (400,), generator=generator))
    found = metrics.dependence(codes, torch.stack((noise, tied)), permutations=199)
    assert found.p == 1 / 200 and found.partition == 1 and found.strength > 5 and found.information > 0.05
    assert found.null.equal(metrics.dependence(codes, torch.stack((noise, tied)), permutations=199).null)


def test_p_is_uniform_without_a_dependence():
    p = []
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        codes, *others = (torch.randint(k, (80,), generator=generator) for k in (3, 2, 5, 20))
        p.append(metrics.dependence(codes, torch.stack(others), permutations=39, seed=seed).p)
    # Of 60, a binomial of share 0.1 exceeds 13 with probability 0.003.
    assert sum(value <= 0.1 for value in p) <= 13 and 0.38 < np.mean(p) < 0.64


def test_pairs_that_go_together():
    z = normal(500, 5)
    z[:, 3] = z[:, 1].square() + 0.3 * z[:, 3]  # no correlation, and yet
    found = metrics.pairwise_dependence(z, permutations=99)
    q = metrics.benjamini_hochberg(found.p[tuple(torch.triu_indices(5, 5, 1))])
    assert (q <= 0.05).nonzero()[:, 0].tolist() == [5]  # 1 and 3
    assert torch.equal(found.information, found.information.T) and found.information[1, 3] > 0.2


def test_total_correlation_of_a_gaussian():
    z = normal(4000, 2)
    z[:, 1] = 0.6 * z[:, 0] + 0.8 * z[:, 1]
    found, p = metrics.total_correlation(z, permutations=19)
    assert found == pytest.approx(-0.5 * math.log(1 - 0.36), abs=0.03) and p == 1 / 20
    none, p = metrics.total_correlation(normal(1000, 3), permutations=19)
    assert none < 0.005 and p > 0.05


def test_benjamini_hochberg():
    stats = pytest.importorskip("scipy.stats")
    p = torch.tensor([0.001, 0.04, 0.03, 0.9, 0.2])
    wanted = stats.false_discovery_control(p.double().numpy())
    torch.testing.assert_close(metrics.benjamini_hochberg(p), torch.from_numpy(wanted))
    assert metrics.benjamini_hochberg(torch.zeros(0)).shape == (0,)
    with pytest.raises(ValueError, match=r"^benjamini_hochberg: p must be numbers from 0 to 1"):
        metrics.benjamini_hochberg(torch.tensor([2.0]))


def test_two_samples():
    a, b = normal(300, 4), normal(200, 4, seed=1)
    same = metrics.two_sample_test(a, b, permutations=99)
    apart = metrics.two_sample_test(a, b + 0.5, permutations=99)
    assert same.p > 0.02 and same.low < 0 < same.high
    assert apart.p == 0.01 and apart.low > 0 and apart.mmd > same.mmd
    p, strength = metrics.share_test(
        torch.cat((a > 0, b + torch.tensor([0.0, 0, 0, 0.6]) > 0)).long(), 300, permutations=99
    )
    assert p[3] == 0.01 and p[:3].min() > 0.02 and strength.argmax() == 3


def test_the_interval_of_the_mmd_covers():
    """The MMD of many pairs of sets, and how often the interval holds what it is in the long run."""
    found = [
        metrics.two_sample_test(normal(150, 2, seed=s), normal(150, 2, seed=s + 500) + 0.6, permutations=49)
        for s in range(40)
    ]
    truth = np.mean([one.mmd for one in found])
    covered = sum(one.low < truth < one.high for one in found)
    assert covered >= 33, covered  # of 40 at 95 %: 32 or fewer has a probability of 0.0003


@pytest.mark.parametrize("noise", (0.0, 0.02))
def test_a_copy_is_found(noise):
    x = normal(400, 8)
    x[7] = x[123] + noise * normal(8, seed=2)
    found = metrics.near_duplicates(x)
    assert found.pairs.tolist() == [[7, 123]] and float(found.p) < 0.01 and float(found.ratio) < found.limit


def test_no_copy_is_found_in_sets_without():
    clean = [normal(300, d, seed=s) * torch.logspace(0, -1, d) for s in range(4) for d in (2, 5, 12)]
    assert sum(len(metrics.near_duplicates(x).pairs) for x in clean) == 0
    assert not len(metrics.near_duplicates(normal(10, 3)).pairs)


def test_many_copies_of_one():
    x = normal(200, 5, seed=3)
    x[:40] = x[50]
    found = metrics.near_duplicates(x)
    assert len(found.pairs) >= 39 and float(found.distance.max()) == 0


@pytest.mark.parametrize(
    "call, message",
    (
        (lambda: metrics.dependence(torch.zeros(3), torch.zeros(3)), r"^dependence: codes and partitions must have"),
        (lambda: metrics.pairwise_dependence(torch.zeros(3, 1)), r"^pairwise_dependence: values must have shape"),
        (lambda: metrics.total_correlation(torch.zeros(3, 3)), r"^total_correlation: values must have shape"),
        (lambda: metrics.two_sample_test(torch.zeros(3, 2), torch.zeros(3, 3)), r"^two_sample_test: a and b must"),
        (lambda: metrics.near_duplicates(torch.zeros(3)), r"^near_duplicates: x must be floats"),
    ),
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
