"""Adversarial losses against their formulas over probabilities, one logit at a time, and Salimans' techniques."""

import math

import pytest
import torch

from genfast import losses


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def mean(function, *tensors):
    """The mean of a function of plain numbers."""
    rows = list(zip(*(tensor.flatten().tolist() for tensor in tensors), strict=True))
    return sum(function(*row) for row in rows) / len(rows)


REAL, FAKE = logits(7), logits(7, seed=1)
FORMULAS = {
    "non_saturating_discriminator": lambda: (
        -mean(lambda r: math.log(sigmoid(r)), REAL) - mean(lambda f: math.log(1 - sigmoid(f)), FAKE)
    ),
    "hinge_discriminator": lambda: mean(lambda r: max(0, 1 - r), REAL) + mean(lambda f: max(0, 1 + f), FAKE),
    "wasserstein_discriminator": lambda: mean(lambda f: f, FAKE) - mean(lambda r: r, REAL),
    "least_squares_discriminator": lambda: mean(lambda r: (r - 1) ** 2 / 2, REAL) + mean(lambda f: f**2 / 2, FAKE),
    "relativistic_discriminator": lambda: mean(lambda r, f: -math.log(sigmoid(r - f)), REAL, FAKE),
    "relativistic_generator": lambda: mean(lambda r, f: -math.log(sigmoid(f - r)), REAL, FAKE),
    "non_saturating_generator": lambda: -mean(lambda f: math.log(sigmoid(f)), FAKE),
    "minimax_generator": lambda: mean(lambda f: math.log(1 - sigmoid(f)), FAKE),
    "hinge_generator": lambda: -mean(lambda f: f, FAKE),
    "wasserstein_generator": lambda: -mean(lambda f: f, FAKE),
    "least_squares_generator": lambda: mean(lambda f: (f - 1) ** 2 / 2, FAKE),
}
PAIRED = ("discriminator", "relativistic")


def arguments(name):
    return (REAL, FAKE) if any(word in name for word in PAIRED) else (FAKE,)


def test_every_loss_is_listed():
    listed = {name for name in losses.__all__ if name.endswith(("_discriminator", "_generator"))}
    assert listed - {"semi_supervised_discriminator"} == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name):
    loss = getattr(losses, name)(*arguments(name))
    assert loss.shape == () and float(loss) == pytest.approx(FORMULAS[name](), rel=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_patches_precision_and_gradients(name):
    loss, tensors = getattr(losses, name), arguments(name)
    torch.testing.assert_close(loss(*(t.view(1, 7, 1) for t in tensors)), loss(*tensors))
    half = [t.bfloat16() for t in tensors]
    value = loss(*half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(*(t.float() for t in half)))
    assert torch.autograd.gradcheck(loss, [t.clone().requires_grad_() for t in tensors])
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*tensors), loss(*tensors))


@pytest.mark.parametrize("name", FORMULAS)
def test_extreme_logits_stay_finite(name):
    for value in (1e4, -1e4):
        tensors = [torch.full((2,), value * sign, requires_grad=True) for sign in (1, -1)[: len(arguments(name))]]
        loss = getattr(losses, name)(*tensors)
        loss.backward()
        assert loss.isfinite() and all(t.grad.isfinite().all() for t in tensors)


def test_label_smoothing_is_one_sided():
    def cross_entropy(value, target):
        return -target * math.log(sigmoid(value)) - (1 - target) * math.log(1 - sigmoid(value))

    expected = mean(lambda r: cross_entropy(r, 0.9), REAL) + mean(lambda f: cross_entropy(f, 0.0), FAKE)
    loss = losses.non_saturating_discriminator(REAL, FAKE, smooth=0.1)
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    # The optimum of the smoothed loss is at s(real) = 0.9.
    best = torch.full((1,), math.log(9.0), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.non_saturating_discriminator(best, FAKE, smooth=0.1), best)
    assert abs(float(gradient)) < 1e-12


def test_feature_matching():
    real, fake = logits(5, 3), logits(4, 3, seed=1)
    expected = sum(
        (sum(float(real[i, k]) for i in range(5)) / 5 - sum(float(fake[i, k]) for i in range(4)) / 4) ** 2
        for k in range(3)
    )
    assert float(losses.feature_matching(real, fake)) == pytest.approx(expected, rel=1e-12)
    maps = logits(5, 2, 2, 3), logits(4, 2, 2, 3, seed=1)
    flat = losses.feature_matching(*(part.flatten(1) for part in maps))
    torch.testing.assert_close(losses.feature_matching(*maps), flat)
    assert losses.feature_matching(real.bfloat16(), fake.bfloat16()).dtype == torch.float32
    real.requires_grad_(), fake.requires_grad_()
    losses.feature_matching(real, fake).backward()
    assert real.grad is None and fake.grad.abs().min() > 0, "the data's features are a target"


def test_semi_supervised():
    labelled, labels, unlabelled, fake = (
        logits(4, 3),
        torch.tensor([2, 0, 1, 1]),
        logits(5, 3, seed=1),
        logits(6, 3, seed=2),
    )

    def probabilities(row):
        """Of K + 1 classes, the logit of the last being 0."""
        powers = [math.exp(value) for value in [*row.tolist(), 0.0]]
        return [power / sum(powers) for power in powers]

    expected = 0.0
    for row, label in zip(labelled, labels.tolist()):
        p = probabilities(row)
        expected -= math.log(p[label] / (1 - p[3])) / 4
    for row in unlabelled:
        expected -= math.log(1 - probabilities(row)[3]) / 5
    for row in fake:
        expected -= math.log(probabilities(row)[3]) / 6
    tensors = labelled, labels, unlabelled, fake
    loss = losses.semi_supervised_discriminator(*tensors)
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    compiled = torch.compile(losses.semi_supervised_discriminator, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*tensors), loss)
    extreme = losses.semi_supervised_discriminator(1e4 * labelled.float(), labels, 1e4 * unlabelled, -1e4 * fake)
    assert extreme.isfinite()


def parameters():
    return [torch.nn.Parameter(logits(2, 3)), torch.nn.Parameter(logits(4, seed=1))]


def test_historical_average():
    current = parameters()
    average = losses.HistoricalAverage(current)
    past = []
    for step in range(5):
        past.append([p.detach().clone() for p in current])
        with torch.no_grad():
            for index, p in enumerate(current):
                p.add_(logits(*p.shape, seed=10 * step + index))
        expected = 0.0
        for index, p in enumerate(current):
            for place in range(p.numel()):
                values = [float(old[index].flatten()[place]) for old in past]
                expected += (float(p.detach().flatten()[place]) - sum(values) / len(values)) ** 2
        penalty = average()
        assert penalty.shape == () and float(penalty.detach()) == pytest.approx(expected, rel=1e-9)
        gradients = torch.autograd.grad(penalty, current)
        for index, gradient in enumerate(gradients):
            mean = sum(old[index] for old in past) / len(past)
            torch.testing.assert_close(gradient, 2 * (current[index].detach() - mean))
        average.update()


def test_historical_average_is_saved_and_compiles():
    current, other = parameters(), parameters()
    average, restored = losses.HistoricalAverage(current), losses.HistoricalAverage(other)
    assert float(average()) == 0.0 and not list(average.parameters()), "the network's parameters are not its own"
    for _ in range(3):
        with torch.no_grad():
            for p in current:
                p.mul_(1.5)
        average.update()
    restored.load_state_dict(average.state_dict())
    with torch.no_grad():
        for p, q in zip(current, other):
            q.copy_(p)
    torch.testing.assert_close(restored(), average())
    restored.update(), average.update()
    torch.testing.assert_close(restored(), average())
    compiled = torch.compile(lambda: average(), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(), average())
    torch.compile(average.update, fullgraph=True, backend="eager")()
    restored.update()
    torch.testing.assert_close(restored(), average())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: losses.hinge_generator(torch.zeros(0)), ValueError, "hinge_generator: fake must hold at least one"),
        (lambda: losses.hinge_generator(torch.zeros(2, dtype=torch.int64)), TypeError, "fake must be a float tensor"),
        (lambda: losses.hinge_discriminator(REAL, None), TypeError, "fake must be a float tensor; got NoneType"),
        (
            lambda: losses.relativistic_generator(REAL, FAKE[:3]),
            ValueError,
            r"fake must have the shape of real, \(7,\); got \(3,\)",
        ),
        (lambda: losses.non_saturating_discriminator(REAL, FAKE, 1.0), ValueError, r"smooth must lie in \[0, 1\)"),
        (lambda: losses.feature_matching(logits(4, 3), logits(4, 2)), ValueError, r"must have shape \[B, 3\]"),
        (lambda: losses.feature_matching(logits(0, 3), logits(4, 3)), ValueError, "at least one"),
        (lambda: losses.HistoricalAverage([]), ValueError, "at least one parameter"),
        (lambda: losses.HistoricalAverage(iter([3])), TypeError, "parameters must be tensors"),
        (
            lambda: losses.semi_supervised_discriminator(
                logits(2, 3), torch.tensor([0, 3]), logits(2, 3), logits(2, 3)
            ),
            ValueError,
            r"labels must lie in 0\.\.2; got 3",
        ),
        (
            lambda: losses.semi_supervised_discriminator(logits(2, 3), torch.tensor([0]), logits(2, 3), logits(2, 3)),
            ValueError,
            r"labels must have shape \[2\]; got \(1,\)",
        ),
        (
            lambda: losses.semi_supervised_discriminator(logits(2, 3), torch.zeros(2), logits(2, 3), logits(2, 3)),
            TypeError,
            "labels must be torch.int64",
        ),
        (
            lambda: losses.semi_supervised_discriminator(logits(1, 3), torch.tensor([0]), logits(2, 2), logits(2, 3)),
            ValueError,
            r"unlabelled must have shape \[B, 3\]",
        ),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
