"""What every model of tractable density promises; what is special to one is in its own file."""

import copy
import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from support.sampled import every_image

from genfast import ops
from genfast.models import MODELS, Autoregressive, AutoregressiveConfig, SequenceModel, build, load
from genfast.random import inverse_cdf, uniform


def sees_all(config, above, right):
    return True


def row_view(config, above, right):
    n = config["layers"]
    return right >= -n - 3 if above == 0 else -n - above - 3 <= right <= above + 2


def pixelcnn_view(config, above, right):
    reach = 3 + config["layers"]
    return above <= reach and -reach <= right and (above == 0 or right <= 3 + min(above - 1, config["layers"]))


def gated_view(config, above, right):
    reach = 3 + config["kernel"] // 2 * config["layers"]
    return above <= reach and -reach <= right <= reach


def plus_plus_view(config, above, right):
    n = 4 * config["blocks"]
    return right >= -n - 1 if above == 0 else above <= n + 3 and -n - 2 <= right <= n + 1


@dataclass
class Case:
    """A small model; `sees` is its view: a pixel so many rows above, and so many columns to the right, is in it."""

    name: str
    config: dict
    sees: object
    size: tuple = (4, 11)
    std: float = 0.4
    colors: tuple = field(default=(1, 3))

    def build(self, dtype=torch.float64, **config):
        torch.manual_seed(0)
        model = build(self.name, **(self.config | config)).to(dtype)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=self.std)
        return model.eval()

    def __str__(self):
        return " ".join(
            [self.name, *(f"{k}={v}" for k, v in self.config.items() if k in ("kind", "kernel", "classes"))]
        )


SNAIL = {"layers": 1, "depth": 3, "value": 2, "head": 24}
CASES = [
    # Four columns: its blind spot, which test_pixelrnn.py delimits, lies left of them.
    Case("pixelrnn", {"hidden": 6, "layers": 2, "head": 24}, sees_all, (4, 4)),
    Case("pixelrnn", {"hidden": 6, "layers": 1, "head": 24, "virtual_column": True}, sees_all, (4, 6)),
    Case("pixelrnn", {"hidden": 6, "layers": 2, "head": 24, "kind": "row"}, row_view),
    Case("pixelcnn", {"hidden": 12, "layers": 2, "head": 24}, pixelcnn_view),
    Case("gated-pixelcnn", {"hidden": 6, "layers": 2, "head": 24, "kernel": 3}, gated_view, (4, 13)),
    Case("gated-pixelcnn", {"hidden": 6, "layers": 1, "head": 24, "kernel": 5, "classes": 3}, gated_view, (7, 13)),
    Case("pixelsnail", SNAIL | {"hidden": 6, "blocks": 2}, sees_all, (4, 5)),
    Case("pixelsnail", SNAIL | {"hidden": 7, "blocks": 1, "classes": 3}, sees_all, (3, 4)),
    Case("pixelcnn++", {"filters": 6, "blocks": 1, "resolutions": 1, "mixtures": 2}, plus_plus_view, (4, 13), 0.25),
    Case("pixelcnn++", {"filters": 4, "blocks": 1, "resolutions": 1, "classes": 2}, plus_plus_view, (4, 6), 0.25),
]
CONDITIONAL = [case for case in CASES if "classes" in case.config]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
conditional_case = pytest.mark.parametrize("case", CONDITIONAL, ids=str)


def some_labels(model, n):
    classes = getattr(model.config, "classes", 0)
    return torch.arange(n) % classes if classes else None


def some_images(model, n):
    c = model.config
    return torch.randint(0, c.levels, (n, c.channels, c.height, c.width), dtype=torch.uint8)


# Those of images: test_sequence_models.py has those of sequences.
AUTOREGRESSIVE = [
    name
    for name, (model, _) in MODELS.items()
    if issubclass(model, Autoregressive) and not issubclass(model, SequenceModel)
]


def test_every_model_is_a_case():
    assert {case.name for case in CASES} == set(AUTOREGRESSIVE)
    for name, (model, config) in MODELS.items():
        assert model.name == name and (name not in AUTOREGRESSIVE or issubclass(config, AutoregressiveConfig))


def influence(model):
    """Which value moves which conditional: bool [n, H, W, T] in raster order, T conditionals of a pixel, by changes."""
    c = model.config
    n = c.height * c.width * c.channels
    moved = False
    for _ in range(6):
        base = torch.randint(0, c.levels, (1, n), dtype=torch.uint8)
        changed = (base + torch.eye(n, dtype=torch.uint8) * (c.levels // 2)) % c.levels
        batch = torch.cat((base, changed)).view(n + 1, c.height, c.width, c.channels).permute(0, 3, 1, 2)
        with torch.no_grad():
            y = model(batch, torch.zeros(n + 1, dtype=torch.long) if getattr(c, "classes", 0) else None)
        y = y[:, None] if y.dim() == 4 else y
        # Rounding that differs between the images of a batch stays below; what is read moves more.
        moved = moved | ((y[1:] - y[:1]).abs().amax(2) > 1e-12)
    return moved.permute(0, 2, 3, 1)


@pytest.mark.parametrize("channels, levels", [(1, 2), (1, 5), (3, 4)])
@every_case
def test_causal_and_complete_but_for_the_stated_blind_spots(case, channels, levels):
    height, width = case.size
    moved = influence(case.build(channels=channels, levels=levels, height=height, width=width))
    pixels = list(itertools.product(range(height), range(width)))
    wrong = []
    for s, (p, q, k) in enumerate((p, q, k) for p, q in pixels for k in range(channels)):
        for i, j in pixels:
            for color in range(moved.shape[3]):
                earlier = (p, q) < (i, j) or ((p, q) == (i, j) and k < color)
                if moved[s, i, j, color] != (earlier and case.sees(case.config, i - p, q - j)):
                    wrong.append(((p, q, k), (i, j, color)))
    assert not wrong, f"(row, column, colour) of a value, and of what it moves: {wrong[:10]}"


SMALL = [{"height": 2, "width": 3}, {"height": 1, "width": 2, "levels": 3, "channels": 3}]


@pytest.mark.parametrize("sizes", SMALL, ids=["binary", "RGB"])
@every_case
def test_probabilities_sum_to_one(case, sizes):
    model = case.build(**sizes)
    images = every_image(model)
    for label in range(getattr(model.config, "classes", 0)) or (None,):
        log_prob = model.log_prob(images, None if label is None else torch.full((len(images),), label))
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-6)
        assert log_prob.std() > 0.1


@pytest.mark.parametrize("channels, levels", [(1, 2), (3, 5)])
@every_case
def test_log_prob_is_the_likelihood_of_the_conditionals(case, channels, levels):
    model = case.build(height=3, width=4, channels=channels, levels=levels)
    x = some_images(model, 5)
    labels = some_labels(model, 5)
    y = model(x, labels)
    if case.name == "pixelcnn++":
        expected = -ops.logistic_mixture_nll(x, y, levels, backend="reference")
    else:
        assert y.shape == (5, channels, 1 if levels == 2 else levels, 3, 4)
        logits = torch.cat((torch.zeros_like(y), y), 2) if levels == 2 else y
        expected = logits.log_softmax(2).gather(2, x.long()[:, :, None]).sum((1, 2, 3, 4))
    torch.testing.assert_close(model.log_prob(x, labels), expected)


@pytest.mark.parametrize("temperature", [1.0, 8.0])
@pytest.mark.parametrize("channels, levels", [(1, 2), (3, 5)])
@every_case
def test_a_sample_is_drawn_from_the_conditionals_of_forward(case, channels, levels, temperature):
    """Drawing all pixels at once from `forward` of a finished sample, by the same random numbers, gives the sample."""
    model = case.build(height=3, width=4, channels=channels, levels=levels)
    labels = some_labels(model, 9)
    x = model.sample(9, seed=2**63 + 5, first=3, temperature=temperature, labels=labels)
    assert x.dtype == torch.uint8
    # At temperature 1 weights of this size leave some models little choice.
    assert temperature == 1 or len(x.unique()) == levels
    y = model(x, labels).detach()
    if case.name == "pixelcnn++":
        again = ops.logistic_mixture_sample(y, levels, 2**63 + 5, first_index=3, temperature=temperature)
    else:
        u = torch.from_numpy(uniform(2**63 + 5, np.arange(3, 12)[:, None], np.arange(12 * channels)))
        u = u.view(9, 3, 4, channels).permute(0, 3, 1, 2)
        again = inverse_cdf(y.movedim(2, 4) / temperature, u)
    assert torch.equal(again, x)


@every_case
def test_a_sample_depends_on_seed_and_index_alone(case):
    model = case.build(torch.float32, height=4, width=5, channels=3, levels=4)
    labels = some_labels(model, 7)
    x = model.sample(7, seed=11, labels=labels)
    torch.rand(3)
    parts = [
        model.sample(n, seed=11, first=i, labels=labels if labels is None else labels[i : i + n])
        for i, n in ((0, 1), (1, 4), (5, 2))
    ]
    assert torch.equal(torch.cat(parts), x)
    assert not torch.equal(model.sample(7, seed=12, labels=labels), x)
    assert len({tuple(image.flatten().tolist()) for image in x}) == 7


@every_case
def test_dropout_acts_in_training_only_and_sampling_keeps_the_mode(case):
    model = case.build(height=3, width=4, dropout=0.5)
    x, labels = some_images(model, 6), some_labels(model, 6)
    assert torch.equal(model.log_prob(x, labels), model.log_prob(x, labels))
    drawn = model.sample(6, labels=labels)
    model.train()
    assert not torch.equal(model.log_prob(x, labels), model.log_prob(x, labels))
    assert torch.equal(model.sample(6, labels=labels), drawn)
    assert all(module.training for module in model.modules())


def test_the_mode_is_kept_when_sampling_fails(monkeypatch):
    model = CASES[0].build(height=2, width=2).train()
    monkeypatch.setattr(model.input, "forward", lambda x: x / None)
    with pytest.raises(TypeError):
        model.sample(1)
    assert model.training


@every_case
def test_empty_batch(case):
    model = case.build(height=3, width=4, levels=5)
    x = torch.zeros(0, 1, 3, 4, dtype=torch.uint8)
    labels = some_labels(model, 0)
    assert model(x, labels).shape[0] == 0 and model.log_prob(x, labels).shape == (0,)
    assert model.sample(0, labels=labels).shape == (0, 1, 3, 4)


@pytest.mark.parametrize("case, levels", [(CASES[0], 2), *((case, 5) for case in CASES)], ids=str)
def test_compiled_training_step(case, levels):
    shallow = {"layers": 1} if "layers" in case.config else {}
    model = case.build(torch.float32, height=2, width=3, levels=levels, **shallow)
    x, labels = some_images(model, 4), some_labels(model, 4)
    torch.compiler.reset()  # every model compiles the same code of the base class, which has its limit
    gradients = []
    for function in (model.log_prob, torch.compile(model.log_prob, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        function(x, labels).mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])


@every_case
def test_double_and_autocast(case):
    model = case.build(torch.float32, height=4, width=4, levels=3, channels=3)
    x, labels = some_images(model, 3), some_labels(model, 3)
    exact = copy.deepcopy(model).double().log_prob(x, labels)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(model.log_prob(x, labels).double(), exact, rtol=1e-5, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = model.log_prob(x, labels)
    assert log_prob.dtype == torch.float32
    assert (log_prob - exact).abs().max() < 0.02 * exact.abs().max()
    log_prob.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_case
def test_save_and_load(case, tmp_path):
    model = case.build(height=3, width=4, dropout=0.1)
    model.save_pretrained(tmp_path)
    x, labels = some_images(model, 4), some_labels(model, 4)
    for loaded in (type(model).from_pretrained(tmp_path), load(tmp_path)):
        assert type(loaded) is type(model) and loaded.config == model.config and not loaded.training
        assert torch.equal(loaded.log_prob(x, labels), model.log_prob(x, labels))


@conditional_case
def test_labels_move_every_conditional(case):
    model = case.build(height=3, width=4)
    x, classes = some_images(model, 1), model.config.classes
    y = model(x.expand(classes, -1, -1, -1), torch.arange(classes))
    y = y.flatten(1, -3).movedim(1, -1)
    assert ((y[1:] - y[:1]).abs().amax(-1) > 1e-6).all()
    for dtype in (torch.uint8, torch.int32):
        torch.testing.assert_close(model(x, torch.tensor([1], dtype=dtype)).flatten(1, -3).movedim(1, -1)[0], y[1])


@conditional_case
def test_labels_of_samples(case):
    model = case.build(height=3, width=4, levels=256)
    labels = torch.tensor([1, 0, 1, 1])
    x = model.sample(4, seed=3, labels=labels)
    for label in (0, 1):
        assert torch.equal(model.sample(4, seed=3, labels=label)[labels == label], x[labels == label])
    assert not torch.equal(model.sample(4, seed=3, labels=0), model.sample(4, seed=3, labels=1))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda x: x.float(), TypeError, r"torch\.uint8; got torch\.float32"),
        (lambda x: x.numpy(), TypeError, "torch.Tensor; got ndarray"),
        (lambda x: x[0], ValueError, r"C=1, H=3, W=4; got \(1, 3, 4\)"),
        (lambda x: x.mT, ValueError, r"C=1, H=3, W=4; got \(2, 1, 4, 3\)"),
        (lambda x: x.repeat(1, 3, 1, 1), ValueError, r"C=1, H=3, W=4; got \(2, 3, 3, 4\)"),
        (lambda x: x + 5, ValueError, r"0\.\.4; got 5"),
        (lambda x: x.to("meta"), ValueError, "device cpu; got meta"),
    ],
)
@every_case
def test_bad_images_get_one_error(case, change, error, message):
    model = case.build(height=3, width=4, levels=5)
    model.network = lambda x, labels: pytest.fail("the network was run")
    x = torch.zeros(2, 1, 3, 4, dtype=torch.uint8)
    for call in (model, model.log_prob):
        with pytest.raises(error, match=f"^{type(model).__name__}: x must .*{message}$"):
            call(change(x), some_labels(model, 2))


@pytest.mark.parametrize(
    "labels, error, message",
    [
        (None, ValueError, r"labels must be integers \[B\] with B=2 for a model of \d classes; got None"),
        ([0, 1], TypeError, r"labels must be integers \[B\] with B=2; got list"),
        (torch.zeros(2), TypeError, r"labels must be integers \[B\] with B=2; got torch\.float32"),
        (torch.zeros(2, dtype=torch.bool), TypeError, r"labels must be integers \[B\] with B=2; got torch\.bool"),
        (torch.zeros(3, dtype=torch.int), ValueError, r"labels must have shape \[B\] with B=2; got \(3,\)"),
        (torch.zeros(2, 1, dtype=torch.int), ValueError, r"labels must have shape \[B\] with B=2; got \(2, 1\)"),
        (torch.tensor([0, 3]), ValueError, r"labels must lie in 0\.\.\d; got 3"),
        (torch.tensor([-1, 0]), ValueError, r"labels must lie in 0\.\.\d; got -1"),
        (torch.zeros(2, dtype=torch.int, device="meta"), ValueError, "the model's device cpu; got meta"),
    ],
)
@conditional_case
def test_bad_labels_get_one_error(case, labels, error, message):
    model = case.build(height=3, width=4)
    model.network = lambda x, labels: pytest.fail("the network was run")
    x = torch.zeros(2, 1, 3, 4, dtype=torch.uint8)
    for call in (model, model.log_prob, lambda x, labels: model.sample(2, labels=labels)):
        with pytest.raises(error, match=message):
            call(x, labels)


@every_case
def test_labels_for_an_unconditional_model(case):
    model = case.build(height=3, width=4, **({"classes": 0} if "classes" in case.config else {}))
    x = torch.zeros(2, 1, 3, 4, dtype=torch.uint8)
    for call in (model, model.log_prob, lambda x, labels: model.sample(2, labels=labels)):
        with pytest.raises(ValueError, match=r"labels must be None for a model without classes .*; got torch\.int64"):
            call(x, torch.tensor([0, 1]))


@conditional_case
def test_a_label_for_all_samples_is_checked_too(case):
    model = case.build(height=1, width=1)
    for label in (-1, 7, 10**30):
        with pytest.raises(ValueError, match=rf"labels must lie in 0\.\.\d; got {label}"):
            model.sample(2, labels=label)
    with pytest.raises(TypeError, match="got bool"):
        model.sample(2, labels=True)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"n": -1}, ValueError, "n=-1"),
        ({"n": 1, "first": -2}, ValueError, "first=-2"),
        ({"n": 1, "seed": -1}, ValueError, "got -1"),
        ({"n": 1, "seed": 2**64}, ValueError, f"got {2**64}"),
        ({"n": 1, "temperature": 0}, ValueError, "got 0"),
        ({"n": 1, "temperature": float("nan")}, ValueError, "got nan"),
    ],
)
def test_bad_sample_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^sample: .*{message}"):
        CASES[0].build(height=1, width=1).sample(**arguments)


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
@pytest.mark.parametrize(
    "config, error, message",
    [
        ({"height": "16"}, TypeError, "height must be an int; got '16'"),
        ({"width": True}, TypeError, "width must be an int; got True"),
        ({"levels": 1}, ValueError, "levels must be at least 2; got 1"),
        ({"levels": 257}, ValueError, "levels must be at most 256; got 257"),
        ({"height": 0}, ValueError, "height must be at least 1; got 0"),
        ({"dropout": 1.0}, ValueError, r"dropout must be a number in \[0, 1\); got 1.0"),
        ({"dropout": "no"}, TypeError, "dropout must be a number; got 'no'"),
    ],
)
def test_bad_config(name, config, error, message):
    config_type = MODELS[name][1]
    with pytest.raises(error, match=f"^{config_type.__name__}: {message}$"):
        config_type(**config)


def test_a_model_without_network():
    with pytest.raises(NotImplementedError, match="a subclass that defines network"):
        Autoregressive(AutoregressiveConfig()).network(None, None)
