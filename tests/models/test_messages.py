"""What a model says to somebody who makes it from something else than its config, or for sizes that do not fit it."""

import copy
import pickle
import re

import pytest
from support.pieces import MODELS, model

from genfast import models


@pytest.mark.parametrize("kind", models.MODELS)
def test_a_constructor_names_its_config(kind):
    made, config = models.MODELS[kind]
    name = made.__name__
    for call, got in (
        (lambda: made(height=8), "height="),
        (lambda: made({"height": 8}), "dict"),
        (lambda: made(8, 8), "int, int"),
        (lambda: made(None), "NoneType"),
        (lambda: made(), "nothing"),
        (lambda: made(config), "type"),
    ):
        example = re.escape(f"{name}: config must be a {config.__name__}, as in {name}({config.__name__}()), with ")
        with pytest.raises(TypeError, match=f"^{example}channels, height, .*; got {got}$"):
            call()
    assert made(config=config(**MODELS[kind])).config == config(**MODELS[kind])


def test_a_subclass_may_take_more():
    class Mine(models.PixelCNN):
        def __init__(self, config, extra=1):
            super().__init__(config)
            self.extra = extra

    config = models.PixelCNNConfig(**MODELS["pixelcnn"])
    assert Mine(config, extra=3).extra == 3 and Mine(config, 2).extra == 2
    with pytest.raises(TypeError, match="^Mine: config must be a PixelCNNConfig"):
        Mine(3)


def test_copies_are_not_asked():
    made = model("pixelcnn")
    assert copy.deepcopy(made).config == pickle.loads(pickle.dumps(made)).config == made.config


@pytest.mark.parametrize("kind", ["dcgan", "sngan", "wgan-gp", "projection-gan", "vq-vae", "pixelcnn++"])
def test_sizes_that_fit_are_named(kind):
    with pytest.raises(
        ValueError, match="height and width must be multiples of 4, .*such as 28x20 or 32x20; got 30 and 20"
    ):
        models.build(kind, height=30, width=20)
    models.build(kind, height=28, width=20)
    models.build(kind, height=32, width=20)
