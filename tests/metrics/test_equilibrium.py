"""How a game stands: against scipy, scikit-learn, closed forms, and a toy whose equilibrium is known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import LogisticRegression
from support.rings import RING, RingGAN, play
from torch.utils._python_dispatch import TorchDispatchMode

from genfast.data.gaussian_mixture import GaussianMixture
from genfast.metrics import (
    Accuracy,
    Coverage,
    DualityGap,
    EquilibriumMonitor,
    calibration,
    discriminator_accuracy,
    duality_gap,
    mode_coverage,
    reliability,
    verdict,
    wilson_interval,
)
from genfast.metrics.discriminator import LOSSES
from genfast.metrics.duality_gap import VALUES

UNIFORM = torch.full((8,), 1 / 8)


@pytest.mark.parametrize("right, count", [(0, 10), (3, 10), (10, 10), (512, 1000), (1, 1)])
def test_wilson_interval_is_that_of_scipy(right, count):
    expected = scipy.stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_refuses_what_is_no_share():
    with pytest.raises(ValueError, match="wilson_interval: expected a share in"):
        wilson_interval(1.5, 10)
    with pytest.raises(ValueError, match="wilson_interval: expected a share in"):
        wilson_interval(0.5, 0)


def test_accuracy_counts_by_the_threshold_of_the_loss():
    real, fake = torch.tensor([2.0, 0.25, -1.0, 0.75]), torch.tensor([-2.0, 0.25, 0.75, 0.0])
    for loss, shares in {"non-saturating": (0.75, 0.375), "hinge": (0.75, 0.375), "least-squares": (0.5, 0.75)}.items():
        accuracy = discriminator_accuracy(real, fake, loss)
        assert (accuracy.real, accuracy.fake, accuracy.both) == (*shares, sum(shares) / 2)
        assert (accuracy.low, accuracy.high) == wilson_interval(accuracy.both, 8) and accuracy.count == 8
    patches = discriminator_accuracy(real, fake, images=2)
    assert patches.both == 0.5625 and patches.count == 4 and patches.low < 0.2


def test_a_discriminator_that_says_nothing_is_right_half_of_the_time():
    assert discriminator_accuracy(torch.zeros(50), torch.zeros(30)).both == 0.5


@pytest.mark.parametrize("loss", ["wasserstein", "relativistic"])
def test_threshold_of_a_critic_is_unbiased_and_free_of_its_constant(loss):
    draws = torch.randn(1500, 2, 3).double().exp()
    accuracies = [discriminator_accuracy(*draw, loss).both for draw in draws]
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.02) and np.std(accuracies) > 0.1
    for draw in draws[:20]:
        right = (draw > draw.mean()) == torch.tensor([[True], [False]])
        accuracy = discriminator_accuracy(*(draw + 100), loss)
        assert [accuracy.real, accuracy.fake] == pytest.approx(right.double().mean(1).tolist())


def test_calibration_is_a_logistic_regression():
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(4000, generator=generator).double() * 1.3 + shift for shift in (1.0, -0.4))
    x, y = torch.cat((real, fake))[:, None].numpy(), np.r_[np.ones(4000), np.zeros(4000)]
    judge = LogisticRegression(C=np.inf, tol=1e-10).fit(x, y)
    calibrated = calibration(real, fake)
    assert calibrated.slope == pytest.approx(judge.coef_[0, 0], abs=2e-3)
    assert calibrated.intercept == pytest.approx(judge.intercept_[0], abs=2e-3)
    assert calibrated.real == pytest.approx(judge.predict_proba(x[:4000])[:, 1].mean(), abs=1e-3)
    assert calibrated.fake == pytest.approx(judge.predict_proba(x[4000:])[:, 1].mean(), abs=1e-3)
    assert calibrated.stated_real == pytest.approx(scipy.special.expit(x[:4000]).mean(), abs=1e-12)
    assert calibrated.temperature == pytest.approx(1 / calibrated.slope)


def test_calibration_of_an_optimal_and_of_an_overconfident_discriminator():
    """Of N(1, 1) against N(-1, 1) the logit is 2 x: slope 1; a logit of 6 x is overconfident by 3."""
    generator = torch.Generator().manual_seed(2)
    real, fake = (torch.randn(8000, generator=generator) + shift for shift in (1, -1))
    optimal, sure = calibration(2 * real, 2 * fake), calibration(6 * real, 6 * fake)
    assert optimal.slope == pytest.approx(1, abs=0.05) and optimal.error < 0.015
    assert sure.slope == pytest.approx(optimal.slope / 3, rel=1e-4) and sure.temperature > 2.5 and sure.error > 0.05
    assert sure.real == pytest.approx(optimal.real, abs=1e-4)


def test_calibration_where_nothing_or_everything_is_known():
    same = calibration(torch.full((20,), 3.0), torch.full((20,), 3.0))
    assert (same.slope, same.real, same.fake, same.temperature) == (0, 0.5, 0.5, math.inf)
    apart = calibration(torch.rand(500) + 5, torch.rand(500) - 5)
    assert math.isfinite(apart.slope) and apart.real > 0.99 and apart.fake < 0.01
    assert calibration(torch.rand(9), torch.rand(9), "hinge").error is None


def test_reliability_is_that_of_a_loop():
    real, fake = torch.rand(700) ** 0.5, torch.rand(500)
    weight, said, shares_of_real = reliability(real, fake, bins=7)
    for b in range(7):
        inside = [((part >= b / 7) & (part < (b + 1) / 7)) for part in (real, fake)]
        shares = [float(mask.double().mean()) / 2 for mask in inside]
        assert float(weight[b]) == pytest.approx(sum(shares), abs=1e-6)
        sums = sum(float((part * mask).double().mean()) / 2 for part, mask in zip((real, fake), inside, strict=True))
        assert float(said[b]) == pytest.approx(sums / sum(shares), abs=1e-6)
        assert float(shares_of_real[b]) == pytest.approx(shares[0] / sum(shares), abs=1e-6)
    assert float(reliability(real * 0.1, fake * 0.1, 5)[0][4]) == 0


@pytest.mark.parametrize("call", [discriminator_accuracy, calibration])
def test_bad_logits(call):
    x, name = torch.rand(3), call.__name__
    for real, fake, loss, text in (
        (x, x, "cross", "loss must be one of non-saturating, minimax, least-squares, hinge, wasserstein, relativistic"),
        (x, x[:0], "hinge", "fake must be float logits, at least one; got torch.float32 (0,)"),
        (x.long(), x, "hinge", "real must be float logits, at least one; got torch.int64 (3,)"),
        (x, x * math.nan, "hinge", "fake must be finite; got a NaN or an infinity"),
    ):
        with pytest.raises(ValueError) as raised:
            call(real, fake, loss)
        assert str(raised.value).startswith(f"{name}: {text}")


def observed(loss, steps=7, seed=0, batch=16):
    generator = torch.Generator().manual_seed(seed)
    pairs = [torch.randn(2, batch, generator=generator) + torch.tensor([[0.5], [-0.2]]) for _ in range(steps)]
    monitor = EquilibriumMonitor(loss)
    for real, fake in pairs:
        monitor.observe(real, fake)
    return monitor, torch.cat(pairs, 1)


@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "least-squares"])
def test_record_is_of_the_whole_window(loss):
    monitor, (real, fake) = observed(loss)
    record, expected = monitor.record(), discriminator_accuracy(real, fake, loss)
    names = ("accuracy_real", "accuracy_fake", "accuracy", "accuracy_low", "accuracy_high", "accuracy_count")
    assert [record[name] for name in names] == list(vars(expected).values())
    fitted = calibration(real, fake, loss)
    assert record["d_real"] == fitted.real and record["calibration_slope"] == fitted.slope
    assert record.get("calibration_error") == fitted.error
    assert all(isinstance(value, (int, float)) for value in record.values())
    assert monitor.record() == {}, "a window of its own"


def test_a_critic_that_drifts_is_judged_step_by_step():
    steady, drifting = (EquilibriumMonitor("wasserstein") for _ in range(2))
    for step in range(20):
        real, fake = torch.randn(32) + 2, torch.randn(32)
        steady.observe(real, fake)
        drifting.observe(real + 50 * step, fake + 50 * step)
    steady, drifting = steady.record(), drifting.record()
    assert steady["accuracy"] > 0.8 and drifting == pytest.approx(steady, abs=1e-3)
    assert "calibration_error" not in steady


def test_a_monitor_goes_on_where_its_state_was_saved():
    whole, _ = observed("relativistic")
    saved, _ = observed("relativistic")
    again = EquilibriumMonitor("relativistic")
    again.load_state_dict(saved.state_dict())
    for monitor in (whole, again):
        monitor.observe(torch.arange(4.0), torch.zeros(4), images=2)
    assert again.record() == whole.record()
    again.load_state_dict(EquilibriumMonitor("relativistic").state_dict())
    assert again.record() == {}


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


def test_observing_copies_and_never_reads():
    """What waits for a device reads a value: `_local_scalar_dense`, or a copy to the host."""
    monitor = EquilibriumMonitor()
    real = torch.ones(4, 2, requires_grad=True)
    with Ops() as ops:
        monitor.observe(real * 2, real)
    names = {op.overloadpacket.__name__ for op in ops.seen} - {"mul"}
    assert names <= {"detach", "_to_copy", "view", "_unsafe_view", "reshape", "clone"} and "_to_copy" in names
    with torch.no_grad():
        real.fill_(-3)
    kept, other, images = monitor.window[0]
    assert not kept.requires_grad and kept.tolist() == [2] * 8 and other.tolist() == [1] * 8 and images == 8


def test_a_window_without_end_keeps_the_latest():
    monitor = EquilibriumMonitor(limit=50)
    for step in range(30):
        monitor.observe(torch.full((10,), float(step)), torch.zeros(10))
    assert [float(real[0]) for real, *_ in monitor.window] == [25, 26, 27, 28, 29]
    assert monitor.record()["accuracy_count"] == 100


def test_monitor_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="EquilibriumMonitor: loss must be one of non-saturating"):
        EquilibriumMonitor("l1")
    monitor = EquilibriumMonitor()
    monitor.observe(torch.tensor([math.nan]), torch.zeros(1))
    with pytest.raises(FloatingPointError, match="EquilibriumMonitor: logits must be finite"):
        monitor.record()


def test_covered_classes_are_in_the_records():
    monitor = EquilibriumMonitor()
    monitor.cover(torch.tensor([0, 0, 1, -1]), torch.tensor([0, 1, 2]), 3)
    record = monitor.record()
    assert (record["classes_hit"], record["classes"], record["class_outside"]) == (2, 3, 0.25)
    assert record["class_kl"] == pytest.approx(scipy.stats.entropy([2 / 3, 1 / 3, 0], [1 / 3] * 3))


def test_coverage_is_that_of_scipy():
    generator = torch.Generator().manual_seed(0)
    generated = torch.randint(0, 6, (500,), generator=generator)
    data = torch.randint(0, 10, (900,), generator=generator) ** 2 // 10 % 8
    coverage = mode_coverage(generated % 5, data, 8)
    counts, shares = (torch.bincount(x, minlength=8).numpy() for x in (generated % 5, data))
    there = shares > 0
    assert (counts[~there] == 0).all()
    assert coverage.kl == pytest.approx(scipy.stats.entropy(counts[there], shares[there]), abs=1e-12)
    assert (coverage.hit, coverage.classes, coverage.outside) == (int((counts > 0).sum()), int(there.sum()), 0)


def test_coverage_in_closed_form():
    """One of K classes: log K; half of them: log 2; a class that the data have not: infinite."""
    assert mode_coverage(torch.zeros(9).long(), UNIFORM, 8).kl == pytest.approx(math.log(8))
    half = mode_coverage(torch.arange(400) % 4, UNIFORM, 8)
    assert half.kl == pytest.approx(math.log(2)) and half.hit == 4
    assert mode_coverage(torch.tensor([0, 1]), torch.tensor([0, 0]), 2).kl == math.inf
    outside = mode_coverage(torch.full((5,), -1), UNIFORM, 8)
    assert (outside.hit, outside.kl, outside.outside) == (0, math.inf, 1)
    once = torch.arange(8).repeat(100)
    once[once == 3] = 4
    once[0] = 3
    assert mode_coverage(once, UNIFORM, 8).hit == 7, "one sample in 800 is a mistake of the classifier"
    assert mode_coverage(once, UNIFORM, 8, least=0).hit == 8


def test_bad_classes():
    for predicted, labels, text in (
        (torch.tensor([8]), UNIFORM, "predicted must lie in -1..7; got 8 to 8"),
        (torch.zeros(0).long(), UNIFORM, "predicted must be integers [N], at least one; got torch.int64 (0,)"),
        (torch.zeros(2).long(), torch.tensor([-1, 0]), "labels must lie in 0..7; got -1 to 0"),
        (torch.zeros(2).long(), UNIFORM[:4], "labels must be shares [K] with K=8; got (4,)"),
    ):
        with pytest.raises(ValueError) as raised:
            mode_coverage(predicted, labels, 8)
        assert str(raised.value) == f"mode_coverage: {text}"


def test_the_mixture_has_its_density():
    """Integral 1, the entropy of its own samples, and samples at their modes."""
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    assert float(RING.log_prob(points).exp().sum()) * (10 / 400) ** 2 == pytest.approx(1, abs=1e-6)
    judge = [scipy.stats.multivariate_normal(mean, 0.4**2 * np.eye(2)) for mean in RING.means.numpy()]
    expected = np.log(np.mean([mode.pdf(points[:500].numpy()) for mode in judge], 0))
    assert np.abs(RING.log_prob(points[:500]).numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    ring = GaussianMixture.ring(8, 1.0, 0.05)
    x, modes = ring.sample(4000, torch.Generator().manual_seed(0))
    assert (ring.modes(x) == modes).double().mean() > 0.995 and (ring.modes(x + 9) == -1).all()
    with pytest.raises(ValueError, match="GaussianMixture: expected means"):
        GaussianMixture(torch.zeros(3), 0.1)


def judged(generator, n=4000):
    """The verdict on a generator that is a mixture, with the optimal discriminator between it and the ring."""
    seeds = torch.Generator().manual_seed(3)
    real, fake = RING.sample(n, seeds)[0], generator.sample(n, seeds)[0]
    accuracy = discriminator_accuracy(*(RING.log_prob(x) - generator.log_prob(x) for x in (real, fake)))
    return verdict(accuracy, mode_coverage(RING.modes(fake), UNIFORM, 8), variance=variance(fake) / variance(real))


def variance(x):
    return float(x.var(0).sum())


def test_verdict_at_the_known_ends():
    fitted = GaussianMixture(RING.means + 0.01, 0.41)
    assert judged(fitted).words == "at equilibrium"
    assert judged(RING).words == "at equilibrium"
    collapsed = judged(GaussianMixture(RING.means[:1], 0.2))
    assert collapsed.words == "collapsed" and "1 of 8 classes generated" in str(collapsed)
    far = judged(GaussianMixture(RING.means + 20, 0.4))
    assert far.words == "discriminator ahead" and "right on 100.0 % of 8000 images" in far.reasons[0]
    assert judged(GaussianMixture(RING.means[1:], 0.4)).words == "partly collapsed"


def test_verdict_of_numbers():
    def right(share, count=10000):
        return Accuracy(share, share, share, *wilson_interval(share, count), count)

    whole = Coverage(8, 8, 0.01, 0.0, UNIFORM)
    assert verdict(right(0.52)).words == "at equilibrium"
    assert verdict(right(0.52, 50)).words == "undecided"
    assert verdict(right(0.6), whole).words == "discriminator ahead"
    assert verdict(right(0.3), whole).words == "generator ahead"
    assert verdict(right(0.5), Coverage(8, 8, 0.1, 0.7, UNIFORM)).words == "generator ahead"
    assert verdict(right(0.5), variance=0.01).words == "collapsed"
    better = DualityGap(0.9, -1.38, -0.5, -1.4, right(0.9))
    judgement = verdict(right(0.5), whole, better)
    assert judgement.words == "generator ahead" and "duality gap 0.900" in str(judgement)
    assert verdict(right(0.5), whole, DualityGap(0.0, -1.38, -1.38, -1.38, right(0.5))).words == "at equilibrium"


class Known(RingGAN):
    """Its generator is the ring itself, moved; its discriminator knows nothing at first."""

    def __init__(self, shift, loss):
        super().__init__()
        self.generator, self.adversarial_loss = torch.nn.Linear(2, 2), loss
        with torch.no_grad():
            self.generator.weight.copy_(torch.eye(2))
            self.generator.bias.fill_(shift)
            self.discriminator[-1].weight.zero_()
            self.discriminator[-1].bias.fill_(0.5 if loss == "least-squares" else 0.0)

    def generate(self, n):
        return self.generator(RING.sample(n)[0])


@pytest.mark.parametrize("loss", VALUES)
def test_duality_gap_is_zero_at_the_equilibrium_alone(loss):
    """All of them are trained by the non-saturating loss: what is asked is the value."""
    assert list(VALUES) == list(LOSSES)
    equilibrium = {"least-squares": -0.25, "hinge": -2.0, "wasserstein": 0.0, "relativistic": -math.log(2)}
    data = (RING.sample(2048)[0],)
    at = duality_gap(Known(0.0, loss), data, steps=20)
    assert at.value == pytest.approx(equilibrium.get(loss, -math.log(4)), abs=1e-6)
    assert 0 <= at.gap < (0.5 if loss == "wasserstein" else 0.05)
    away = duality_gap(Known(1.5, loss), data, steps=20)
    assert away.value == pytest.approx(at.value, abs=1e-6) and away.discriminator > away.value
    if loss in ("non-saturating", "minimax", "hinge", "relativistic", "wasserstein"):
        assert away.gap > 4 * at.gap and away.accuracy.low > 0.6


def test_duality_gap_tells_by_what():
    """A generator that a discriminator of long training knows to be wrong can still gain; both responses are found."""
    torch.manual_seed(0)
    model, data = Known(3.0, "non-saturating"), (RING.sample(2048)[0],)
    play(model, 60, generator_rate=1e-9, discriminator_rate=3e-3, window=60)
    duality = duality_gap(model, data, steps=60, rate=5e-2)
    assert duality.generator < duality.value - 0.3 and duality.discriminator >= duality.value
    assert duality.gap == pytest.approx(duality.discriminator - duality.generator)


def test_duality_gap_leaves_everything_as_it_was():
    model, data = RingGAN(0.1).eval(), (RING.sample(300)[0],)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    one, other = (duality_gap(model, data, steps=5, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert one == other != duality_gap(model, data, steps=5, seed=2)


def test_duality_gap_is_that_of_shuffled_data_where_they_are_sorted():
    """The last of them are of modes that a discriminator would not see while it is trained."""
    x, modes = RING.sample(2048, torch.Generator().manual_seed(0))
    gaps = [
        duality_gap(Known(0.7, "non-saturating"), (x[order],), steps=20) for order in (modes.argsort(), slice(None))
    ]
    assert gaps[0].discriminator == pytest.approx(gaps[1].discriminator, abs=0.03), gaps


def test_duality_gap_refuses_what_it_cannot_play():
    with pytest.raises(ValueError, match="duality_gap: data must hold at least 4 samples; got 3"):
        duality_gap(RingGAN(), (torch.zeros(3, 2),))
    with pytest.raises(ValueError, match="duality_gap: loss must be one of"):
        duality_gap(RingGAN(), (torch.zeros(9, 2),), loss="l2")
    model = RingGAN()
    with torch.no_grad():
        model.discriminator[0].weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="duality_gap: the value of the game must be finite; got nan"):
        duality_gap(model, (torch.zeros(9, 2),))


def standing(model, record):
    with torch.no_grad():
        samples = model.generate(2000)
    names = ("accuracy_real", "accuracy_fake", "accuracy", "accuracy_low", "accuracy_high", "accuracy_count")
    coverage = mode_coverage(RING.modes(samples), UNIFORM, 8)
    return verdict(Accuracy(*(record[name] for name in names)), coverage)


def test_training_reaches_either_end():
    """Penalties and a relativistic loss: the equilibrium. A generator of many steps without them: one mode. A generator
    that stands still: the discriminator's."""
    torch.manual_seed(0)
    model = RingGAN(gamma=0.1)
    judgement = standing(model, play(model, 900))
    assert judgement.words == "at equilibrium" and "8 of 8 classes" in str(judgement)
    model = RingGAN()
    judgement = standing(
        model, play(model, 250, discriminator_rate=3e-4, generator_rate=3e-3, generator_steps=5, window=50)
    )
    assert judgement.words == "collapsed", str(judgement)
    model = RingGAN()
    assert standing(model, play(model, 200, generator_rate=1e-6, window=50)).words == "discriminator ahead"
