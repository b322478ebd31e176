"""The page of a benchmark: figures with their losses, a roofline, and a table; shown well everywhere."""

import re

import pytest
from support.bench_reports import LIMITS, report, row
from support.browser import check_page

from genfast.benchmarks import differences
from genfast.benchmarks.page import page
from genfast.reports import html
from genfast.reports.blocks import Figure, Table
from genfast.reports.figures import TONES

ROWS = (
    row("diagonal_lstm", 1.0, 8.0, 4.0, shape="B=64 28x28 C=16 D=1", direction="forward+backward"),
    row("gaussian_nll", 1.0, 0.5, 2.0, shape="B=64 1x28x28", match=False, difference=0.25),
    row("PixelCNN, 15 layers of 32", 2.0, 900.0, suite="sampling", shape="B=1", images=1, bytes=0, kept_bytes=None),
    row("PixelCNN, 15 layers of 32", 9.0, 999.0, suite="sampling", shape="B=64", images=64, bytes=0, kept_bytes=None),
    row("<script>alert(1)</script>", 2.0, None, suite="compress", shape="B=16", images=16, flops=0, bytes=0),
)


def figures(made):
    return {block.name: block for section in made.sections for block in section.blocks if isinstance(block, Figure)}


def direction_and_shape(row):
    return {"direction": row.direction, "shape": row.shape}


def test_the_figures_and_the_tables():
    made = page(report(*ROWS))
    found = figures(made)
    assert list(found) == ["ops-eager", "ops-compile", "sampling-eager", "batches", "roofline"]
    assert "1 below 1" in found["ops-eager"].alt and "0 below 1" in found["ops-compile"].alt
    assert TONES["bad"] in found["ops-eager"].svg and TONES["bad"] not in found["ops-compile"].svg
    tables = [block for section in made.sections for block in section.blocks if isinstance(block, Table)]
    assert sum(len(table.rows) for table in tables) == len(ROWS)
    assert [str(value) for value, _ in made.facts] == ["21.1", "2.83", "1", "1"]
    assert str(tables[0].rows[1][-1]) == "2e-01" and tables[0].rows[1][-1].tone == "bad"


def test_what_has_changed_stands_first():
    old = report(
        *(row(r.name, 2 * r.ours.median_ms, suite=r.suite, shape=r.shape, direction=r.direction) for r in ROWS)
    )
    made = page(report(*ROWS), differences(old, report(*ROWS)))
    assert made.sections[0].title == "What has changed" and len(made.sections[0].blocks[0].rows) == len(ROWS)
    assert "0.50x" in html(made)


def test_a_run_without_ratios_or_work_has_no_empty_figures():
    made = page(report(row("a", 1.0, None, flops=0, bytes=0)))
    assert figures(made) == {} and [section.title for section in made.sections] == ["Ops"]


def test_names_are_escaped():
    text = html(page(report(*ROWS)))
    assert "<script>alert" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)


def test_it_is_shown_well_everywhere(tmp_path):
    path = tmp_path / "bench" / "index.html"
    path.parent.mkdir()
    path.write_text(html(page(report(*ROWS), differences(report(*ROWS), report(*ROWS)))))
    check_page(path, tmp_path)


@pytest.mark.parametrize("count", [70])
def test_many_rows_stay_readable(count):
    made = page(report(*(row(f"op {n}", 1.0, 0.5 + n) for n in range(count))))
    assert "the 60 smallest of 70" in figures(made)["ops-eager"].alt and LIMITS.gflops == 100.0
