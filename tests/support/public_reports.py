"""A call of every function of `genfast.reports`, as `support.public` has one of everything."""

import tempfile
from functools import partial
from pathlib import Path

from support.pieces import levels, normal

from genfast import reports


def figure(name):
    """The SVG of a plot."""
    about = {"alt": "A plot", "x": "x"} | ({} if name in ("bars", "histogram") else {"y": "y"})
    contents = {
        "lines": ([reports.Line("a", [1, 2], [3, 4])],),
        "bars": ([reports.Bar("a", 1.0, 0.5, 1.5)],),
        "columns": (["a", "b"], {"c": [1, 2]}),
        "scatter": ([reports.Points("a", [1, 2], [3, 4])],),
        "histogram": ({"a": normal(9).numpy()},),
    }
    return getattr(reports, name)(f"{name}.svg", *contents[name], **about).svg


def report():
    plot = reports.lines("lines.svg", [reports.Line("a", [1, 2], [3, 4])], alt="A line", x="x", y="y")
    return reports.Page("title", "lead", [reports.Section("one", [reports.Table(("n",), [(0.1,)]), plot])])


def written():
    """The files of a report."""
    with tempfile.TemporaryDirectory() as folder:
        reports.write_report(folder, report(), {"a": 1})
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


CALLS = {
    **{f"reports.{name}": partial(figure, name) for name in ("lines", "bars", "columns", "scatter", "histogram")},
    "reports.html": lambda: reports.html(report()),
    "reports.interval": lambda: reports.interval(0.5, 1e5),
    "reports.number": lambda: reports.number(1 / 3),
    "reports.plain": lambda: reports.plain({"a": normal(3)}),
    "reports.sheet": lambda: reports.sheet("a.png", levels(4, 1, 8, 8), 256, columns=2, alt="Four images").data,
    "reports.write_report": written,
}
