"""Sampling: the right distribution, the same images however they are asked for, and one error for what cannot be."""

import copy
import gc
import inspect
import itertools
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from support.foreign import Foreign
from support.sampled import (
    BACKENDS,
    chi_square,
    every_backend,
    every_image,
    every_tiny,
    exact,
    label_of,
    numbers,
    tiny,
)
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine import engine as engines
from genfast.engine.engine import Engine
from genfast.likelihoods import Categorical
from genfast.models import PixelCNN, PixelCNNConfig, build
from genfast.testing import assert_matches

COUNTS = {"full_forward": 4000, "torch": 4000, "cpp": 100_000}
needs_cpp = pytest.mark.skipif("cpp" not in BACKENDS, reason="needs the C++ core")


def bits_known(height, width):
    """A mask in which every second pixel, the second, fourth ..., is known: bool [1, 1, H, W]."""
    return (torch.arange(height * width) % 2 == 1).view(1, 1, height, width)


def simple(**config):
    torch.manual_seed(4)
    sizes = {"height": 4, "width": 5, "hidden": 4, "layers": 1, "head": 6, "levels": 3}
    model = build("pixelcnn", **(sizes | config))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


@every_tiny
@every_backend
def test_samples_have_the_distribution_of_the_model(name, backend):
    model = tiny(name)
    images = genfast.sample(model, COUNTS[backend], seed=5, labels=label_of(model), backend=backend)
    assert chi_square(images, exact(model), model.config.levels) > 1e-4
    assert chi_square(images, exact(model).roll(1), model.config.levels) < 1e-9, "the test would see nothing"


@needs_cpp
@pytest.mark.parametrize("name", ["pixelcnn binary", "pixelcnn colour"])
def test_a_million_samples(name):
    model, every = tiny(name), every_image(tiny(name))
    counts = torch.zeros(len(every), dtype=torch.int64)
    for images in genfast.stream(model, 1_000_000, seed=2, backend="cpp"):
        counts += numbers(images, model.config.levels).bincount(minlength=len(counts))
    assert counts.sum() == 1_000_000
    assert chi_square(every.repeat_interleave(counts, 0), exact(model), model.config.levels) > 1e-4


@every_backend
def test_temperature_divides_the_logits(backend):
    model, every = tiny("pixelcnn colour"), every_image(tiny("pixelcnn colour"))
    with torch.no_grad():
        log_p = (model(every).double() / 2).log_softmax(2)
    p = log_p.gather(2, every[:, :, None].long()).sum((1, 2, 3, 4)).exp()
    images = genfast.sample(model, COUNTS[backend], seed=5, temperature=2.0, backend=backend)
    assert chi_square(images, p, 3) > 1e-4 > chi_square(images, exact(model), 3)


@every_tiny
@every_backend
def test_known_values_are_kept_and_the_others_drawn_from_what_comes_before(name, backend):
    """The probability of an image is then that of its unknown values alone, each given what comes before it."""
    model, every, label = tiny(name), every_image(tiny(name)), label_of(tiny(name))
    c = model.config
    known = bits_known(c.height, c.width).expand(1, c.channels, -1, -1)
    truth = every[exact(model).argmax()][None]
    everything = {"given": every, "known": torch.ones_like(every, dtype=torch.bool), "labels": label}
    drawn = Engine(model, backend="full_forward").run(len(every), seed=0, want=("log_probs",), **everything)
    terms = drawn.log_probs
    fitting = ((every == truth) | ~known).flatten(1).all(1)
    p = torch.where(fitting, torch.where(known[:, : terms.shape[1]], 0, terms).flatten(1).sum(1).exp(), 0)
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    images = genfast.sample(
        model, COUNTS[backend], seed=3, labels=label, given=truth, mask=known[:, :1], backend=backend
    )
    assert torch.equal(images[:, known[0]], truth[:, known[0]].expand(len(images), -1))
    assert chi_square(images, p / p.sum(), c.levels) > 1e-4


@every_tiny
@every_backend
def test_an_image_depends_on_its_number_alone(name, backend):
    model, label = tiny(name), label_of(tiny(name))
    options = {"seed": 2**64 - 1, "labels": label, "backend": backend}
    whole = genfast.sample(model, 60, first=2**63 - 60, **options)
    for size in (1, 7, 59):
        assert torch.equal(genfast.sample(model, 60, first=2**63 - 60, batch_size=size, **options), whole)
    halves = [genfast.sample(model, 30, first=2**63 - 60 + start, **options) for start in (0, 30)]
    assert torch.equal(torch.cat(halves), whole)
    batches = list(genfast.stream(model, 60, batch_size=25, first=2**63 - 60, **options))
    assert [len(batch) for batch in batches] == [25, 25, 10] and torch.equal(torch.cat(batches), whole)
    assert not torch.equal(genfast.sample(model, 60, first=2**63 - 60, **{**options, "seed": 1}), whole)


@every_tiny
def test_every_backend_draws_the_same_images(name):
    """By the same random numbers; a difference needs a number within rounding of a boundary."""
    model, label = tiny(name), label_of(tiny(name))
    options = {"seed": 9, "first": 4, "labels": label, "draw": 3, "want": ("log_probs", "parameters")}
    drawn = [Engine(model, backend=backend).run(500, **options) for backend in BACKENDS]
    for other in drawn[1:]:
        assert torch.equal(other.images, drawn[0].images)
        assert_matches(other.log_probs.float(), drawn[0].log_probs, atol=1e-4)
        assert_matches(other.parameters, drawn[0].parameters, atol=1e-4)
    assert not torch.equal(genfast.sample(model, 500, seed=9, first=4, labels=label), drawn[0].images)


@pytest.mark.parametrize("name", ["pixelcnn binary", "pixelcnn colour", "gated-pixelcnn"])
def test_evidence_on_every_backend(name):
    model, label, c = tiny(name), label_of(tiny(name)), tiny(name).config
    evidence = torch.randn(200, c.channels, c.height, c.width, c.levels)
    evidence[:, 0, 0, 0, 0] = -torch.inf
    options = {"seed": 1, "temperature": 1.5, "labels": label, "evidence": evidence, "want": ("log_evidence",)}
    drawn = [Engine(model, backend=backend).run(200, **options) for backend in BACKENDS]
    assert (drawn[0].images[:, 0, 0, 0] > 0).all()
    for other in drawn[1:]:
        assert torch.equal(other.images, drawn[0].images)
        assert_matches(other.log_evidence.float(), drawn[0].log_evidence, atol=1e-4)


@every_tiny
@every_backend
def test_log_prob(name, backend):
    model, every = tiny(name), every_image(tiny(name))
    with torch.no_grad():
        label = label_of(model)
        expected = model.log_prob(every, None if label is None else torch.full((len(every),), label))
    got = genfast.log_prob(model, every, label, backend=backend)
    assert got.dtype == torch.float64
    assert_matches(got.float(), expected, atol=1e-4)
    assert genfast.log_prob(model, every[:0], label, backend=backend).shape == (0,)


@needs_cpp
@every_tiny
def test_what_is_scored_is_what_was_drawn_from(name):
    model, label = tiny(name), label_of(tiny(name))
    drawn = Engine(model).run(70, seed=3, labels=label, want=("log_probs",))
    for size in (1, 70):
        scores = [genfast.log_prob(model, part, label) for part in drawn.images.split(size)]
        assert torch.equal(torch.cat(scores), drawn.log_probs.flatten(1).sum(1))


@every_backend
def test_sizes_at_the_edge(backend):
    model = simple()
    empty = genfast.sample(model, 0, backend=backend)
    assert empty.shape == (0, 1, 4, 5) and empty.dtype == torch.uint8
    assert list(genfast.stream(model, 0, backend=backend)) == []
    given, mask = (torch.zeros(1, 1, 4, 5, dtype=dtype) for dtype in (torch.uint8, torch.bool))
    none_known = genfast.sample(model, 3, given=given, mask=mask, backend=backend)
    assert torch.equal(none_known, genfast.sample(model, 3, backend=backend))
    last = genfast.stream(model, batch_size=2, first=2**63 - 3, backend=backend)
    assert [len(batch) for batch in last] == [2, 1]


def test_a_stream_without_end():
    model = simple()
    endless = genfast.stream(model, batch_size=4, seed=3)
    parts = list(itertools.islice(endless, 3))
    assert torch.equal(torch.cat(parts), genfast.sample(model, 12, seed=3))
    given, mask = torch.full((1, 1, 4, 5), 2, dtype=torch.uint8), bits_known(4, 5)
    parts = list(itertools.islice(genfast.stream(model, batch_size=4, seed=3, given=given, mask=mask), 2))
    assert torch.equal(torch.cat(parts), genfast.sample(model, 8, seed=3, given=given, mask=mask))


def test_labels_of_every_kind():
    model = tiny("gated-pixelcnn")
    labels = torch.tensor([1, 0, 1, 1, 0], dtype=torch.uint8)
    mixed = genfast.sample(model, 5, labels=labels, batch_size=2)
    for label in (0, 1):
        assert torch.equal(genfast.sample(model, 5, labels=label)[labels == label], mixed[labels == label])
    endless = genfast.stream(model, labels=1, batch_size=5)
    assert torch.equal(next(endless)[labels == 1], mixed[labels == 1])


def test_the_model_may_be_trained_on():
    model = simple()
    before = genfast.sample(model, 50)
    with torch.no_grad():
        model.head[-1].bias.add_(torch.tensor([0.0, 0.0, 99.0]))
    assert not torch.equal(genfast.sample(model, 50), before) and (genfast.sample(model, 50) == 2).all()
    model.head[-1].bias = nn.Parameter(torch.tensor([99.0, 0.0, 0.0]))
    assert (genfast.sample(model, 50) == 0).all()
    model.load_state_dict(simple().state_dict())
    assert torch.equal(genfast.sample(model, 50), before)


def counted(calls, name, function, *arguments):
    calls.append(name)
    return function(*arguments)


@pytest.mark.parametrize("of", ["our own", "somebody else"])
def test_a_model_is_traced_and_compiled_once(of, monkeypatch):
    calls = []
    for name in ("trace_model", "compile_traced"):
        monkeypatch.setattr(engines, name, partial(counted, calls, name, getattr(engines, name)))
    model, options = simple(), {}
    if of == "somebody else":
        model, options = Foreign(1, 4, None), {"shape": (1, 4, 5), "levels": 4, "input_range": (-1, 1)}
    for _ in range(3):
        genfast.sample(model, 2, **options)
    engine = Engine(model, **options)
    engine.log_prob(engine.run(3, seed=1).images)
    assert calls == ["trace_model", "compile_traced"]


def test_an_engine_does_not_keep_a_model():
    model = simple()
    genfast.sample(model, 2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_mode_of_every_module_is_kept():
    model = simple(dropout=0.5)
    expected = genfast.sample(model, 5, seed=1)
    model.train()
    model.head.eval()
    modes = [module.training for module in model.modules()]
    for backend in BACKENDS:
        assert torch.equal(genfast.sample(model, 5, seed=1, backend=backend), expected)
    assert [module.training for module in model.modules()] == modes


def test_explain_names_the_backend_and_the_reasons():
    model = simple()
    explanation = genfast.explain(genfast.sample, model)
    assert explanation.backend == BACKENDS[-1] and set(explanation.others) == set(engines.BACKENDS) - {BACKENDS[-1]}
    assert str(explanation).startswith(f"sample: {BACKENDS[-1]}\n  not ")
    assert genfast.explain("sample", model, backend="torch").backend == "torch"
    doubled = genfast.explain(genfast.sample, copy.deepcopy(model).double())
    assert doubled.backend == "full_forward" and "float64" in doubled.others["cpp"]
    with pytest.raises(RuntimeError, match=r"got 'triton' \(.+\); can serve: .*full_forward"):
        genfast.sample(model.double() if torch.cuda.is_available() else model, 1, backend="triton")
    with pytest.raises(RuntimeError, match=r"got 'torch' \(computes in float32.*can serve: full_forward$"):
        genfast.sample(copy.deepcopy(model).double(), 1, backend="torch")


def test_what_the_package_offers():
    model = simple()
    assert torch.equal(genfast.sample(model, n=2, seed=1), model.sample(2, seed=1))
    assert list(inspect.signature(genfast.sample).parameters)[:3] == ["model", "n", "seed"]
    assert {"sample", "stream", "denoise"} <= set(dir(genfast))
    with pytest.raises(AttributeError, match="'samples'"):
        genfast.samples  # noqa: B018


class Pooled(PixelCNN):
    """Has a part that no engine runs pixel by pixel: the mean of the rows before, which is causal."""

    def network(self, x, labels):
        means = x.mean((1, 3)).cumsum(1)
        features = super().network(x, labels)
        return features + F.pad(means[:, :-1], (1, 0))[:, None, :, None] * features.new_tensor([1.0, 0.0, -1.0]).view(
            1, 3, 1, 1
        )


def test_what_cannot_be_run_pixel_by_pixel_is_named_and_still_sampled():
    torch.manual_seed(0)
    model = Pooled(PixelCNNConfig(height=3, width=2, levels=3, hidden=3, layers=1, head=4)).eval()
    explanation = genfast.explain(genfast.sample, model)
    assert explanation.backend == "full_forward" and "aten.mean" in explanation.others["torch"]
    images = genfast.sample(model, 3, seed=1)
    assert torch.equal(images, genfast.sample(model, 3, seed=1, backend="full_forward"))
    assert_matches(genfast.log_prob(model, images).float(), model.log_prob(images).detach(), atol=1e-5)
    with pytest.raises(RuntimeError, match="backend must be able to serve this model; got 'torch'"):
        genfast.sample(model, 3, backend="torch")


class Ones(Categorical):
    """Draws level 1 whatever the parameters are; no native engine knows it."""

    case = None

    def draw_levels(self, parameters, u, temperature, evidence=None):
        return torch.ones(len(parameters), 1, dtype=torch.uint8)


class Bright(PixelCNN):
    """Draws in a way of its own."""

    @property
    def likelihood(self):
        return Ones(self.config.channels, self.config.levels)


def test_a_model_with_its_own_likelihood_is_drawn_by_it():
    model = Bright(PixelCNNConfig(height=2, width=2, levels=3, hidden=3, layers=1, head=4)).eval()
    assert (genfast.sample(model, 3) == 1).all()
    assert "Bright draws in its own way" in genfast.explain(genfast.sample, model).others["torch"]
    drawn = Engine(model).run(2, seed=0, want=("log_probs",))
    assert_matches(drawn.log_probs.flatten(1).sum(1).float(), model.log_prob(drawn.images).detach(), atol=1e-5)


ZEROS = torch.zeros(1, 1, 4, 5, dtype=torch.uint8)
NONE = torch.zeros(1, 1, 4, 5, dtype=torch.bool)
WRONG = [
    ({"n": -1}, ValueError, "n and first must not be negative; got n=-1"),
    ({"n": 2.0}, TypeError, "n must be an int; got float"),
    ({"n": 1, "first": -1}, ValueError, "got n=1, first=-1"),
    ({"n": 2, "first": 2**63 - 1}, ValueError, r"first \+ n must be at most 2\*\*63; got first=9223372036854775807"),
    ({"n": 1, "seed": 2**64}, ValueError, r"seed must lie in \[0, 2\*\*64\)"),
    ({"n": 1, "temperature": 0.0}, ValueError, "temperature must be positive and finite; got 0.0"),
    ({"n": 1, "temperature": "1"}, TypeError, "temperature must be a number; got str"),
    ({"n": 1, "batch_size": 0}, ValueError, "batch_size must lie in 1"),
    ({"n": 1, "backend": "c"}, ValueError, "backend must be one of auto, cpp, triton, torch, full_forward; got 'c'"),
    ({"n": 1, "labels": 0}, ValueError, "labels must be None for a model without classes .*; got int"),
    ({"n": 1, "given": ZEROS}, ValueError, "given and mask must come together; got no mask"),
    ({"n": 1, "mask": NONE}, ValueError, "given and mask must come together; got no given"),
    ({"n": 1, "given": ZEROS.float(), "mask": NONE}, TypeError, "given must hold levels as integers"),
    ({"n": 1, "given": ZEROS.numpy(), "mask": NONE}, TypeError, r"given must be a torch\.Tensor; got ndarray"),
    ({"n": 1, "given": ZEROS + 3, "mask": ~NONE}, ValueError, r"given must lie in 0\.\.2; got 3"),
    ({"n": 1, "given": ZEROS.mT, "mask": NONE}, ValueError, r"given must have shape .*H=4, W=5; got \(1, 1, 5, 4\)"),
    ({"n": 3, "given": ZEROS.expand(2, -1, -1, -1), "mask": NONE}, ValueError, r"n=3 or 1.*got \(2, 1, 4, 5\)"),
    ({"n": 1, "given": ZEROS, "mask": NONE.byte()}, TypeError, r"mask must be torch\.bool.*got torch\.uint8"),
    ({"n": 1, "given": ZEROS, "mask": NONE[0]}, ValueError, r"mask must have shape .*got \(1, 4, 5\)"),
    ({"n": 1, "shape": (1, 4, 5)}, ValueError, "shape must be None for a PixelCNN"),
]


@pytest.mark.parametrize("arguments, error, message", WRONG, ids=[str(list(a)) for a, _, _ in WRONG])
def test_bad_arguments_get_one_error_before_any_work(arguments, error, message, monkeypatch):
    model = simple()
    monkeypatch.setattr(engines, "trace_model", None)
    monkeypatch.setattr(engines, "compile_traced", None)
    model.network = lambda x, labels: pytest.fail("the network was run")
    calls = [genfast.sample, genfast.stream]
    for call in calls:
        with pytest.raises(error, match=f"^(sample|stream): .*{message}"):
            call(model, **arguments)


def test_bad_arguments_of_some_models():
    mixture = tiny("pixelcnn++")
    with pytest.raises(ValueError, match="evidence must be None for a mixture"):
        Engine(mixture).run(1, seed=0, evidence=torch.zeros(1, 1, 2, 2, 3))
    colour = build("pixelcnn++", channels=3, height=4, width=4, levels=3, filters=2, blocks=1, resolutions=1)
    mask = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
    mask[:, 1, 2, 2] = True
    with pytest.raises(ValueError, match="mask must be equal over the channels of a pixel"):
        genfast.sample(colour, 1, given=torch.zeros(1, 3, 4, 4, dtype=torch.uint8), mask=mask)
    conditional = tiny("gated-pixelcnn")
    for labels, error, message in (
        (None, ValueError, "got None"),
        (2, ValueError, r"0\.\.1; got 2"),
        (torch.tensor([0, 5]), ValueError, r"0\.\.1; got 5"),
        (torch.tensor([0]), ValueError, r"B=2; got \(1,\)"),
        (torch.zeros(2), TypeError, r"got torch\.float32"),
        ("1", TypeError, "got str"),
    ):
        with pytest.raises(error, match=f"^sample: labels must .*{message}$"):
            genfast.sample(conditional, 2, labels=labels)
    with pytest.raises(TypeError, match="^stream: labels must be one int"):
        genfast.stream(conditional, labels=torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module; got str"):
        genfast.sample("mnist", 2)
    with pytest.raises(ValueError, match=r"images must lie in 0\.\.2; got 3"):
        genfast.log_prob(simple(), ZEROS + 3)


@every_backend
def test_weights_that_are_not_finite_are_named(backend):
    model = simple()
    genfast.sample(model, 1, backend=backend)
    with torch.no_grad():
        model.blocks[0].conv.weight[0, 0, 0, 0] = torch.nan
    for call in (lambda: genfast.sample(model, 1, backend=backend), lambda: Engine(model).log_prob(ZEROS)):
        with pytest.raises(ValueError, match=r"^sample: blocks\.0\.conv\.weight must be finite; got 1 values"):
            call()
    with torch.no_grad():
        model.blocks[0].conv.weight.zero_()
    genfast.sample(model, 1, backend=backend)


def test_whole_numbers_of_any_kind():
    model, three = simple(), genfast.sample(simple(), 3, seed=2**64 - 1, first=2**63 - 3)
    for n, seed, first in (
        (np.int64(3), np.uint64(2**64 - 1), np.int64(2**63 - 3)),
        (torch.tensor(3), 2**64 - 1, np.uint64(2**63 - 3)),
    ):
        assert torch.equal(genfast.sample(model, n, seed=seed, first=first), three)
        assert torch.equal(torch.cat(list(genfast.stream(model, n, seed=seed, first=first, batch_size=2))), three)
    with pytest.raises(ValueError, match=r"first \+ n must be at most 2\*\*63"):
        genfast.sample(model, np.int8(3), first=np.int64(2**63 - 2))
    for temperature in (10**400, -(10**400), float("nan"), float("inf")):
        with pytest.raises(ValueError, match="^sample: temperature must be positive and finite; got"):
            genfast.sample(model, 1, temperature=temperature)


def test_explain_names_what_it_can_explain():
    with pytest.raises(ValueError, match=r"op must be one of .*genfast\.sample.*; got 'inpaint'"):
        genfast.explain(genfast.inpaint, simple())
