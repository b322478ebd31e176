"""What the engine makes of models that change, that are not causal, or that several threads share."""

import copy
import threading
import warnings

import pytest
import torch
from support.compiled import Function
from torch import nn

import genfast
from genfast import testing
from genfast.engine.calling import evaluating
from genfast.engine.compiler import NotCausal, trace
from genfast.models import build
from genfast.nn import MaskedConv2d

OPTIONS = {"shape": (1, 4, 4), "levels": 3, "input_range": (0, 1)}
SMALL = {"height": 4, "width": 4, "hidden": 2, "layers": 1, "head": 2}


def foreign(*more, outputs=3):
    torch.manual_seed(0)
    layers = MaskedConv2d(1, 6, 3, "A"), nn.ReLU(), *more, MaskedConv2d(6, outputs, 1, "B")
    return nn.Sequential(*layers)


def likelihood(model, images):
    """By a forward of its own."""
    with torch.no_grad():
        logits = model(images.float() / 2).log_softmax(1)
    return logits.gather(1, images.long()).double().sum((1, 2, 3))


@pytest.mark.parametrize("change", ["fused step", "data", "inference", "layer", "copy"])
def test_a_model_that_changes_is_drawn_from_as_it_is(change):
    model = foreign()
    images = genfast.sample(model, 8, **OPTIONS)
    before = genfast.log_prob(model, images, **OPTIONS)
    if change == "fused step":
        model(images.float()).square().sum().backward()
        torch.optim.Adam(model.parameters(), lr=0.3, fused=True).step()
    elif change == "data":
        for parameter in model.parameters():
            parameter.data.mul_(1.7)
    elif change == "inference":
        with torch.inference_mode():
            for parameter in model.parameters():
                parameter.mul_(1.7)
    elif change == "layer":
        model[2] = MaskedConv2d(6, 3, 1, "B")
    else:
        model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})
    after = genfast.log_prob(model, images, **OPTIONS)
    torch.testing.assert_close(after, likelihood(model, images), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, after)


def test_an_engine_that_is_kept_follows_the_model():
    model = foreign()
    engine = genfast.Engine(model, **OPTIONS)
    images = engine.run(4, seed=0).images
    with torch.no_grad():
        model[0].weight.mul_(-2)
    torch.testing.assert_close(engine.log_prob(images), likelihood(model, images), rtol=1e-5, atol=1e-5)
    model.double()
    assert engine.backend == "full_forward" and engine.run(2, seed=0).images.shape == (2, 1, 4, 4)


def test_another_head_is_read_anew():
    model = foreign(outputs=1)
    options = OPTIONS | {"levels": 2}
    genfast.sample(model, 4, **options)
    model[2] = MaskedConv2d(6, 2, 1, "B")
    drawn = [genfast.sample(model, 40, backend=backend, **options) for backend in ("auto", "torch", "full_forward")]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("backend", ["auto", "full_forward"])
@pytest.mark.parametrize(
    "layer", [nn.GroupNorm(2, 6), nn.MaxPool2d(3, 1, 1), nn.Conv2d(6, 6, 3, padding=1)], ids=lambda m: type(m).__name__
)
@pytest.mark.filterwarnings("ignore:sample. every value runs")
def test_no_backend_draws_from_a_model_that_is_not_causal(layer, backend):
    with pytest.raises(NotCausal, match="must be causal|is not causal"):
        genfast.sample(foreign(copy.deepcopy(layer)), 1, backend=backend, **OPTIONS)


def test_a_model_without_a_program_is_drawn_slowly_and_says_so():
    model = foreign(Function(torch.sin))
    with pytest.warns(RuntimeWarning, match="every value runs the whole network: .*aten.sin") as warned:
        images = genfast.sample(model, 3, **OPTIONS)
    assert {warning.filename for warning in warned} == {__file__}
    assert images.shape == (3, 1, 4, 4)


class Branching(nn.Module):
    """A branch on values, which torch.export refuses."""

    def __init__(self):
        super().__init__()
        self.network = foreign()

    def forward(self, x):
        return self.network(x) if x.sum() > -1 else x


def test_what_torch_refuses_to_trace_is_drawn_slowly_and_says_so():
    with pytest.warns(RuntimeWarning, match="every value runs the whole network: the model cannot be traced"):
        images = genfast.sample(Branching(), 2, **OPTIONS)
    assert images.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    "model, options", [(foreign, OPTIONS), (lambda: build("pixelcnn", **SMALL | {"layers": 0}), {})]
)
def test_a_failure_of_the_capture_is_a_refusal_that_says_why(model, options, monkeypatch):
    """Forward itself has run by then, so the model can be drawn from."""
    torch.manual_seed(0)
    model = model()
    expected = genfast.sample(copy.deepcopy(model), 2, **options)

    def fail(*arguments, **settings):
        raise KeyError("of an unknown reason")

    monkeypatch.setattr(torch.export, "export", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # plain tracing takes the model
        assert torch.equal(genfast.sample(copy.deepcopy(model), 2, **options), expected)
    monkeypatch.setattr(trace, "make_fx", fail)
    with pytest.warns(RuntimeWarning, match="every value runs the whole network: .*KeyError: 'of an unknown reason'"):
        assert torch.equal(genfast.sample(model, 2, **options), expected)


class Failing(nn.Module):
    """A forward that does not take what genfast gives it."""

    def forward(self, x):
        return {}["of an unknown reason"]


@pytest.mark.parametrize("backend", ["auto", "full_forward"])
def test_a_failure_of_forward_says_what_was_called(backend):
    call = (
        r"sample: genfast calls model\(x\) with float32 \[2, 1, 4, 4\] in input_range \(0, 1\), which must work; got "
    )
    with pytest.raises(ValueError, match=f"^{call}KeyError: 'of an unknown reason'$") as caught:
        genfast.sample(Failing(), 2, backend=backend, **OPTIONS)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_model_of_our_own_that_is_drawn_slowly_says_so():
    with pytest.warns(RuntimeWarning, match="every value runs the whole network: .* float64"):
        genfast.sample(build("pixelcnn", **SMALL).double(), 1)


def test_the_random_state_of_torch_does_not_change():
    torch.manual_seed(3)
    expected = torch.rand(4)
    model = foreign()
    torch.manual_seed(3)
    genfast.sample(model, 2, **OPTIONS)
    assert torch.equal(torch.rand(4), expected)


def test_the_last_of_several_threads_restores_the_training_mode():
    """Another one may still be computing when the first leaves."""
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1).eval())
    first, second = evaluating(model), evaluating(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model[0].training
    second.__exit__(None, None, None)
    assert model.training and model[0].training and not model[1].training


class Odd(genfast.BitFlipNoise):
    """A noise model that gives what it should not."""

    def __init__(self, change):
        object.__setattr__(self, "change", change)

    def log_likelihood(self, noisy, levels):
        return self.change(torch.zeros(*noisy.shape, levels))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda x: x.double(), TypeError, "torch.float32; got torch.float64"),
        (lambda x: x[..., :2], ValueError, r"shape \(1, 1, 4, 4, 3\); got \(1, 1, 4, 4, 2\)"),
        (lambda x: x * torch.nan, ValueError, "finite for a level of each value"),
        (lambda x: x - torch.inf, ValueError, "finite for a level of each value"),
        (lambda x: x[..., 0], ValueError, r"got \(1, 1, 4, 4\)"),
    ],
)
def test_a_noise_model_of_another_kind_is_refused(change, error, message):
    noisy = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(error, match=f"denoise: evidence .*{message}"):
        genfast.denoise(foreign(), noisy, Odd(change), **OPTIONS)


def test_threads_share_models():
    models = [foreign(), foreign(nn.Tanh())]
    expected = [genfast.sample(copy.deepcopy(model), 4, seed=1, **OPTIONS) for model in models]
    drawn, failed = [], []

    def work(k):
        try:
            drawn.append((k % 2, genfast.sample(models[k % 2], 4, seed=1, **OPTIONS)))
        except Exception as error:  # to be seen by the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(drawn) == 6
    assert all(torch.equal(images, expected[k]) for k, images in drawn)


@pytest.mark.parametrize(
    "options", [{"shape": 5}, {"input_range": 5}, {"input_range": (0,)}, {"input_range": ("a", 1)}], ids=str
)
def test_descriptions_that_are_no_tuples(options):
    with pytest.raises(TypeError, match=f"sample: {next(iter(options))} must be"):
        genfast.sample(foreign(), 1, **OPTIONS | options)


@pytest.mark.parametrize("backend", ["cpp", "torch", "full_forward"])
@pytest.mark.parametrize("name", ["pixelcnn", "pixelrnn"])
def test_weights_whose_outputs_overflow_are_an_error(name, backend):
    """They are finite, but no distribution is: an image drawn from NaN would be any."""
    model = testing.awake(build(name, levels=4, **SMALL)).float()
    genfast.sample(model, 1, backend=backend)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e30)
    with pytest.raises(ValueError, match="sample: the model must return finite numbers"):
        genfast.sample(model, 1, backend=backend)
