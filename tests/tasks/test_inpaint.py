"""Inpainting: the exact conditional distribution, wherever the unknown values lie."""

import pytest
import torch
from support.sampled import BACKENDS, TINY, chi_square, conditional, every_image, exact, label_of, tiny

import genfast
from genfast.models import build
from genfast.tasks.chains.pixels import KINDS

# Chains of a test.
COUNTS = {"full_forward": 800, "torch": 800, "cpp": 6000}
KNOWN = {
    2: {"before": [1]},
    4: {"before": [2, 3], "among": [1, 3], "around": [0, 3], "after": [0, 1]},
    6: {"before": [3, 4, 5], "among": [1, 4], "around": [0, 4, 5], "after": [0, 1, 2]},
}

# Every model on the best backend; the others run the same chain.
MATRIX = [(name, BACKENDS[-1]) for name in TINY] + [("pixelcnn binary", backend) for backend in BACKENDS[:-1]]
every_entry = pytest.mark.parametrize("name, backend", MATRIX)


def known_of(model, pixels):
    known = torch.zeros(1, 1, model.config.height, model.config.width, dtype=torch.bool)
    known.view(-1)[pixels] = True
    return known


def likely(model):
    return every_image(model)[exact(model).argmax()][None]


@every_entry
def test_the_exact_conditional_distribution(name, backend):
    """Unknown values before, among, around and after the known ones."""
    model, truth, label = tiny(name), likely(tiny(name)), label_of(tiny(name))
    c, n = model.config, COUNTS[backend]
    places = KNOWN[c.height * c.width]
    for where in places if backend == "cpp" else list(places)[:1]:
        known = known_of(model, places[where])
        expected = conditional(model, known[0], truth[0])
        options = {"labels": label, "seed": 8, "backend": backend}
        inpainted = genfast.inpaint(model, truth.expand(n, -1, -1, -1), known, steps=40, **options)
        assert torch.equal(
            inpainted.images[known.expand_as(inpainted.images)],
            truth.expand(n, -1, -1, -1)[known.expand_as(inpainted.images)],
        )
        assert chi_square(inpainted.images, expected, c.levels) > 1e-4, where
        raster = genfast.inpaint(model, truth.expand(n, -1, -1, -1), known, order="raster", **options)
        assert raster.acceptance == {}
        if where == "after":
            assert inpainted.acceptance == {} and torch.equal(inpainted.images, raster.images)
        else:
            assert set(inpainted.acceptance) == set(KINDS) and all(
                0.05 < rate < 1 for rate in inpainted.acceptance.values()
            )
            assert chi_square(raster.images, expected, c.levels) < 1e-9, "raster order would do as well"


def test_colours_of_a_pixel_may_be_known_in_part():
    model, backend = tiny("pixelcnn colour"), BACKENDS[-1]
    known = torch.tensor([[0, 1], [1, 0], [0, 1]], dtype=torch.bool).view(1, 3, 1, 2)
    truth = every_image(model)[500][None].expand(COUNTS[backend], -1, -1, -1)
    expected = conditional(model, known[0], truth[0])
    inpainted = genfast.inpaint(model, truth, known, steps=40, seed=1, backend=backend)
    assert chi_square(inpainted.images, expected, 3) > 1e-4


def test_a_mask_for_each_image():
    model = tiny("pixelcnn binary")
    n = COUNTS[BACKENDS[-1]]
    masks = torch.cat([known_of(model, pixels) for pixels in ([3, 4, 5], [1, 4], [], [0, 1, 2, 3, 4, 5])])
    truth = likely(model).expand(4 * n, -1, -1, -1)
    images = genfast.inpaint(model, truth, masks.repeat(n, 1, 1, 1), steps=40, backend=BACKENDS[-1]).images
    for i, mask in enumerate(masks):
        expected = conditional(model, mask, truth[0])
        if (expected > 0).sum() > 1:
            assert chi_square(images[i::4], expected, 2) > 1e-4
    assert torch.equal(images[3::4], truth[3::4])


@every_entry
def test_an_image_depends_on_its_number_alone(name, backend):
    model, label = tiny(name), label_of(tiny(name))
    truth = likely(model).expand(20, -1, -1, -1)
    known = known_of(model, [1])
    options = {"steps": 6, "seed": 2**64 - 1, "labels": label, "backend": backend}
    whole = genfast.inpaint(model, truth, known, first=2**63 - 20, **options)
    for size in (1, 13):
        parts = genfast.inpaint(model, truth, known, first=2**63 - 20, batch_size=size, **options)
        assert torch.equal(parts.images, whole.images) and parts.acceptance == whole.acceptance
    halves = [genfast.inpaint(model, truth[:10], known, first=2**63 - 20 + at, **options).images for at in (0, 10)]
    assert torch.equal(torch.cat(halves), whole.images)


def test_what_was_unknown_plays_no_role():
    model = tiny("pixelrnn")
    known = known_of(model, [2])
    truth = likely(model).repeat(30, 1, 1, 1)
    other = torch.where(known, truth, 2 - truth)
    assert torch.equal(
        genfast.inpaint(model, truth, known, steps=5).images, genfast.inpaint(model, other, known, steps=5).images
    )


def test_no_images_no_steps_and_progress():
    model, known, ticks = tiny("pixelrnn"), known_of(tiny("pixelrnn"), [2]), []
    none = genfast.inpaint(model, torch.zeros(0, 1, 2, 2, dtype=torch.uint8), known)
    assert none.images.shape == (0, 1, 2, 2) and none.acceptance == {}
    truth = likely(model).expand(6, -1, -1, -1)
    raster = genfast.inpaint(model, truth, known, order="raster").images
    assert torch.equal(genfast.inpaint(model, truth, known, steps=0).images, raster)
    assert torch.equal(raster, genfast.sample(model, 6, given=truth, mask=known))
    genfast.inpaint(model, truth, known, steps=5, batch_size=3, progress=ticks.append)
    assert ticks == [1] * 10


def test_a_chain_goes_to_what_the_lower_half_asks_for():
    """On a larger image: the chain finds likelier images than raster order does."""
    torch.manual_seed(2)
    model = build("gated-pixelcnn", height=6, width=6, hidden=4, layers=2, head=6, levels=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    model.eval()
    truth = genfast.sample(model, 64, seed=3)
    known = known_of(model, list(range(18, 36)))
    rasters = genfast.inpaint(model, truth, known, order="raster").images
    exact_ones = genfast.inpaint(model, truth, known, steps=300).images
    scores = [genfast.log_prob(model, images).mean().item() for images in (rasters, exact_ones, truth)]
    assert scores[1] > scores[0] + 0.5 and scores[1] == pytest.approx(scores[2], abs=1.5)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"order": "random"}, ValueError, "order must be one of raster, exact; got 'random'"),
        ({"steps": -1}, ValueError, r"steps must lie in 0 \.\. \d+; got -1"),
        ({"steps": 1.5}, TypeError, "steps must be an int; got float"),
        ({"batch_size": 0}, ValueError, "batch_size must lie in 1"),
        ({"first": 2**63 - 1}, ValueError, r"first \+ n must be at most"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"labels": 1}, ValueError, "labels must be None for a model without classes"),
        ({"images": torch.zeros(2, 1, 2, 2)}, TypeError, r"images must hold levels as integers; got torch\.float32"),
        (
            {"images": torch.full((2, 1, 2, 2), 3, dtype=torch.uint8), "mask": torch.ones(1, 1, 2, 2) > 0},
            ValueError,
            r"images must lie in 0\.\.2; got 3",
        ),
        ({"images": torch.zeros(2, 2, 2, dtype=torch.uint8)}, ValueError, "images must have shape"),
        ({"mask": torch.zeros(3, 1, 2, 2, dtype=torch.bool)}, ValueError, "mask must have shape .* n=2 or 1"),
        ({"mask": torch.zeros(1, 1, 2, 2)}, TypeError, r"mask must be torch\.bool"),
    ],
)
def test_bad_arguments_get_one_error(change, error, message):
    arguments = {
        "images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
        "mask": torch.zeros(1, 1, 2, 2, dtype=torch.bool),
    }
    with pytest.raises(error, match=f"^inpaint: {message}"):
        genfast.inpaint(tiny("pixelrnn"), **(arguments | change))


def test_what_is_unknown_may_be_any_byte():
    model = tiny("pixelrnn")
    known, truth = known_of(model, [1]), likely(model).repeat(6, 1, 1, 1)
    for mask in (known, known.expand(6, -1, -1, -1)):
        for fill in (genfast.inpaint, lambda *a, **o: genfast.inpaint(*a, order="raster", **o)):
            filled = [fill(model, torch.where(mask, truth, other), mask, seed=1).images for other in (0, 255)]
            assert torch.equal(*filled)
    for given in (truth, truth[:1]):
        options = [{"given": torch.where(known, given, other), "mask": known} for other in (0, 255)]
        assert torch.equal(*(genfast.sample(model, 6, **each) for each in options))
        streams = (genfast.stream(model, batch_size=6, given=each["given"][:1], mask=known) for each in options)
        assert torch.equal(*map(next, streams))
    with pytest.raises(ValueError, match=r"^inpaint: images must lie in 0\.\.2; got 255"):
        genfast.inpaint(model, torch.where(known, 255, truth), known)


def test_progress_reaches_the_end_without_a_chain():
    model, ticks = tiny("pixelrnn"), []
    truth, known = likely(model).expand(6, -1, -1, -1), known_of(model, [0, 1])
    genfast.inpaint(model, truth, known, steps=5, batch_size=4, progress=ticks.append)
    assert sum(ticks) == 10
