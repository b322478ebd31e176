"""Reports: what they show, that a browser shows it well, and that nothing of others is replaced."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from support.browser import check_page

from genfast import reports

MACHINE = {"date": "2026-12-01", "device": "a CPU", "threads": 2, "genfast": "0", "torch": "2", "python": "3"}
HOSTILE = '<script>alert("x")</script> $\\frac{1}{2}$ & "quoted".png'


def figures(label="measured"):
    x = list(range(1, 31))
    return [
        reports.lines(
            "loss.svg",
            [
                reports.Line("training", [30 * n for n in x], [100 / n + 60 for n in x], tone="muted"),
                reports.Line(label, x, [70.0] * 30, [65.0] * 30, [75.0] * 30),
            ],
            levels={"baseline": 90},
            log_y=True,
            x="step",
            y="nats per image",
            alt="The loss falls from 160 to 63 nats",
            caption="Both curves stay within the axes.",
        ),
        reports.bars(
            "speed.svg",
            [
                reports.Bar("an op with a rather long name, forward", 12.5, 11, 14),
                reports.Bar(label, 0.7, 0.6, 0.8, "bad"),
            ],
            levels={"as fast as PyTorch": 1},
            log=True,
            x="times as fast",
            alt="One op is faster than PyTorch and one is slower",
        ),
        reports.columns(
            "classes.svg",
            [str(n) for n in range(10)],
            {"data": [0.1] * 10, label: [0.2, 0.0] * 5},
            x="class",
            y="share",
            alt="Shares of ten classes in the data and in the samples",
        ),
        reports.scatter(
            "roofline.svg",
            [reports.Points("ops", [0.1, 1, 100], [1e9, 1e10, 3e11], [label, "b", "c"])],
            roofs=[reports.Line("roof", [0.01, 10, 1000], [1e8, 1e12, 1e12])],
            log_x=True,
            log_y=True,
            x="operations per byte",
            y="operations per second",
            alt="Three ops below the roof of the machine",
        ),
        reports.histogram(
            "ratios.svg",
            {"held out": np.linspace(0, 1, 50) ** 2, label: np.linspace(0.5, 2, 50)},
            levels={"limit": 0.7},
            x="ratio",
            alt="Ratios of two sets of images",
        ),
    ]


def page(label="measured"):
    images = torch.randint(0, 16, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = [
        (label, 28630, 0.123456, reports.Mark("true", "good")),
        ("a sentence that is longer than a cell of words", None, 1e-7, 3),
    ]
    sheets = [
        reports.sheet("a.png", images, 16, columns=8, alt="Noise in three rows", heads=(("x", 2), ("six draws", 6))),
        reports.sheet("b.png", images[:16], 16, columns=4, alt="Noise in four rows", caption=label),
    ]
    wide = reports.Table([f"a rather wide column {n}" for n in range(12)], [[n * 1000 for n in range(12)]], "Wide.")
    sections = [
        reports.Section("Numbers", [label, reports.Table(("name", "n", "value", "verdict"), rows, "A caption."), wide]),
        reports.Section("Plots", figures(label)),
        reports.Section("Images", [*sheets, reports.Facts([(1234567, "of these")])]),
    ]
    facts = ((28630, "parameters"), ("3 s", "of training"))
    return reports.Page(
        label, "What it is.", sections, facts, [("genfast demo --out 'a b'", "Again:")], MACHINE, ["Small."]
    )


class Parser(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_stands_alone():
    text = reports.html(page())
    parsed = Parser(text)
    assert parsed.open == [] and not parsed.of("script") and not parsed.of("link")
    assert all(image["src"].startswith("data:image/png;base64,") for image in parsed.of("img"))
    assert "28,630" in parsed.text and "1,234,567" in parsed.text and "28630" not in parsed.text
    assert "0.1235" in parsed.text and "1.00e-07" in parsed.text and "–" in parsed.text
    assert "2026-12-01" in parsed.text and "genfast demo --out 'a b'" in parsed.text
    alts = [image["alt"] for image in parsed.of("img")] + [plot["aria-label"] for plot in parsed.of("svg")]
    assert len(alts) == 7 and all(" " in alt for alt in alts)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)


def test_names_are_escaped_everywhere():
    parsed = Parser(reports.html(page(HOSTILE)))
    assert not parsed.of("script") and parsed.text.count(HOSTILE) >= 5, "in cells, captions, legends and notes"


@pytest.mark.parametrize("label", ["measured", HOSTILE])
def test_a_browser_shows_it_well(label, tmp_path):
    reports.write_report(tmp_path / "report", page(label), {})
    check_page(tmp_path / "report" / "index.html", tmp_path)


def test_a_figure_is_a_file_of_its_own():
    for figure in figures():
        assert figure.svg.startswith("<svg ") and "xmlns=" in figure.svg and "currentColor" in figure.svg
        assert f'viewBox="0 0 {340} ' in figure.svg and "<metadata" not in figure.svg and "DejaVu" not in figure.svg
        assert figures()[0].svg == figures()[0].svg, "the same file each time"


def test_axes_hold_every_point():
    """The curve of the training loss once left the axes below those of the validation."""
    import matplotlib.figure

    seen, subplots = [], matplotlib.figure.Figure.subplots
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "subplots", lambda *a: seen.append(subplots(*a)) or seen[-1])
        figures()
    for axes in seen[0], seen[3]:
        for line in axes.lines:
            inside = [low <= value <= high for low, high in [axes.get_ylim()] for value in line.get_ydata()]
            assert all(inside), (line.get_label(), axes.get_ylim())


def test_the_numbers_are_there_for_programs(tmp_path):
    data = {"a": float("nan"), "b": np.float32(2), "c": torch.ones(2), "d": reports.Bar("x", 1.0), "e": (tmp_path,)}
    path = reports.write_report(tmp_path / "r", page(), data)
    made = json.loads((tmp_path / "r" / "report.json").read_text())
    assert made["a"] is None and made["b"] == 2 and made["c"] == [1, 1] and made["d"]["label"] == "x"
    assert made["e"] == [str(tmp_path)] and made["machine"] == MACHINE and made["genfast_report"] == 1
    assert {*made["files"], "index.html", "report.json"} == {file.name for file in path.parent.iterdir()}


def test_nothing_of_others_is_replaced(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError):
            reports.check_report(tmp_path, overwrite)
        with pytest.raises(FileExistsError):
            reports.write_report(tmp_path, page(), {}, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    (tmp_path / "index.html").unlink()
    reports.write_report(tmp_path, page(), {})
    (tmp_path / "notes.png").write_text("mine")
    with pytest.raises(FileExistsError):
        reports.write_report(tmp_path, page(), {})
    reports.write_report(tmp_path, reports.Page("t", "l", []), {}, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "report.json", "notes.png"}
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(report | {"files": ["../x.png", 3, "notes.png"]}))
    reports.check_report(tmp_path, True)


def test_numbers():
    cases = {3: "3", 28630: "28,630", 28630.4: "28,630", 0.123456: "0.1235", 0.0: "0", -1.5: "-1.500", None: "–"}
    cases |= {float("inf"): "∞", 1e-9: "1.00e-09", "text": "text", 99.99999: "100.0", 1234.5: "1,234"}
    for value, text in cases.items():
        assert reports.number(value) == text
    assert reports.number(float("nan")) == "–" and reports.interval(0.5, 1234.5) == "0.500 to 1,234"


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^table: expected 2 cells in each row; got 1$"):
        reports.Table(("a", "b"), [(1,)])
    image = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^sheet: heads must be of 3 columns; got 2$"):
        reports.sheet("a.png", image, 2, columns=3, alt="x y", heads=(("a", 2),))
    twice = reports.sheet("a.png", image, 2, columns=1, alt="x y")
    with pytest.raises(ValueError, match=r"^page: expected a name for each picture"):
        reports.Page("t", "l", [reports.Section("s", [twice, twice])]).files()
    with pytest.raises(ValueError, match=r"^report: expected a name such as loss.svg"):
        outside = reports.sheet("../a.png", image, 2, columns=1, alt="x y")
        reports.write_report(tmp_path / "r", reports.Page("t", "l", [reports.Section("s", [outside])]), {})
    with pytest.raises(ValueError, match=r"^bars: rows must hold at least one; got none$"):
        reports.bars("a.svg", [], x="x", alt="x y")
