"""Results as a page of the results folder; docs/generate.py makes the tables of the documentation."""

from __future__ import annotations


def markdown(result: dict) -> str:
    """The whole of one result as a page."""
    machine = result["machine"]
    lines = [f"# {machine['cpu']}, {machine['threads']} threads", "", _conditions(result), ""]
    for group in dict.fromkeys(row["group"] for row in result["rows"]):
        lines += [f"## {group[0].upper()}{group[1:]}", ""]
        lines += [_line("case", "", "contender", "median ms", "20 %", "80 %", "rate", "genfast is"), "|---" * 8 + "|"]
        for row in (row for row in result["rows"] if row["group"] == group):
            times = [_ms(row[key]) for key in ("median_ms", "q20_ms", "q80_ms")]
            speedup = "" if row["contender"] == "genfast" else f"{_times(row)} as fast"
            lines.append(_line(row["case"], row["mode"], row["contender"], *times, _rate(row), speedup))
        lines.append("")
    return "\n".join([*lines, *_peaks(result["rows"])])


def _conditions(result):
    m = result["machine"]
    return (
        f"{m['cpu']}, {m['threads']} threads of {m['cores']} cores, instruction set {m.get('isa') or m['level']}; "
        f"genfast {m['genfast']}, "
        f"torch {m['torch']}, Python {m['python']}; {m['date']}. In the same run the machine reached "
        f"{result['sgemm_gflops']:.0f} GFLOP/s in torch's sgemm and {result['copy_gbytes']:.1f} GB/s in a memory copy."
    )


def _peaks(rows):
    """Where memory was measured: what a process held at most that ran one contender alone."""
    lines = [
        f"- {row['group']}: {row['case']}, {row['contender']}: {row['peak_bytes'] / 1e6:.0f} MB at most, torch included"
        for row in rows
        if "peak_bytes" in row
    ]
    return ["", *lines] if lines else []


def _line(*cells):
    return f"| {' | '.join(cells)} |"


def _times(row):
    times = row["times_genfast"]
    return f"{times:.0f}x" if times >= 100 else f"{times:.1f}x" if times >= 1 else f"{times:.2f}x"


def _ms(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _rate(row):
    if "gflops" in row:
        return f"{row['gflops']:.0f} GFLOP/s"
    return f"{row['images_per_s']:.0f} images/s"
