"""A loss that is not finite names the first tensor that is not."""

import math

import pytest
import torch
from torch import nn

from genfast import models
from genfast.data import ImageData
from genfast.train import TrainConfig, fit
from genfast.train.checkpoint import load_checkpoint
from genfast.train.diagnosis import first_non_finite, loss_of

X = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)


def vae(**config):
    torch.manual_seed(0)
    return models.build("vae", height=4, width=4, hidden=4, latent=2, **config)


def test_nothing():
    assert first_non_finite(vae(), (X,)) == "nothing on a second look"


def test_a_parameter_comes_first():
    model = vae()
    model.decoder.output.bias.data[1] = math.inf
    model.encoder.output.weight.data[0, 0] = math.nan
    assert first_non_finite(model, (X,)) == "parameter encoder.output.weight"


def test_a_buffer():
    model = vae()
    model.encoder.register_buffer("offset", torch.tensor(math.nan))
    assert first_non_finite(model, (X,)) == "buffer encoder.offset"


@pytest.mark.parametrize("place", ["encoder.input", "encoder.fine.0", "encoder", "decoder.up"])
def test_the_first_module_in_order_of_execution(place):
    model = vae()
    model.get_submodule(place).register_forward_hook(lambda module, inputs, output: output * math.nan)
    kind = type(model.get_submodule(place)).__name__
    inside = f"output of {place} ({kind})"
    assert first_non_finite(model, (X,)) == inside
    assert not [m for m in model.modules() if len(m._forward_hooks) > (m is model.get_submodule(place))]


class Root(nn.Module):
    """A loss whose gradient is infinite, or that is not finite itself."""

    def __init__(self, start):
        super().__init__()
        self.start = nn.Parameter(torch.tensor(start))

    def loss(self, x):
        return self.start.sqrt().expand(len(x))


def test_the_loss_itself_and_its_gradient():
    model = Root(0.0)
    assert first_non_finite(model, (X,)) == "gradient of start" and model.start.grad is None
    assert first_non_finite(Root(-1.0), (X,)) == "the loss"


def test_a_model_with_log_prob_alone():
    class Alone(nn.Module):
        def log_prob(self, x):
            return torch.full((len(x),), -3.0)

    assert loss_of(Alone(), (X,)).tolist() == [3.0] * 3


def test_the_failed_step_is_what_is_looked_at():
    """With the random state of the step its dropout is drawn again, and the generator is left alone."""

    class Gate(nn.Module):
        def forward(self, x):
            return x / torch.nn.functional.dropout(torch.ones(()), 0.5)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.weight = Gate(), nn.Parameter(torch.ones(()))

        def loss(self, x):
            return self.gate(self.weight.expand(len(x)))

    texts = set()
    for seed in range(8):
        torch.manual_seed(seed)
        state, expected = torch.get_rng_state(), bool(torch.nn.functional.dropout(torch.ones(()), 0.5) == 0)
        after = torch.get_rng_state()
        text = first_non_finite(Model(), (X,), state)
        assert text == ("output of gate (Gate)" if expected else "nothing on a second look")
        assert torch.equal(torch.get_rng_state(), after)
        texts.add(text)
    assert len(texts) == 2


def test_training_tells_it(tmp_path):
    data = ImageData(X, 2, "empty")
    model = vae()
    number = iter(range(100))

    def spoil(module, inputs, output):
        return output * math.nan if module.training and next(number) == 5 else output

    model.decoder.coarse.register_forward_hook(spoil)
    model.decoder.coarse.register_forward_hook(lambda module, inputs, output: output + 0 * output.sum())
    config = TrainConfig(steps=20, batch=3, log_every=2, eval_every=20, save_every=4, device="cpu")
    with pytest.raises(FloatingPointError, match="expected a finite loss; got nan .* by step 6; first that is not fin"):
        fit(model, data, data, config, tmp_path)
    assert load_checkpoint(tmp_path)[1]["step"] == 4
    model = vae()
    model.decoder.coarse.register_forward_hook(lambda m, i, out: out / (0.0 if m.training else 1.0))
    with pytest.raises(FloatingPointError, match=r"is not finite: output of decoder.coarse \(Sequential\) \(the check"):
        fit(model, data, data, config, tmp_path / "other")
