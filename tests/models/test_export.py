"""Models and layers exported by torch with a batch of any size."""

import inspect

import pytest
import torch
from support.pieces import LAYERS, MODELS, integers, levels, made_layer, model, normal


def arguments(kind, count):
    """What the forward of a model takes."""
    made = model(kind)
    labels = (integers(count, below=made.spec.classes),) if made.spec.classes else ()
    if hasattr(made, "generator") and kind != "pix2pix":
        return normal(count, made.config.latent), *labels
    spec = made.source if kind == "pix2pix" else made.spec
    return levels(count, *spec.shape, levels=spec.levels), *labels


def exported(module, inputs):
    """The program of a module, made with a batch of 3."""
    batch, given = torch.export.Dim("batch"), inputs(3)
    shapes = tuple({0: batch} for _ in given)
    starred = next(iter(inspect.signature(module.forward).parameters.values())).kind is inspect.Parameter.VAR_POSITIONAL
    return torch.export.export(module, given, dynamic_shapes=(shapes,) if starred else shapes, strict=False).module()


def assert_any_batch(module, inputs):
    program = exported(module, inputs)
    for count in (1, 2, 5):
        got, expected = program(*inputs(count)), module(*inputs(count))
        for one, other in zip(*(value if isinstance(value, tuple) else (value,) for value in (got, expected))):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_exported_for_any_batch(kind):
    assert_any_batch(model(kind), lambda count: arguments(kind, count))


@pytest.mark.parametrize("kind", [kind for kind in MODELS if hasattr(model(kind), "discriminate")])
def test_the_discriminator_of_a_model_too(kind):
    made = model(kind)
    labels = made.spec.classes

    class Critic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.made = made

        def forward(self, x, labels=None):
            return self.made.discriminate(x, labels)

    def inputs(count):
        images = normal(count, *made.spec.shape).clamp(-1, 1)
        return (images, integers(count, below=labels)) if labels else (images,)

    assert_any_batch(Critic().eval(), inputs)


# A batch must hold whole groups, so that no size but a multiple of them will do; a random seed is drawn for each call.
FIXED = {"MinibatchStddev", "GaussianLatent"}


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in FIXED])
def test_a_layer_is_exported_for_any_batch(name):
    sizes = LAYERS[name][2:]
    assert_any_batch(
        made_layer(name).eval(), lambda count: tuple(normal(count, *size[1:], seed=n) for n, size in enumerate(sizes))
    )
