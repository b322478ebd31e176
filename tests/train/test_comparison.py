"""The comparison of families: which fit the data, the budget, and what decides a claim."""

import time
from dataclasses import replace

import pytest
import torch
from support.pieces import integers, levels

from genfast import metrics
from genfast.data import ImageData, load
from genfast.metrics.intervals import Interval
from genfast.train.comparison import FAMILIES, Latents, ModelMeasures, Studied, claims, compare, training
from genfast.train.comparison.claims import decided
from genfast.train.comparison.families import recipes
from genfast.train.loop import RunResult
from genfast.train.start import start

DIGITS = dict.fromkeys(("data", "data_root", "size", "levels", "bits", "max_gb", "strict")) | {"data": "digits"}


def images(channels, side, count=20, top=256, labels=True):
    of = {"labels": integers(count, below=4), "classes": 4} if labels else {}
    return ImageData(levels(count, channels, side, side, levels=top), top, "mine", **of)


def test_every_family_fits_digits():
    fitting, left_out = recipes(load("digits"))
    assert [recipe.family for recipe in fitting] == [*FAMILIES] and left_out == {}
    assert all(recipe.train_options["steps"] == 10**9 for recipe in fitting), "the budget ends the training"


@pytest.mark.parametrize(
    "data, missing",
    [
        (images(3, 32), set()),
        (images(1, 28, top=2), set()),
        (images(1, 8, labels=False), {"projection GAN"}),
        (images(1, 17), {"DCGAN", "projection GAN", "R3GAN"}),
    ],
    ids=lambda value: getattr(value, "name", None) and str(tuple(value.images.shape)),
)
def test_what_does_not_fit_is_left_out_with_its_reason(data, missing):
    fitting, left_out = recipes(data)
    assert missing <= {*left_out}, left_out
    assert {recipe.family.title for recipe in fitting} | {*left_out} == {family.title for family in FAMILIES}
    assert all("got" in reason for reason in left_out.values()), left_out


def test_the_budget_is_of_cpu_time(tmp_path):
    """Other processes make a training slower, not shorter."""
    began, wall = time.process_time(), time.perf_counter()
    options = {"hidden": 2, "layers": 1, "head": 2}
    settings = {"steps": 10**9, "budget": 0.02, "batch": 4, "device": "cpu", "eval_every": 10**9}
    result = start(
        tmp_path / "r",
        model="pixelcnn",
        model_options=options,
        train_options=settings,
        data_options=DIGITS,
        of_cpu=True,
    )
    assert result.reason == "finished" and result.step > 1
    assert 1.1 < time.process_time() - began, "1.2 s of training"
    assert time.perf_counter() - wall > 0.5


def test_a_signal_ends_the_comparison_not_one_training(tmp_path, monkeypatch):
    begun = []

    def stopped(out, **settings):
        begun.append(settings["model"])
        return RunResult(3, 10, "interrupted")

    monkeypatch.setattr(training, "start", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(DIGITS, tmp_path, minutes=1.0)
    assert begun == ["pixelrnn"]


def studied(kind, title, draws, **measures):
    made = ModelMeasures("run", title, "model", kind, 0, 1, None, None, **measures)
    return Studied(made, draws)


def accuracy(both, low, high):
    return metrics.Accuracy(both, both, both, low, high, 100)


def every():
    """A GAN of noise, an autoregressive model of smooth images that codes best, and a VAE that codes worse."""
    noise = levels(60, 1, 8, 8, levels=16)
    smooth = (noise.float() * 0 + torch.arange(8.0)).to(torch.uint8)
    smooth = torch.minimum(smooth + (noise > 12), torch.tensor(15, dtype=torch.uint8))
    gan = studied(
        "adversarial",
        "DCGAN",
        noise,
        equilibrium=metrics.Verdict("discriminator ahead", ()),
        accuracy=accuracy(0.9, 0.85, 0.95),
        images_per_second=Interval(1000, 900, 1100),
    )
    rates = {"images_per_second": Interval(500, 400, 600), "without_engine": Interval(5, 4, 6)}
    rnn = studied("autoregressive", "PixelRNN", smooth, nats_by="exact", **rates)
    rnn.nats = torch.linspace(50, 60, 30)
    vae = studied("latent", "VAE", smooth, nats_by="bound")
    vae.nats, vae.means = rnn.nats + torch.linspace(0.5, 3, 30), smooth
    vae.measures.latents = Latents(4, 3, 0.9, 0.8, Interval(0.1, 0.05, 0.15))
    return [gan, rnn, vae]


def verdicts(models):
    return {claim.sentence: claim.verdict for claim in claims(models, models[0].draws, 16)}


def test_claims_follow_from_the_measures():
    found = verdicts(every())
    assert found == {
        "Draws of explicit models are blurrier than the GAN's": "true",
        "The VAE's means are blurrier than the GAN's draws": "true",
        "The VAE's vectors tell classes better than pixels": "true",
        "The DCGAN is at its equilibrium": "false",
        "The autoregressive model codes best": "true",
        "Sampling the autoregressive model is slow, with genfast's engine": "false",
        "Sampling the autoregressive model is slow, by whole forward passes": "true",
    }


def test_the_reverse_makes_them_false_and_noise_undecided():
    gan, rnn, vae = every()
    gan.draws, rnn.draws = rnn.draws, gan.draws
    vae.draws = vae.means = rnn.draws
    rnn.nats, vae.nats = vae.nats, rnn.nats
    vae.measures.latents = replace(vae.measures.latents, better=Interval(-0.1, -0.2, -0.05))
    gan.measures.equilibrium = metrics.Verdict("at equilibrium", ())
    found = verdicts([gan, rnn, vae])
    assert list(found.values())[:5] == ["false", "false", "false", "true", "false"]
    rnn.draws = gan.draws = vae.draws = vae.means = levels(60, 1, 8, 8, levels=16)
    rnn.nats = vae.nats + torch.linspace(-1, 1, 30)
    vae.measures.latents = replace(vae.measures.latents, better=Interval(0.0, -0.1, 0.1))
    gan.measures.equilibrium = metrics.Verdict("undecided", ())
    found = verdicts([gan, rnn, vae])
    assert list(found.values())[:5] == 5 * ["undecided"]


def test_a_claim_without_its_models_is_undecided():
    made = claims([], levels(1, 1, 8, 8), 256)
    assert len(made) == 7 and all(c.verdict == "undecided" and c.how.startswith("not measured") for c in made)
    assert decided(Interval(1, 0.9, 1.1), 1.0, True) == "undecided"
