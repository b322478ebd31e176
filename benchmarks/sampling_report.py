"""The results of sampling.py as a page of the results folder; docs/generate.py makes the table of docs/speed.md."""

from __future__ import annotations

HEADER = ["case", "batch", "threads", "contender", "images/s", "20 %", "80 %", "calls", "timed on", "rate"]
HEADER += ["genfast is"]
ASKED = {"must": "asked", "aim": "aim"}
NOTES = (
    "Rates are medians; in brackets their 20 and 80 % quantiles. The rivals have the same weights and draw as many "
    "images, in turns with genfast in one process: the network over the whole image for each value, as most tutorials "
    "do it; genfast's `full_forward` backend, which leaves out the rows below; and genfast's `torch` backend, the same "
    "plan in plain PyTorch over cached features. The forwards run genfast's native ops where the model has them; of "
    "PixelCNN++ they are timed on two images. Where whole images by full forwards take long, some pixels spread "
    "evenly over the image were drawn, and the time scaled to all of them. FLOPs are those of the plan's matrix "
    "products, twice depth times outputs; the share is that of torch's own sgemm on as many threads, in turns."
)


def markdown(result: dict) -> str:
    """The whole of one result as a page."""
    lines = [f"# Sampling, {result['machine']['cpu']}", "", _conditions(result), "", NOTES, ""]
    # Results may hold rates that were asked for.
    asked = [key for key in ASKED if any(key in row for row in result["rows"])]
    header = [*HEADER, *(ASKED[key] for key in asked)]
    for group in dict.fromkeys(row["group"] for row in result["rows"]):
        lines += [f"## {group[0].upper()}{group[1:]}", "", _line(*header), "|---" * len(header) + "|"]
        for row in (row for row in result["rows"] if row["group"] == group):
            rates = [_number(row[f"{q}images_per_s"]) for q in ("", "q20_", "q80_")]
            faster = "" if row["contender"].startswith("genfast") else f"{_times(row)} as fast"
            cells = [row["case"], row["batch"], row["threads"], row["contender"], *rates, row["calls"], _timed_on(row)]
            lines.append(_line(*cells, _rate(row), faster, *(_number(row.get(key)) for key in asked)))
        lines.append("")
    return "\n".join([*lines, *_drawing(result["rows"])])


def _conditions(result):
    m, sgemm = result["machine"], result["sgemm_gflops"]
    return (
        f"{m['cpu']}, {m['cores']} cores, instruction set {m.get('isa') or m['level']}; "
        f"genfast {m['genfast']}, torch {m['torch']}, Python "
        f"{m['python']}; {m['date']}; load before the run {m['load_before']}. In the same run torch's sgemm reached "
        f"{sgemm['2']:.0f} GFLOP/s on two threads, {sgemm['1']:.0f} on one."
    )


def _drawing(rows):
    """What drawing takes, where that was measured."""
    return [
        f"\nDrawing takes {row['share_of_drawing']:.1%} of the time: {row['group']}, {row['case']}, beside the same "
        "with every pixel known."
        for row in rows
        if "share_of_drawing" in row
    ]


def _timed_on(row):
    pixels = "whole images" if row["share_of_pixels"] == 1 else f"{row['share_of_pixels']:.2%} of the pixels"
    return pixels if row["images"] == row["batch"] else f"{row['images']} images, {pixels}"


def _rate(row):
    return f"{row['gflops']:.0f}, {row['share_of_sgemm']:.0%}" if "gflops" in row else ""


def _times(row):
    return f"{row['times_genfast']:,.0f}x" if row["times_genfast"] >= 10 else f"{row['times_genfast']:.1f}x"


def _number(value):
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _line(*cells):
    return f"| {' | '.join(map(str, cells))} |"
