"""How images enter a model: as whole numbers, codes, one-hot vectors, embeddings, and floats turned into these."""

import pytest
import torch
from support.anyone import Function, alive, assert_right, entered, log_softmax_of, plain, quietly, some
from torch import nn
from torch.nn import functional as F

import genfast
from genfast.engine.compiler import NotIncremental, compile_program

SHAPE, LEVELS = (1, 3, 4), 5


class Tokens(nn.Module):
    """Integers -> some function to [B, F, H, W] -> causal logits."""

    def __init__(self, enter, features, levels=LEVELS, entries=None):
        super().__init__()
        self.enter = enter
        self.table = nn.Embedding(entries or levels, features)
        self.body = plain(inputs=features, outputs=levels)
        alive(self, 2.0)

    def forward(self, codes):
        return self.body(self.enter(self, codes))


def looked_up(model, codes):
    return model.table(codes).permute(0, 3, 1, 2)


def shifted(model, codes):
    """One token more than there are levels begins every row."""
    padded = F.pad(codes + 1, (1, 0))[:, :, :-1]
    return model.table(padded).permute(0, 3, 1, 2)


def flattened(model, codes):
    """As sequences of tokens."""
    h = model.table(codes.flatten(1))
    return h.transpose(1, 2).view(len(codes), -1, *codes.shape[1:])


CODES = {
    "an embedding": (looked_up, 6),
    "one_hot": (lambda model, codes: F.one_hot(codes, LEVELS).permute(0, 3, 1, 2).float(), LEVELS),
    "more classes than levels": (lambda model, codes: F.one_hot(codes, 9).movedim(-1, 1).float(), 9),
    "an embedding of sequences": (flattened, 6),
    "floats in 0..1": (lambda model, codes: codes.unsqueeze(1).float() / (LEVELS - 1), 1),
    "floats in -1..1, by to": (lambda model, codes: codes[:, None].to(torch.float32) * 0.5 - 1, 1),
    "F.embedding": (lambda model, codes: F.embedding(codes, model.table.weight * 2).permute(0, 3, 1, 2), 6),
    "two tables": (lambda model, codes: looked_up(model, codes) * looked_up(model, LEVELS - 1 - codes).tanh(), 6),
    "rows of a table": (lambda model, codes: model.table.weight[codes].movedim(3, 1), 6),
    "moved, with one for the border": (shifted, 6),
    "a quotient": (lambda model, codes: looked_up(model, codes // 2), 6),
    "a remainder": (lambda model, codes: looked_up(model, codes % 2), 6),
    "digits": (
        lambda model, codes: looked_up(model, torch.div(codes, 3, rounding_mode="floor")) + looked_up(model, codes % 3),
        6,
    ),
    "odd and even": (lambda model, codes: (codes[:, None] >= 3).float() + codes[:, None].eq(1), 1),
}


@pytest.mark.parametrize("name", CODES)
def test_codes(name):
    enter, features = CODES[name]
    model, images = Tokens(enter, features, entries=LEVELS + 1), some(SHAPE, LEVELS)
    with torch.no_grad():
        expected = log_softmax_of(model(images[:, 0].long()), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=LEVELS, inputs="codes")


def by_channel(model, levels):
    """An embedding for each channel, one beside the other."""
    return model.table(levels).permute(0, 1, 4, 2, 3).flatten(1, 2)


LEVEL_INPUTS = {
    "an embedding for each channel": (by_channel, 2, 4),
    "one_hot of one channel": (lambda model, x: F.one_hot(x, LEVELS)[:, 0].permute(0, 3, 1, 2).float(), 1, LEVELS),
    "floats": (lambda model, x: (x.float() - 2) / 2, 2, 2),
    "a float and an embedding": (
        lambda model, x: torch.cat((x[:, :1].float(), by_channel(model, x[:, 1:])[:, :3]), 1),
        2,
        4,
    ),
}


@pytest.mark.parametrize("name", LEVEL_INPUTS)
def test_levels(name):
    enter, channels, features = LEVEL_INPUTS[name]
    shape = (channels, 3, 4)
    model = Tokens(enter, features, levels=LEVELS)
    if channels == 2:
        model.table = alive(nn.Embedding(LEVELS, 4 if "beside" not in name and features == 4 else 2))
        if name == "an embedding for each channel":
            model.table = alive(nn.Embedding(LEVELS, 2))
        model.body = plain(inputs=features, outputs=2 * LEVELS)
        model.body.append(Function(lambda y: y.unflatten(1, (LEVELS, 2))))
    images = some(shape, LEVELS)
    with torch.no_grad():
        y = model(images.long())
    expected = log_softmax_of(y, images if channels == 2 else images[:, 0])
    assert_right(model, expected, images, shape=shape, levels=LEVELS, inputs="levels")


FLOATS = {
    "rounded": (lambda x: (x * 4).round().long(), (0, 1)),
    "rounded by a half and floor": (lambda x: torch.floor(x * 4 + 0.5).long(), (0, 1)),
    "cut off": (lambda x: (x * 4.3).long(), (0, 1)),
    "cut off by int": (lambda x: (x * 4.3).int().long(), (0, 1)),
    "of -1..1": (lambda x: ((x + 1) * 2).round().to(torch.int64), (-1, 1)),
    "of 0..4": (lambda x: x.type(torch.int64), (0, 4)),
    "clamped after": (lambda x: (x * 4).round().clamp(0, 3).long(), (0, 1)),
    "affine steps between": (lambda x: (((x - 0.5) / 0.5 + 1) * 2).round().long(), (0, 1)),
}


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("how", ["embedding", "one_hot"])
def test_floats_that_become_whole_numbers(name, how):
    function, (low, high) = FLOATS[name]

    def enter(model, x):
        codes = function(x)[:, 0]
        if how == "one_hot":
            return F.one_hot(codes, LEVELS).permute(0, 3, 1, 2).float()
        return looked_up(model, codes)

    model, images = Tokens(enter, LEVELS), some(SHAPE, LEVELS)
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS, low, high)), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=LEVELS, input_range=(low, high))


def test_levels_beside_floats_of_them():
    """What is rounded enters a table, and what is not goes on as it is."""

    def enter(model, x):
        return torch.cat((looked_up(model, (x[:, 0] * 4).round().long()), x * 2 - 1), 1)

    model, images = Tokens(enter, 6), some(SHAPE, LEVELS)
    model.body = plain(inputs=7, outputs=LEVELS)
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS)), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=LEVELS, input_range=(0, 1))


def test_the_codes_of_a_vq_vae():
    """512 of them, given as integers of any kind, drawn as int32."""
    shape = (1, 4, 4)
    model, images = Tokens(looked_up, 6, levels=512), some(shape, 512)
    assert images.dtype == torch.int32 and images.max() > 255
    with torch.no_grad():
        expected = log_softmax_of(model(images[:, 0].long()), images[:, 0])
    keywords = {"shape": shape, "levels": 512, "inputs": "codes"}
    engine = assert_right(model, expected, images, **keywords)
    assert torch.equal(engine.log_prob(images.long()), engine.log_prob(images))
    drawn = engine.run(3, seed=1).images
    assert drawn.dtype == torch.int32 and drawn.max() > 255
    with pytest.raises(ValueError, match=r"images must lie in 0\.\.511; got 512"):
        engine.log_prob(images + (images == images.max()) * (512 - int(images.max())))


def test_flat_inputs_of_an_embedding_of_floats():
    """MADE-like: flat floats, one-hot vectors of all values, one triangular layer."""
    shape, levels, count = (1, 2, 3), 3, 6
    weight = torch.randn(count, count, levels, levels, generator=torch.Generator().manual_seed(0))
    before = torch.tril(torch.ones(count, count), -1)[..., None, None]

    def forward(x):
        one_hot = F.one_hot((x * 2).round().long(), levels).float()
        return torch.einsum("bjk,ijlk->bil", one_hot, weight * before)

    images = some(shape, levels)
    expected = log_softmax_of(forward(entered(images, levels).flatten(1)).transpose(1, 2), images.flatten(1))
    keywords = {"shape": shape, "levels": levels, "inputs": "flat", "input_range": (0, 1), "output": "B (H W) L"}
    assert_right(Function(forward), expected, images, **keywords)


ENTERED = {
    "weight[codes]": lambda model, x: model.table.weight[(x[:, 0] * 4).long()].movedim(3, 1),
    "padded before the table": lambda model, x: shifted(model, (x[:, 0] * 4).round().long()),
}


@pytest.mark.parametrize("name", ENTERED)
def test_tables_by_an_index_and_of_padded_codes(name):
    model, images = Tokens(ENTERED[name], LEVELS, entries=LEVELS + 1), some(SHAPE, LEVELS)
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS)), images[:, 0])
    assert_right(model, expected, images, shape=SHAPE, levels=LEVELS, input_range=(0, 1))


SLOW = {
    "a map that was moved or padded before": lambda model, x: looked_up(
        model, (F.pad(x, (1, 0))[:, :, :, :-1] * 4).round().long()[:, 0]
    ),
    "more than a function of one value": lambda model, x: looked_up(
        model, F.conv2d(F.pad(x, (1, 0)), torch.ones(1, 1, 1, 2)).long()[:, 0]
    ),
    "one_hot without a number": lambda model, x: F.one_hot((x * 4).round().long()[:, 0]).movedim(3, 1).float(),
}


@pytest.mark.parametrize("reason", SLOW)
def test_what_is_refused_by_name_is_drawn_slowly_and_right(reason):
    model, images = Tokens(SLOW[reason], LEVELS, entries=LEVELS + 1), some(SHAPE, LEVELS)
    keywords = {"shape": SHAPE, "levels": LEVELS, "input_range": (0, 1)}
    with torch.no_grad():
        expected = log_softmax_of(model(entered(images, LEVELS)), images[:, 0])
    with pytest.raises(NotIncremental, match=f"^sample: .*{reason}"):
        compile_program(model, **keywords)
    assert torch.allclose(quietly(genfast.log_prob, model, images, **keywords), expected, atol=1e-4)


def test_an_embedding_with_too_few_entries_says_what_was_called():
    model = Tokens(looked_up, 6, entries=3)
    call = r"genfast calls model\(x\) with int64 \[2, 3, 4\], which must work; got IndexError: index out of range"
    with pytest.raises(ValueError, match=call):
        genfast.sample(model, 1, shape=SHAPE, levels=LEVELS, inputs="codes")


@pytest.mark.parametrize("inputs, kind", [("images", "float32"), ("levels", r"int64 \[2, 1, 3, 4\]")])
def test_inputs_of_another_kind_say_what_was_called(inputs, kind):
    model = Tokens(looked_up, 6)
    options = {"input_range": (0, 1)} if inputs == "images" else {}
    with pytest.raises(ValueError, match=rf"genfast calls model\(x\) with {kind}.*which must work; got \w*Error"):
        genfast.sample(model, 1, shape=SHAPE, levels=LEVELS, inputs=inputs, **options)
