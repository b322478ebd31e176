"""A request is checked once, where the user calls."""

import pytest
import torch

from genfast.engine.protocols import ImageSpec
from genfast.engine.request import SampleRequest, check_request, row_uniforms
from genfast.likelihoods import Bernoulli, Categorical, LogisticMixture
from genfast.random import uniform

SPEC, CPU = ImageSpec(3, 2, 4, 5, classes=2), torch.device("cpu")
LIKELIHOOD = Categorical(3, 5)


def checked(n=4, spec=SPEC, likelihood=LIKELIHOOD, **settings):
    return check_request("call", spec, likelihood, CPU, n, **({"labels": 1} | settings))


def test_one_label_and_one_image_are_expanded():
    given, known = torch.full((1, 3, 2, 4), 9, dtype=torch.uint8), torch.zeros(1, 1, 2, 4, dtype=torch.bool)
    request = checked(given=given, known=known, seed=2**64 - 1, first=3)
    assert request.labels.tolist() == [1] * 4 and request.labels.dtype == torch.int64
    assert request.given.shape == request.known.shape == (4, 3, 2, 4)
    assert not request.given.any(), "what is not known is 0, whatever it was"


def test_a_part_is_the_request_of_its_images():
    evidence = torch.randn(4, 3, 2, 4, 5)
    part = checked(first=7, evidence=evidence, labels=torch.tensor([0, 1, 0, 1])).part(1, 3)
    assert (part.n, part.first, part.labels.tolist()) == (2, 8, [1, 0])
    assert torch.equal(part.evidence, evidence[1:3]) and part.given is None


def test_an_endless_row_repeats_one_image():
    request = SampleRequest(1, first=5, given=torch.ones(1, 3, 2, 4), labels=torch.tensor([1])).repeated(10, 13)
    assert (request.n, request.first) == (3, 15) and request.given.shape[0] == 3 and request.labels.tolist() == [1] * 3


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"n": -1}, ValueError, "n and first must not be negative"),
        ({"draw": -1}, ValueError, "draw must lie in 0"),
        ({"labels": None}, ValueError, "labels must be integers .* for a model of 2 classes; got None"),
        ({"given": torch.zeros(4, 3, 2, 4, dtype=torch.uint8)}, ValueError, "given and mask must come together"),
        ({"want": ("logits",)}, ValueError, "want must be of log_probs, log_evidence, parameters; got 'logits'"),
        ({"want": ("log_evidence",)}, ValueError, "evidence must be given where log_evidence is wanted"),
        ({"evidence": torch.zeros(4, 3, 2, 4)}, ValueError, r"evidence must have shape \(4, 3, 2, 4, 5\)"),
        ({"evidence": torch.zeros(4, 3, 2, 4, 5).double()}, TypeError, "evidence must be a tensor of torch.float32"),
        (
            {"likelihood": LogisticMixture(3, 5), "evidence": torch.zeros(4, 3, 2, 4, 5)},
            ValueError,
            "evidence must be None for a mixture",
        ),
    ],
)
def test_one_error(settings, error, message):
    with pytest.raises(error, match=f"^call: {message}"):
        checked(**settings)


@pytest.mark.parametrize("likelihood, draws", [(Bernoulli(3, 2), [4]), (LogisticMixture(3, 5), [8, 9])])
def test_the_numbers_of_a_row_are_those_of_their_places(likelihood, draws):
    u = row_uniforms(SPEC, likelihood, SampleRequest(2, seed=3, first=6, draw=4), 1, CPU)
    assert u.shape == (len(draws), 2, 4, 3)
    for number, draw in enumerate(draws):
        for image in range(2):
            for column in range(4):
                for channel in range(3):
                    place = (1 * 4 + column) * 3 + channel
                    assert u[number, image, column, channel] == float(uniform(3, 6 + image, place, draw))
