"""The page of a comparison of families of models."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import torch

from genfast.metrics.intervals import Interval
from genfast.reports.blocks import Block, Cell, Figure, Findings, Mark, Page, Picture, Section, Table
from genfast.reports.figures import Bar, bars
from genfast.reports.numbers import interval, number
from genfast.reports.sheets import sheet
from genfast.train.comparison import Claim, Compared, Comparison, ModelMeasures, Studied, damaged

SHOWN = 24  # images of a sheet
TONES: dict[str, Any] = {"true": "good", "false": "bad", "undecided": "unsure"}
DISTANCES = ("precision", "recall", "density", "coverage", "Frechet distance", "KID")


def comparison_page(compared: Compared, out: str) -> Page:
    """The report of a comparison in the folder `out`."""
    result = compared.result
    budget = "finished runs" if result.minutes is None else f"trained for {result.minutes:g} CPU-minutes each"
    lead = (
        f"{len(result.models)} models of {result.data}, {budget}: {result.training:,} training images, "
        f"{result.validation:,} to choose weights by, {result.held_out:,} held out, on which all is measured."
    )
    sections = [
        Section("Claims", _claims(result.claims)),
        Section("Draws", [_real(compared), *(_sheet(one, result) for one in compared.studied)]),
        Section("Likelihood and compression", _likelihoods(result)),
        Section("How far draws are from held-out images", [_distances(result), *_class_tables(result)]),
        Section("Sharpness", _sharpness(result)),
        Section("Copies and other faults", _faults(result)),
        *_latents(result),
        *_equilibria(result),
        *_repairs(compared),
        Section("Cost", _costs(result)),
    ]
    if result.left_out:
        sections.append(Section("Left out", [Table(("family", "why"), list(result.left_out.items()))]))
    return Page(
        "Families of generative models compared", lead, sections, _tiles(result), _next(result, out), result.machine
    )


def label(one: ModelMeasures, result: Comparison) -> str:
    """The title of a model, with its seed where there are several."""
    same = [other for other in result.models if other.title == one.title]
    return f"{one.title}, seed {one.seed}" if len(same) > 1 else one.title


def verdict_mark(claim: Claim) -> Mark:
    """A verdict in its colour."""
    return Mark(claim.verdict, TONES[claim.verdict])


def _tiles(result: Comparison) -> list[tuple[Cell, str]]:
    coded = [one for one in result.models if one.bits_per_dim is not None]
    tiles: list[tuple[Cell, str]] = []
    if coded:
        best = min(coded, key=lambda one: one.bits_per_dim or 0.0)
        tiles.append((best.bits_per_dim, f"bits per value, the least, of the {best.title}"))
    for word in ("true", "false", "undecided"):
        count = sum(claim.verdict == word for claim in result.claims)
        tiles.append((count, f"claims {word} on these data"))
    flagged = sum(bool(one.faults and one.faults.found) for one in result.models)
    return [*tiles, (flagged, "models with a fault that their draws show")]


def _claims(claims: Sequence[Claim]) -> list[Block]:
    rows = []
    for claim in claims:
        value = "" if claim.value is None else f"{_between(claim.value)}: "
        rows.append((claim.sentence, verdict_mark(claim), value + claim.how))
    text = "True or false where the whole interval of 95 % says so, on these data and with this budget; else undecided."
    return [text, Findings(rows)]


def _between(value: Interval | None) -> str:
    return "–" if value is None else f"{number(float(value.value), 3)} ({interval(value.low, value.high)})"


def _real(compared: Compared) -> Picture:
    held_out = compared.reference.held_out
    alt = f"{min(SHOWN, len(held_out))} held-out images of {held_out.name}"
    return sheet("real.png", held_out.images[:SHOWN], held_out.levels, alt=alt, caption="Held-out images.", columns=6)


def _sheet(one: Studied, result: Comparison) -> Picture:
    name = label(one.measures, result)
    file = f"draws-{_file(one.measures)}.png"
    return sheet(file, one.draws[:SHOWN], result.levels, alt=f"{SHOWN} draws of the {name}", caption=name, columns=6)


def _file(one: ModelMeasures) -> str:
    return f"{one.model.replace('+', 'p')}-{one.seed}"


def _likelihoods(result: Comparison) -> list[Block]:
    rows = [
        (label(m, result), _between(m.nats), m.bits_per_dim, m.nats_by, m.file_bits, m.file_by)
        for m in result.models
        if m.nats is not None or m.file_bits is not None
    ]
    heads = ("model", "nats per image", "bits per value", "how obtained", "bits of the file", "its images")
    table = Table(
        heads, rows, f"Of {result.held_out:,} held-out images; bits are per value of a pixel. Fewer are better."
    )
    drawn = [
        Bar(label(m, result), m.bits_per_dim, unit * m.nats.low, unit * m.nats.high)
        for m in result.models
        if m.bits_per_dim is not None and m.nats is not None
        for unit in [m.bits_per_dim / m.nats.value]
    ]
    return [table, *([_bits(drawn)] if drawn else [])]


def _bits(rows: list[Bar]) -> Figure:
    best = min(rows, key=lambda row: row.value)
    return bars(
        "bits.svg",
        rows,
        x="bits per value",
        alt=f"Bits per value of {len(rows)} models; the {best.label} needs least, {best.value:.3f}",
        caption="Bits per value of the held-out images, with intervals of 95 %.",
    )


def _distances(result: Comparison) -> Table:
    rows: list[list[Cell]] = [
        [label(m, result), *(m.distances.get(name) for name in DISTANCES), m.distances.get("KID, deviation")]
        for m in result.models
    ]
    best = result.training_images
    rows.append(["training images", *(best.get(name) for name in DISTANCES), best.get("KID, deviation")])
    features = "pixels"
    if result.accuracy is not None:
        features = f"features of a classifier that names {100 * result.accuracy:.1f} % of the held-out images right"
    caption = f"{result.compared:,} draws and as many held-out images, by {features}. The last row is what is possible."
    return Table(("model", *DISTANCES, "KID, deviation"), rows, caption)


def _class_tables(result: Comparison) -> list[Block]:
    shown = [m for m in result.models if m.classes is not None]
    if not shown or len(shown[0].classes or ()) > 20:
        return []
    heads = ("model", *(f"class {k}" for k in range(len(shown[0].classes or ()))))
    rows = [[label(m, result), *(f"{100 * share:.1f} %" for share in m.classes or ())] for m in shown]
    return [Table(heads, rows, "Classes of the draws, by the classifier.")]


def _sharpness(result: Comparison) -> list[Block]:
    rows: list[tuple[Cell, ...]] = []
    drawn = []
    for m in result.models:
        for what, sharp in (("draws", m.sharpness), ("means", m.sharpness_of_means)):
            if sharp is None:
                continue
            name = f"{label(m, result)}, {what}"
            rows.append((name, *map(_between, (sharp.gradient, sharp.high_frequency, sharp.contrast, sharp.detail))))
            value = sharp.high_frequency
            drawn.append(Bar(name, value.value, value.low, value.high, "plain" if what == "draws" else "muted"))
    heads = ("images", "gradient", "high frequencies", "contrast", "detail")
    caption = "Energies over those of held-out images: 1 is as sharp. Means are those decoded for the held-out images."
    figure = bars(
        "sharpness.svg",
        drawn,
        x="energy of high frequencies, relative to held-out images",
        levels={"held-out images": 1.0},
        alt=f"Energy of high frequencies of {len(drawn)} sets of images, relative to held-out images",
        caption="Draws in blue, decoded means in grey, with intervals of 95 %.",
    )
    return [Table(heads, rows, caption), figure]


def _faults(result: Comparison) -> list[Block]:
    rows, found_in = [], []
    for m in result.models:
        if m.faults is None:
            continue
        copies = m.faults.memorisation
        found = Mark(", ".join(m.faults.found), "bad") if m.faults.found else Mark("none found", "good")
        shares = (f"{100 * copies.near:.1f} %", f"{100 * copies.near_held_out:.1f} %")
        rows.append((label(m, result), found, copies.median, copies.held_out, *shares, copies.p))
        found_in += [
            (f"{label(m, result)}: {test.name}", Mark("fault", "bad"), test.words)
            for test in m.faults.tests
            if test.found
        ]
    heads = (
        "model",
        "faults",
        "median ratio",
        "of held-out images",
        "near",
        "near, held out",
        "p",
    )
    caption = (
        "Ratio: distance to the nearest training image over that to the second nearest; small for a copy. Each test "
        "flags a faultless model once in 100 times at most."
    )
    return [Table(heads, rows, caption), *([Findings(found_in)] if found_in else [])]


def _latents(result: Comparison) -> list[Section]:
    rows = [
        (
            label(m, result),
            m.latents.size,
            m.latents.active,
            m.latents.probe,
            m.latents.pixels,
            _between(m.latents.better),
        )
        for m in result.models
        if m.latents is not None
    ]
    heads = ("model", "latents", "active", "classes told by latents", "by pixels", "difference")
    caption = "Shares of held-out images whose class a linear probe tells."
    return [Section("Latents", [Table(heads, rows, caption)])] if rows else []


def _equilibria(result: Comparison) -> list[Section]:
    rows = [
        (label(m, result), m.equilibrium.words, f"{100 * m.accuracy.both:.1f} %", "; ".join(m.equilibrium.reasons))
        for m in result.models
        if m.equilibrium is not None and m.accuracy is not None
    ]
    heads = ("model", "state", "discriminator right", "reasons")
    return [Section("The two networks of each GAN", [Table(heads, rows)])] if rows else []


def _repairs(compared: Compared) -> list[Section]:
    able = [one for one in compared.studied if one.filled is not None and one.cleaned is not None]
    if not able:
        return []
    ref = compared.reference
    known, noisy, noise = damaged(ref)
    images, levels = ref.held_out.images[: len(noisy)], ref.held_out.levels
    given = torch.where(known, images, torch.zeros_like(images))
    seen = (noise.picture(noisy, levels).clamp(0, 1) * (levels - 1)).round().to(torch.uint8)
    blocks: list[Block] = []
    names = [label(one.measures, compared.result) for one in able]
    for file, what, damage, results, values in (
        ("filled.png", "given", given, [one.filled for one in able], [one.measures.filled for one in able]),
        (
            "cleaned.png",
            "noisy",
            seen,
            [one.cleaned for one in able],
            [one.measures.cleaned for one in able],
        ),
    ):
        columns = [images, damage, *(part for part in results if part is not None)]
        heads = [("image", 1), (what, 1), *((name, 1) for name in names)]
        told = ", ".join(f"{name} {value:.1f} dB" for name, value in zip(names, values) if value is not None)
        lead = (
            "Lower halves filled in by a draw" if what == "given" else "Noise removed: the mean given the noisy image"
        )
        rows = torch.stack(columns, 1).flatten(0, 1)
        alt = f"{len(images)} rows of a held-out image, what was {what}, and the results of {len(names)} models"
        blocks.append(sheet(file, rows, levels, alt=alt, caption=f"{lead}: {told}.", columns=len(columns), heads=heads))
    return [Section("The same images, filled in and cleaned", blocks)]


def _costs(result: Comparison) -> list[Block]:
    rows, speeds = [], []
    for m in result.models:
        cost = m.cost
        slow = None if m.without_engine is None else _between(m.without_engine)
        memory = None if cost is None or cost.memory is None else round(cost.memory / 2**20)
        minutes = m.wall_minutes if cost is None else cost.minutes
        rows.append(
            (
                label(m, result),
                m.parameters,
                minutes,
                None if cost is None else cost.steps,
                memory,
                _between(m.images_per_second),
                slow,
            )
        )
        if m.images_per_second is not None:
            rate = m.images_per_second
            speeds.append(Bar(label(m, result), rate.value, rate.low, rate.high))
    clock = "minutes" if result.minutes is None else "CPU-minutes"
    heads = ("model", "parameters", clock, "updates", "peak memory, MiB", "images a second", "without the engine")
    table = Table(heads, rows, "Medians of five timings, with the slowest and the fastest of them.")
    figure = bars(
        "speed.svg",
        speeds,
        x="images drawn per second",
        log=True,
        alt=f"Images per second of {len(speeds)} models",
        caption="Sampling: images a second, 256 at a time.",
    )
    return [table, figure]


def _next(result: Comparison, out: str) -> list[tuple[str, str]]:
    runs = [shlex.quote(one.run) for one in result.models]
    coded = [one for one in result.models if one.bits_per_dim is not None] or result.models
    best = shlex.quote(min(coded, key=lambda one: one.bits_per_dim or 0.0).run)
    return [
        (f"genfast sample {best} -n 64 --out samples.png", "Draw more images:"),
        (f"genfast evaluate {best}", "Evaluate one on all held-out images:"),
        (f"genfast compare {' '.join(runs)} --out {shlex.quote(out)} --overwrite", "Measure these runs again:"),
    ]
