"""The page of an audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genfast._text import shown
from genfast.audit.columns import Column
from genfast.audit.groups import Groups
from genfast.audit.result import LIMITS, Audit, Copies
from genfast.audit.shifts import Shift
from genfast.audit.ties import Tie
from genfast.reports import Block, Facts, Line, Mark, Page, Section, Table, interval, lines, number, sheet
from genfast.reports.blocks import Cell

ROWS = 12  # of a table, at most
SHOWN = 8  # of a sheet, rows at most
STEPS = ("-3 sd", "", "", "0", "", "", "3 sd")
FDR = 0.05


def page(
    audit: Audit,
    images: Tensor,
    others: Tensor | None = None,
    *,
    columns: Sequence[Column] = (),
    machine: Mapping[str, Any] | None = None,
    commands: Sequence[tuple[str, str]] = (),
) -> Page:
    """The report of an audit.

    Args:
        audit: what `genfast.audit.audit` returned.
        images, others: the images that it was of, levels uint8 [n, C, H, W], and those of the other set.
        columns: that it was given.
        machine: of `genfast.train.run_folder.machine`.
        commands: (command line, what it does), what the reader may do next.
    Returns: `genfast.reports.Page`.
    """
    every = images.cpu() if others is None else torch.cat((images.cpu(), others.cpu()))
    sections = [
        _findings(audit),
        _latents(audit),
        *_ties(audit, every),
        *_pairs(audit),
        _regions(audit, every),
        _copies(audit, every),
        *(_shift(audit, audit.shift, every) if audit.shift else ()),
        *(_groups(audit, found, number_) for number_, found in enumerate(audit.groups, 1)),
        _weights(audit),
        _power(audit),
        Section("What this page cannot know", [" ".join(LIMITS)]),
    ]
    count = len(audit.findings)
    lead = f"{audit.images:,} images of {shown(audit.data)}: what varies in them, and where the set is biased."
    facts = [
        (count, "finding" if count == 1 else "findings"),
        (audit.carrying, "latents carry information"),
        (sum(len(copies.found.pairs) for copies in audit.copies), "pairs of near duplicates"),
        (_share(audit.power.smallest), "smallest tie that would be found"),
    ]
    return Page("Audit", lead, sections, facts, commands, machine or {})


def _findings(audit: Audit) -> Section:
    about = (
        f"What chance explains in one of {round(1 / audit.level)} clean sets at most, for each kind of test. "
        "Of a tie, p is the false discovery rate over all ties."
    )
    if not audit.findings:
        return Section("Findings", [f"None. {about}"])
    rows = [(Mark(found.kind, "bad"), shown(found.text), found.p) for found in audit.findings]
    return Section("Findings", [Table(("kind", "what", "p"), rows, about)])


def _latents(audit: Audit) -> Section:
    unit = "nats (KL)" if audit.unit == "nats" else "share of the codes"
    rows = [
        (str(row.latent), row.information, row.follows or "none", row.share if row.follows else None)
        for row in audit.latents[:ROWS]
    ]
    told = f"The most informative first. {audit.carrying} of {audit.unused + len(audit.latents)} carry information."
    blocks: list[Block] = [Table(("latent", unit, "follows", "share of its variance, by rank"), rows, told)]
    moved = audit.traversals[:SHOWN]
    heads = [(text, 1) for text in STEPS] if moved.shape[1] == len(STEPS) else []
    names = ", ".join(str(row.latent) for row in audit.latents[: len(moved)])
    blocks.append(
        sheet(
            "latents.png",
            moved.flatten(0, 1).clamp(0, audit.levels - 1),
            audit.levels,
            columns=moved.shape[1],
            heads=heads,
            alt=f"Decoded images, a row for each of {len(moved)} latents that moves from -3 to 3 standard deviations",
            caption=f"Each row moves one latent and holds the others: latents {names}, from the top.",
        )
    )
    return Section("What varies", blocks)


def _ties(audit: Audit, images: Tensor) -> Iterator[Section]:
    if not audit.ties:
        text = "Neither colour nor lighting varies in groups, so there is nothing to hold against what the images show."
        yield Section("Colour, lighting and content", [text])
        return
    rows = [
        (t.factor.name, shown(t.other), t.result.information, t.result.strength, _chance(t.result.p), _marked(q))
        for t, q in zip(audit.ties, audit.tie_q, strict=True)
    ]
    about = (
        "Mutual information in nats, less that of permutations; its strength in standard deviations of theirs; "
        "p by permutation, q the false discovery rate."
    )
    blocks: list[Block] = [
        "Each image is taken apart: its two main colours, and what is drawn in them. The two share no information by "
        "construction, so that they depend on each other only if the set makes them.",
        Table(("factor", "with", "information", "strength", "p", "q"), rows, about),
    ]
    for at, t in enumerate(audit.ties, 1):
        blocks += _tie_blocks(t, at, images, audit.levels)
    yield Section("Colour, lighting and content", blocks)


def _tie_blocks(t: Tie, at: int, images: Tensor, levels: int) -> Iterator[Block]:
    """The groups of a tie that are farthest from what chance gives, and what they look like."""
    table = t.table.double()
    overall = table.sum(0) / table.sum()
    apart = ((table - table.sum(1, keepdim=True) * overall).square() / (table.sum(1, keepdim=True) * overall)).sum(1)
    order = apart.nan_to_num(0).argsort(descending=True)[:ROWS].tolist()
    most = overall.argsort(descending=True)[:6].tolist()
    heads = (shown(t.other), "images", *(f"{t.factor.name} {group + 1}" for group in most))
    rows: list[Sequence[Cell]] = [
        (shown(t.names[row]), int(table[row].sum()), *(_percent(table[row, g] / table[row].sum()) for g in most))
        for row in order
        if table[row].sum()
    ]
    rows.append(("all images", int(table.sum()), *(_percent(overall[group]) for group in most)))
    yield Table(heads, rows, f"Shares of each {t.factor.name}, in the groups that are farthest from chance.")
    examples = []
    for row in order[:SHOWN]:
        ours = (t.groups == row).nonzero()[:, 0]
        if len(ours):
            examples.append(images[ours[torch.arange(SHOWN, dtype=torch.int64, device="cpu") * len(ours) // SHOWN]])
    caption = f"Images of {', '.join(shown(t.names[row]) for row in order[: len(examples)])}, from the top."
    alt = f"Examples of the {len(examples)} groups, a row each"
    yield sheet(f"tie-{at}.png", torch.cat(examples), levels, columns=SHOWN, alt=alt, caption=caption)


def _pairs(audit: Audit) -> Iterator[Section]:
    rows = [
        (f"{pair.first} and {pair.second}", pair.information, _chance(pair.p), _marked(pair.q, FDR))
        for pair in audit.pairs[:ROWS]
    ]
    together = sum(pair.together for pair in audit.pairs)
    whole = f"{number(audit.total_correlation, 3)} nats (p {_chance(audit.total_correlation_p)})"
    text = (
        f"{together} of {len(audit.pairs)} pairs of latents go together at a false discovery rate of 5 %. The total "
        f"correlation of all of them is {whole}. "
        "That may be the set, or how this model cuts it up: these pairs are listed and are no findings."
    )
    table = Table(("latents", "information", "p", "q"), rows, "Mutual information in nats, less that of permutations.")
    yield Section("Latents that go together", [text, table])


def _regions(audit: Audit, images: Tensor) -> Section:
    blocks: list[Block] = []
    half = min(5, len(audit.regions) // 2)
    for name, regions in (("thinnest", audit.regions[:half]), ("most crowded", audit.regions[::-1][:half])):
        if not regions:
            continue
        near = min(len(region.nearest) for region in regions)
        cells = [
            torch.cat((region.archetype[None].clamp(0, audit.levels - 1), images[list(region.nearest[:near])].float()))
            for region in regions
        ]
        blocks.append(
            sheet(
                f"{name.split()[-1]}.png",
                torch.cat(cells),
                audit.levels,
                columns=near + 1,
                heads=[("decoded", 1), ("nearest images", near)],
                alt=f"The decoded centres of the {name} regions, and the images that are nearest to each",
                caption=f"The {name} regions of latent space.",
            )
        )
        rows = [
            (region.count, region.density, ", ".join(shown(file, 80) for file in audit.names(region.nearest[:near])))
            for region in regions
        ]
        caption = f"The {name} regions, in the order of the picture; density relative to the median image."
        blocks.append(Table(("images", "density", "nearest"), rows, caption))
    return Section("Thin and crowded regions", blocks)


def _copies(audit: Audit, images: Tensor) -> Section:
    blocks: list[Block] = []
    for at, copies in enumerate(audit.copies, 1):
        blocks += _copies_blocks(audit, copies, at, images)
    return Section("Near duplicates", blocks)


def _copies_blocks(audit: Audit, copies: Copies, at: int, images: Tensor) -> Iterator[Block]:
    found = copies.found
    limit = f"a copy is found where it is nearer than {number(found.limit, 2)} of the distance to the 16th neighbour"
    if not len(found.pairs):
        yield f"By {copies.how}: none; {limit}, at the median image."
        return
    yield f"By {copies.how}: {len(found.pairs):,} pairs; {limit}."
    rows = [
        (*(shown(file, 80) for file in audit.names(pair)), ratio, _chance(p))
        for pair, ratio, p in zip(found.pairs[:ROWS].tolist(), found.ratio.tolist(), found.p.tolist())
    ]
    yield Table(("image", "and", "distance", "p"), rows, "Distance relative to the 16th neighbour; p of the whole set.")
    pairs = images[found.pairs[: 4 * SHOWN].flatten()]
    alt = "The pairs, each side by side"
    columns = min(8, len(pairs))
    yield sheet(
        f"duplicates-{at}.png", pairs, audit.levels, columns=columns, alt=alt, caption="The pairs, side by side."
    )


def _shift(audit: Audit, shift: Shift, images: Tensor) -> Iterator[Section]:
    first, second = shown(shift.first), shown(shift.second)
    test = shift.test
    tiles = Facts(
        [
            (f"{test.mmd:.2e}", f"squared MMD, {test.low:.1e} to {test.high:.1e}"),
            (_chance(test.p), "p of it and of the shares of kinds"),
            (_share(shift.smallest), "smallest planted share of one kind that is found"),
        ]
    )
    kinds = shift.kinds[:ROWS]
    rows = [
        (f"kind {at}", _percent(kind.first), _percent(kind.second), _chance(kind.p), _marked(kind.q, FDR))
        for at, kind in enumerate(kinds, 1)
    ]
    near = min(len(kind.examples) for kind in kinds)
    examples = torch.cat([images[list(kind.examples[:near])] for kind in kinds[:SHOWN]])
    latents = [(str(row.latent), row.difference, _chance(row.p), _marked(row.q, FDR)) for row in shift.latents[:ROWS]]
    about = "Kinds of images by their pixels, those that differ most first; p by permutation."
    blocks: list[Block] = [
        f"{shift.sizes[0]:,} images of {first} and {shift.sizes[1]:,} of {second}, by the pixels of both: a kernel "
        "two-sample test, and one of the shares of kinds.",
        tiles,
        Table(("kind", first, second, "p", "q"), rows, about),
        sheet(
            "kinds.png",
            examples,
            audit.levels,
            columns=near,
            alt="Typical images of each kind, a row each",
            caption="Typical images of these kinds, from the top.",
        ),
        Table(
            ("latent", "difference of the means, sd", "p", "q"),
            latents,
            "Where to look: a model that was trained on one of the sets may itself tell them apart.",
        ),
    ]
    yield Section("The two sets", blocks)


def _groups(audit: Audit, found: Groups, at: int) -> Section:
    rows = [
        (
            shown(g.name),
            g.count,
            g.nats,
            interval(g.nats - g.nats_half, g.nats + g.nats_half, 4),
            g.error,
            interval(g.error - g.error_half, g.error + g.error_half),
        )
        for g in found.groups
    ]
    heads = ("group", "images", "nats", "95 %", "squared error", "95 %")
    about = "Nats per image by the model's bound, and the mean squared error of reconstructions of values from 0 to 1."
    told = [(str(t.latent), t.information, _chance(t.p), _marked(t.q, FDR)) for t in found.told[:ROWS]]
    caption = "Latents that tell the column: mutual information in nats, less that of permutations."
    blocks = [Table(heads, rows, about), Table(("latent", "information", "p", "q"), told, caption)]
    return Section(f"Groups of {shown(found.column)}", blocks)


def _weights(audit: Audit) -> Section:
    w = audit.weights
    text = (
        f"weights.csv has a weight for each image that makes {shown(w.what)}: what is off falls from "
        f"{number(w.before, 3)} to {number(w.after, 3)} nats. Weighted so, the set counts as "
        f"{number(round(w.effective))} images."
    )
    return Section("Weights that balance the set", [text])


def _power(audit: Audit) -> Section:
    curves = {"content": audit.power} | {shown(name): power for name, power in audit.column_power.items()}
    made = [
        Line(name, [100 * s for s in power.shares], [100 * f for f in power.found]) for name, power in curves.items()
    ]
    trials = audit.power.trials
    text = (
        f"Measured by planting: a factor of two equally frequent values is tied to half of the contents, or of the "
        f"groups of a column, so that this share of the images of a half has the value of its half. {trials} sets of "
        f"{audit.images:,} images for each share, at the level of the findings. "
        + " ".join(f"Of ties with {name}: {_found(power.smallest)}." for name, power in curves.items())
    )
    plot = lines(
        "power.svg",
        made,
        x="share, % (50: no tie)",
        y="sets found, %",
        limits=(0, 103),
        alt="Planted ties that the audit finds, over their share",
    )
    return Section("What this audit would have found", [text, plot])


def _found(smallest: float | None) -> str:
    return "less than 80 % are found at any share" if smallest is None else f"80 % are found from {_share(smallest)} on"


def _marked(q: float, level: float = 0.01) -> Mark | str:
    return Mark(_chance(q), "bad") if q <= level else _chance(q)


def _chance(p: float) -> str:
    """A probability as short as it is known."""
    return f"{p:.2g}" if p >= 1e-6 else "< 1e-6"


def _share(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.0f} %"


def _percent(share: Any) -> str:
    return f"{100 * float(share):.1f} %"
