"""FID and KID beside torchmetrics and torch-fidelity where they are installed, else beside `genfast.metrics`."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from genfast.compat import torch_fidelity, torchmetrics
from genfast.metrics import frechet_distance


def features(dtype=torch.float32):
    return torch.randn(70, 6, dtype=dtype), 1.3 * torch.randn(60, 6, dtype=dtype) + 0.2


def updated(metric, real, fake):
    for part in real.split(32):
        metric.update(part, real=True)
    for part in fake.split(32):
        metric.update(part, real=False)
    return metric


def test_fid_of_torchmetrics():
    original = pytest.importorskip("torchmetrics.image.fid")
    sets = features()

    class Network(nn.Identity):
        num_features = 6

    mine = updated(torchmetrics.FrechetInceptionDistance(Network()), *sets)
    theirs = updated(original.FrechetInceptionDistance(Network()), *sets)
    torch.testing.assert_close(mine.compute(), theirs.compute(), rtol=1e-5, atol=1e-5)


def test_kid_of_torchmetrics():
    original = pytest.importorskip("torchmetrics.image.kid")
    sets = features(torch.float64)
    for options in ({}, {"degree": 2, "gamma": 0.3, "coef": 0.5}):
        results = []
        for module in (torchmetrics, original):
            metric = updated(module.KernelInceptionDistance(nn.Identity(), 5, 40, **options), *sets)
            torch.manual_seed(1)
            results.append(metric.compute())
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_fid_and_kid_of_torch_fidelity():
    pytest.importorskip("torch_fidelity")
    from torch_fidelity import metric_fid, metric_kid

    sets = features()
    stats = [[module.fid_features_to_statistics(x) for x in sets] for module in (torch_fidelity, metric_fid)]
    for mine, theirs in zip(*stats):
        for key in ("mu", "sigma"):
            np.testing.assert_allclose(mine[key], theirs[key], rtol=1e-5, atol=1e-6)
    mine = torch_fidelity.fid_statistics_to_metric(*stats[0], False)
    theirs = metric_fid.fid_statistics_to_metric(*stats[0], False)
    assert mine == pytest.approx(theirs, rel=1e-5)
    for options in ({}, {"kid_kernel_poly_degree": 2, "rng_seed": 4}, {"kid_kernel": "rbf", "kid_kernel_rbf_sigma": 2}):
        settings = {"kid_subsets": 4, "kid_subset_size": 30, "verbose": False, **options}
        doubles = [x.double() for x in sets]
        mine, theirs = (m.kid_features_to_metric(*doubles, **settings) for m in (torch_fidelity, metric_kid))
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-9)


def test_without_the_packages():
    """Moments of numpy and a root of scipy; and the metrics see what their updates gave them."""
    real, fake = features(torch.float64)
    stats = [torch_fidelity.fid_features_to_statistics(x) for x in (real, fake)]
    np.testing.assert_allclose(stats[0]["sigma"], np.cov(real.numpy(), rowvar=False), rtol=1e-12)
    (mu, sigma), (nu, tau) = (stat.values() for stat in stats)
    expected = ((mu - nu) ** 2).sum() + np.trace(sigma + tau - 2 * scipy.linalg.sqrtm(sigma @ tau).real)
    assert torch_fidelity.fid_statistics_to_metric(*stats)["frechet_inception_distance"] == pytest.approx(expected)
    metric = updated(torchmetrics.FrechetInceptionDistance(nn.Identity(), reset_real_features=False), real, fake)
    assert float(metric.compute()) == pytest.approx(frechet_distance(real, fake))
    metric.reset()
    metric.update(real[:30], real=False)
    assert float(metric.compute()) == pytest.approx(frechet_distance(real, real[:30]))
    with pytest.raises(RuntimeError, match="compute needs"):
        torchmetrics.FrechetInceptionDistance(nn.Identity()).compute()


def test_refusals():
    with pytest.raises(TypeError, match="feature must be a module"):
        torchmetrics.FrechetInceptionDistance(2048)
    with pytest.raises(ValueError, match="normalize must be False"):
        torchmetrics.KernelInceptionDistance(nn.Identity(), normalize=True)
    with pytest.raises(ValueError, match="subset_size must be at most"):
        updated(torchmetrics.KernelInceptionDistance(nn.Identity()), *features()).compute()
    with pytest.raises(ValueError, match="kid_kernel must be poly or rbf"):
        torch_fidelity.kid_features_to_metric(*features(), kid_kernel="linear")
