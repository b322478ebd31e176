"""Claims of the field about families of models, as sentences that the measures make true, false or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genfast import metrics
from genfast.metrics.intervals import Interval, bootstrap_means, bounded
from genfast.train.comparison.measures import ModelMeasures, Studied

EXPLICIT = ("autoregressive", "latent", "codes")
SLOW = 10.0  # times as long as a GAN takes for an image


@dataclass(frozen=True)
class Claim:
    """A sentence and its verdict on these data.

    Attributes:
        sentence: the claim.
        verdict: "true" or "false" where the whole interval says so, else "undecided".
        value: what decides, with its interval of 95 %; None where it could not be measured.
        how: what the value is, from what it is made, and what would make the claim true.
    """

    sentence: str
    verdict: Literal["true", "false", "undecided"]
    value: Interval | None
    how: str


def claims(studied: Sequence[Studied], held_out: Tensor, levels: int, seed: int = 0) -> list[Claim]:
    """Every claim that these models can decide; a claim without a model that it is about is undecided, and says so."""
    by_kind: dict[str, list[Studied]] = {}
    for one in studied:
        by_kind.setdefault(one.measures.kind, []).append(one)
    made = [_blurrier(by_kind, levels, seed), _means(by_kind, levels, seed)]
    made += [_vectors(by_kind), *_equilibria(by_kind), _codes_best(by_kind, seed), *_slow(by_kind)]
    return made


def decided(value: Interval, threshold: float, below: bool) -> Literal["true", "false", "undecided"]:
    """Whether the whole interval is below the threshold, or above it if not `below`."""
    if value.high < threshold:
        return "true" if below else "false"
    if value.low > threshold:
        return "false" if below else "true"
    return "undecided"


def _missing(sentence: str, what: str) -> Claim:
    return Claim(sentence, "undecided", None, f"not measured: {what}")


def _titles(models: Sequence[Studied]) -> str:
    return ", ".join(dict.fromkeys(one.measures.title for one in models))


def _detail(models: Sequence[Studied], images: Sequence[Tensor], levels: int, seed: int) -> tuple[float, Tensor]:
    """The energy of high frequencies of images, the mean over models, and its resamples over models and images."""
    energies = [metrics.image_energies(part, levels)[:, 1:2] for part in images]
    drawn = torch.stack([bootstrap_means(part, seed=seed + number)[:, 0] for number, part in enumerate(energies)])
    if len(models) > 1:  # seeds and families are a sample too
        weights = torch.ones(drawn.shape[1], len(models), dtype=torch.float64, device="cpu")
        chosen = torch.multinomial(
            weights, len(models), replacement=True, generator=torch.Generator("cpu").manual_seed(seed)
        )
        drawn = drawn.gather(0, chosen.T)
    return float(torch.stack([part.mean() for part in energies]).mean()), drawn.mean(0)


def _ratio(one: tuple[float, Tensor], other: tuple[float, Tensor]) -> Interval:
    return bounded(one[0] / max(other[0], 1e-300), one[1] / other[1].clamp(min=1e-300))


def _blurrier(by_kind: dict[str, list[Studied]], levels: int, seed: int) -> Claim:
    sentence = "Draws of explicit models are blurrier than the GAN's"
    explicit = [one for kind in EXPLICIT for one in by_kind.get(kind, ())]
    gans = by_kind.get("adversarial", [])
    if not explicit or not gans:
        return _missing(sentence, "needs a model with a likelihood and a GAN")
    value = _ratio(*(_detail(part, [one.draws for one in part], levels, seed) for part in (explicit, gans)))
    how = f"energy of high frequencies in draws of {_titles(explicit)} over that of {_titles(gans)}; true below 1"
    return Claim(sentence, decided(value, 1.0, True), value, how)


def _means(by_kind: dict[str, list[Studied]], levels: int, seed: int) -> Claim:
    sentence = "The VAE's means are blurrier than the GAN's draws"
    vaes, gans = by_kind.get("latent", []), by_kind.get("adversarial", [])
    means = [one.means for one in vaes if one.means is not None]
    if not means or not gans:
        return _missing(sentence, "needs a VAE and a GAN")
    value = _ratio(_detail(vaes, means, levels, seed), _detail(gans, [one.draws for one in gans], levels, seed))
    how = f"energy of high frequencies in the means that {_titles(vaes)} decode for held-out images over that of draws"
    return Claim(sentence, decided(value, 1.0, True), value, f"{how} of {_titles(gans)}; true below 1")


def _vectors(by_kind: dict[str, list[Studied]]) -> Claim:
    sentence = "The VAE's vectors tell classes better than pixels"
    found = [one.measures.latents for one in by_kind.get("latent", ())]
    better = [latents.better for latents in found if latents is not None and latents.better is not None]
    if not better:
        return _missing(sentence, "needs a VAE and labels")
    value = Interval(*(sum(part) / len(better) for part in zip(*((b.value, b.low, b.high) for b in better))))
    how = "share of held-out images that a linear probe of the vectors names right, less that of a probe of the pixels"
    return Claim(sentence, decided(value, 0.0, False), value, f"{how}, image by image; true above 0")


def _equilibria(by_kind: dict[str, list[Studied]]) -> list[Claim]:
    made = []
    for one in by_kind.get("adversarial", ()):
        sentence = f"The {one.measures.title} is at its equilibrium" + _of_seed(one, by_kind["adversarial"])
        state, accuracy = one.measures.equilibrium, one.measures.accuracy
        if state is None or accuracy is None:
            made.append(_missing(sentence, "needs the records of an adversarial training"))
            continue
        words: Literal["true", "false", "undecided"] = "false"
        if state.words in ("at equilibrium", "undecided"):
            words = "true" if state.words == "at equilibrium" else "undecided"
        value = Interval(accuracy.both, accuracy.low, accuracy.high)
        how = f"{state.words}: share of images that the discriminator tells right; true within 0.1 of one half"
        made.append(Claim(sentence, words, value, how))
    return made or [_missing("The GAN is at its equilibrium", "needs a GAN")]


def _of_seed(one: Studied, all_of_kind: Sequence[Studied]) -> str:
    same = [other for other in all_of_kind if other.measures.title == one.measures.title]
    return f" (seed {one.measures.seed})" if len(same) > 1 else ""


def _codes_best(by_kind: dict[str, list[Studied]], seed: int) -> Claim:
    sentence = "The autoregressive model codes best"
    ours = [one for one in by_kind.get("autoregressive", ()) if one.nats is not None]
    others = [one for kind in ("latent", "codes") for one in by_kind.get(kind, ()) if one.nats is not None]
    if not ours or not others:
        return _missing(sentence, "needs an autoregressive model and another one with a likelihood or a bound")
    one, other = (min(part, key=lambda x: float(x.nats.mean())) for part in (ours, others))  # type: ignore[union-attr]
    assert one.nats is not None and other.nats is not None
    value = metrics.difference_interval(one.nats, other.nats, seed=seed)
    how = (
        f"nats per held-out image of the {one.measures.title} ({one.measures.nats_by}) less those of the "
        f"{other.measures.title} ({other.measures.nats_by}), image by image; true below 0"
    )
    return Claim(sentence, decided(value, 0.0, True), value, how)


def _slow(by_kind: dict[str, list[Studied]]) -> list[Claim]:
    made = []
    gans = [one.measures.images_per_second for one in by_kind.get("adversarial", ())]
    for engine in (True, False):
        way = "with genfast's engine" if engine else "by whole forward passes"
        sentence = f"Sampling the autoregressive model is slow, {way}"
        rates = [m.images_per_second if engine else m.without_engine for m in _measures(by_kind)]
        ours, rivals = [x for x in rates if x is not None], [x for x in gans if x is not None]
        if not ours or not rivals:
            made.append(_missing(sentence, "needs an autoregressive model and a GAN"))
            continue
        fast, slow = (sorted(part, key=lambda x: x.value)[len(part) // 2] for part in (rivals, ours))
        value = Interval(fast.value / slow.value, fast.low / slow.high, fast.high / slow.low)
        how = (
            f"times as long for an image as the GAN: {slow.value:,.0f} images a second, the GAN {fast.value:,.0f}; "
            f"true above {SLOW:g}"
        )
        made.append(Claim(sentence, decided(value, SLOW, False), value, how))
    return made


def _measures(by_kind: dict[str, list[Studied]]) -> list[ModelMeasures]:
    return [one.measures for one in by_kind.get("autoregressive", ())]
