"""The page of the results of audit.py."""

from __future__ import annotations


def auc(clean: list[float], planted: list[float]) -> float:
    """The probability that a planted set scores above a clean one, ties counted as half."""
    wins = sum((p > c) + 0.5 * (p == c) for p in planted for c in clean)
    return wins / (len(clean) * len(planted))


def rate(values: list[float], level: float) -> str:
    return f"{sum(p <= level for p in values)} of {len(values)}"


def markdown(result: dict) -> str:
    level, about = result["level"], result["machine"]
    clean, *planted = result["ties"]
    lines = [
        "# What the audit finds",
        "",
        f"`python benchmarks/audit.py`, {about['date']}: {result['sets']} sets of each kind, {result['images']} of "
        f"scikit-learn's digits each (8x8, 16 levels) in two colours. A finding is p at most {level}.",
        "",
        "## Colour tied to the digit",
        "",
        "Each colour is tied to five of the ten digits with this share. AUC: of the strength of the tie, planted sets "
        "against clean ones. Reported power: what the audit itself says it would find, from planting ties to clusters; "
        "where its table has no such share, between the two beside it.",
        "",
        "| share | AUC, pixels alone | found | reported power | AUC, digit as column | found | reported power |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in planted:
        cells = [f"{row['share']:.2f}"]
        for name in ("", "column_"):
            power = between(clean[f"{name}power"], row["share"])
            value = auc(clean[f"{name}strength"], row[f"{name}strength"])
            cells += [f"{value:.3f}", rate(row[f"{name}p"], level), f"{100 * power:.0f} %"]
        lines.append(f"| {' | '.join(cells)} |")
    cells = ["clean", "", rate(clean["p"], level), "", "", rate(clean["column_p"], level), ""]
    lines += [f"| {' | '.join(cells)} |", "", "## Copies", ""]
    lines += ["| noise of the copy, levels | found | other pairs |", "|---|---|---|"]
    for row in result["duplicates"]:
        first = (
            ("no copy", "") if row["noise"] is None else (f"{row['noise']:g}", f"{row['found']} of {result['sets']}")
        )
        lines.append(f"| {first[0]} | {first[1]} | {row['others']} |")
    lines += ["", "## A sub-population that is larger in one of two sets", ""]
    lines += ["Half of the digits against the other half, of which a share is replaced by images of one digit.", ""]
    lines += ["| share | found | smallest share that the audit says it finds (median) |", "|---|---|---|"]
    for row in result["shifts"]:
        smallest = "none" if row["smallest"] is None else f"{row['smallest']:.2f}"
        lines.append(f"| {row['share']:.2f} | {row['found']} of {result['sets']} | {smallest} |")
    found = result["clean"]["sets"]
    some, told = sum(row["findings"] > 0 for row in found), sum(row["told"] > 0 for row in found)
    timed = result["time"]
    lines += [
        "",
        "## Clean sets",
        "",
        f"Whole audits with a shuffled column: findings in {some} of {len(found)}; a latent marked as telling the "
        f"column in {told} of {len(found)} (false discovery rate 5 %).",
        "",
        "## Time",
        "",
        f"{timed['images']:,} images of {timed['size']}x{timed['size']} in colour, a model given, a column: "
        f"{timed['cpu_seconds']:.0f} CPU-seconds, {timed['threads']} thread{'s' * (timed['threads'] > 1)}. They took "
        f"{timed['seconds']:.0f} s on a machine that was shared, which says nothing of a quiet one.",
        "",
    ]
    return "\n".join(lines)


def between(power: dict[str, float], share: float) -> float:
    """The power at a share, on the straight line between those that were measured."""
    known = sorted((float(s), p) for s, p in power.items())
    for (low, a), (high, b) in zip(known, known[1:]):
        if low <= share <= high:
            return a + (b - a) * (share - low) / (high - low)
    return known[-1][1]
