"""The results of strangers.py as a page of the results folder."""

from __future__ import annotations

NOTES = (
    "Each model is written as some author would write it, without any layer of genfast (`tests/engine/strangers`). "
    "The difference is the largest one between genfast's nats of an image and the author's own loss, relative to the "
    "loss; p is that of chi-square over all images of a small size, whose probabilities are those of the author's "
    "loss; untouched says that weights, buffers, hooks, modes and the state of the random numbers are bit for bit what "
    "they were, and that the model's own forward gives the same bits as before. Rates are medians, in turns in one "
    "process. Loops are timed on positions spread evenly over the image and scaled to all of them, unless they keep a "
    "state; the full forward for each value is the forward alone, without the draw. "
    "Capture is the CPU time of the first call that is not drawing."
)


def markdown(result: dict) -> str:
    """The whole of a result as a page."""
    m = result["machine"]
    lines = [f"# Models of strangers, {m['cpu']}", ""]
    lines += [
        f"{m['threads']} threads on {m['cores']} cores, instruction set {m['isa']}; genfast {m['genfast']}, torch "
        f"{m['torch']}, Python {m['python']}; {m['date']}; load before the run {m['load_before']}.",
        "",
        NOTES,
        "",
    ]
    header = ["model", "habit", "path", "difference", "p", "untouched", "images/s", "author's loop", "faster"]
    lines += [_line(*header), "|---" * len(header) + "|"]
    lines += [_line(*_judged(row)) for row in result["models"]]
    header = [
        "model",
        "levels",
        "weights",
        "capture",
        "batch",
        "images/s",
        "author's loop",
        "faster",
        "full forwards",
        "faster",
    ]
    lines += ["", "## Images of 28x28, 32 features", "", _line(*header), "|---" * len(header) + "|"]
    return "\n".join([*lines, *(_line(*_large(row)) for row in result["rates"]), ""])


def printed(row: dict) -> str:
    """A row for the terminal."""
    cells = _large(row) if "levels" in row else [cell for i, cell in enumerate(_judged(row)) if i != 1]
    return f"{row['name']:22} " + "  ".join(map(str, cells[1:]))


def _judged(row):
    if "error" in row:
        return [row["name"], row["habit"], _escaped(row["error"]), *[""] * 6]
    ours, author, _ = row["images_per_s"].values()
    cells = [f"{row['difference']:.1g}", f"{row['p_value']:.2g}", "yes" if row["untouched"] else "no"]
    return [row["name"], row["habit"], row["backend"], *cells, _number(ours), _number(author), _times(ours / author)]


def _large(row):
    if "error" in row:
        return [row["name"], "", "", "", row["batch"], _escaped(row["error"]), *[""] * 4]
    ours, *rivals = row["images_per_s"].values()
    beside = [cell for rate in rivals for cell in (_number(rate), _times(ours / rate))]
    capture = f"{row['capture_s']:.2g} s"
    return [row["name"], row["levels"], f"{row['weights']:,}", capture, row["batch"], _number(ours), *beside]


def _escaped(text):
    return text[:200].replace("|", "\\|")


def _times(times):
    return f"{times:,.0f}x" if times >= 10 else f"{times:.2g}x"


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _line(*cells):
    return f"| {' | '.join(map(str, cells))} |"
