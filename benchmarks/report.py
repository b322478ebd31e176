"""Results as tables: everything for the results folder, the main figures for the README."""

from __future__ import annotations

import rivals

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


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


def summary(result: dict) -> str:
    """The README's table: one line for each case, every rival beside genfast."""
    rows = result["rows"]
    lines = [_conditions(result), ""]
    lines += [_line("case, float32", "", "genfast", rivals.EAGER, "torch.compile", rivals.REFERENCE, "another")]
    lines += ["|---" * 7 + "|"]
    for first in (row for row in rows if row["contender"] == "genfast"):
        same = [row for row in rows if all(row[key] == first[key] for key in ("group", "case", "mode"))]
        beside = {row["contender"]: f"{_ms(row['median_ms'])} ms, {_times(row)}" for row in same}
        known = [[rivals.EAGER], [rivals.COMPILED_STEP, rivals.COMPILED], [rivals.REFERENCE]]
        cells = ["".join(beside.pop(name, "") for name in names) for names in known]
        others = [f"{name}: {text}" for name, text in beside.items() if not name.startswith("genfast")]
        case = f"{first['group']}: {first['case']}"
        lines.append(_line(case, first["mode"], f"{_ms(first['median_ms'])} ms", *cells, "; ".join(others)))
    lines += ["", "Each rival's column: its median, and how many times as fast genfast is (below 1: slower)."]
    return "\n".join([*lines, *_shares(rows), *_peaks(rows)])


def fill_readme(text: str, result: dict) -> str:
    """`text` with the part between the two markers replaced by the summary of `result`."""
    return fill(text, BEGIN, END, summary(result))


def fill(text: str, begin: str, end: str, part: str) -> str:
    """`text` with what stands between the markers `begin` and `end` replaced by `part`."""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"benchmarks: README.md must hold {begin} and {end} once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"


def _conditions(result):
    m = result["machine"]
    return (
        f"{m['cpu']}, {m['threads']} threads of {m['cores']} cores, level {m['level']}; genfast {m['genfast']}, "
        f"torch {m['torch']}, Python {m['python']}; {m['date']}. In the same run the machine reached "
        f"{result['sgemm_gflops']:.0f} GFLOP/s in torch's sgemm and {result['copy_gbytes']:.1f} GB/s in a memory copy."
    )


def _shares(rows):
    lines = []
    for row in rows:
        if row["contender"].startswith("genfast") and "share_of_sgemm" in row:
            kind = "bfloat16" if "bfloat16" in row["contender"] else "float32"
            share = f"{row['share_of_sgemm']:.0%} of the sgemm rate"
            lines.append(f"- {row['case']}, {kind}, {row['mode']}: {row['gflops']:.0f} GFLOP/s, {share}")
    return ["", *lines] if lines else []


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
