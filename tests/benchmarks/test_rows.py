"""Rows and reports: what is made of the times, and the way to a file and back."""

import json

import pytest
from support.bench_reports import LIMITS, report, row

from genfast.benchmarks import Report, Summary, Timing
from genfast.io import write_json


def test_a_report_comes_back(tmp_path):
    made = report(
        row("a", ours=0.5, compiled=0.25, kept_bytes=None, match=None, difference=None),
        row("b", missing={"compile": "no compiler"}, images=64),
    )
    write_json(tmp_path / "a.json", made.as_json())
    read = Report.read(tmp_path / "a.json")
    assert read.rows == made.rows and read.machine == made.machine
    assert read.limits.copies_gbytes == LIMITS.copies_gbytes


def changed(value, path, to):
    *path, last = path
    for key in path:
        value = value[key]
    if to is KeyError:
        del value[last]
    else:
        value[last] = to


@pytest.mark.parametrize(
    "path, to, message",
    [
        (["kind"], "another", "a result of genfast bench"),
        (["layout"], 2, "of layout 1"),
        (["rows"], {}, "a list as rows; got dict"),
        (["rows", 0], 1, r"an object as rows\[0\]; got int"),
        (["rows", 0, "times"], {}, "a time in each row; got none"),
        (["rows", 0, "times", "genfast", "median_ms"], -1, "a number of at least 1e-09 as median_ms; got -1"),
        (["rows", 0, "times", "genfast", "median_ms"], True, "as median_ms; got True"),
        (["rows", 0, "times", "genfast", "passes_ms"], [1.0], "as many passes_ms as calibration_ms, 11"),
        (["rows", 0, "calibration_ms"], [], "1 to 100 passes as calibration_ms; got 0"),
        (["rows", 0, "calibration_ms"], [1.0] * 101, "1 to 100 passes as calibration_ms; got 101"),
        (["rows", 0, "name"], None, "a text as name; got NoneType"),
        (["rows", 0, "match"], "yes", "true, false or null as match; got yes"),
        (["rows", 0, "flops"], KeyError, "'flops'"),
        (["limits", "copies_gbytes"], {"x": 1}, "whole numbers of bytes in copies_gbytes; got x"),
        (["limits", "copies_gbytes"], {}, "a rate as copies_gbytes; got none"),
        (["limits", "sgemm_gflops"], 0, "as sgemm_gflops; got 0"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, path, to, message):
    value = json.loads(json.dumps(report(row()).as_json()))
    changed(value, path, to)
    write_json(tmp_path / "a.json", value)
    with pytest.raises(ValueError, match=rf"^bench: expected .*{message}"):
        Report.read(tmp_path / "a.json")


def test_a_row_that_occurs_twice_is_refused(tmp_path):
    write_json(tmp_path / "a.json", report(row(), row()).as_json())
    with pytest.raises(ValueError, match="got one twice"):
        Report.read(tmp_path / "a.json")


def test_the_quartiles_and_the_fastest_call_of_each_pass():
    timing = Timing.of([[0.003, 0.001, 0.002], [0.005, 0.004]], scale=2.0)
    assert (timing.median_ms, timing.low_ms, timing.high_ms) == pytest.approx((6.0, 4.0, 8.0))
    assert timing.calls == 5 and timing.passes_ms == pytest.approx((2.0, 8.0))


def test_a_share_is_of_what_takes_longer():
    """2 MFLOP at 100 GFLOP/s take 0.02 ms, and 1 MB at 60 GB/s, the rate of small copies, less; 1 GB at 10 a second."""
    assert row(ours=0.04).share(LIMITS) == pytest.approx(0.5)
    assert row(ours=200.0, bytes=10**9).share(LIMITS) == pytest.approx(0.5)
    assert row(flops=0, bytes=0).share(LIMITS) is None


def test_the_summary_tells_what_is_lost_and_what_is_wrong():
    rows = [row("a", 1.0, 2.0, 0.5), row("b", 1.0, 8.0), row("c", 1.0, 0.25), row("d", 1.0, None, match=False)]
    summary = Summary.of(rows)
    assert summary.eager == pytest.approx((2 * 8 * 0.25) ** (1 / 3)) and summary.compiled == pytest.approx(0.5)
    assert [r.name for r in summary.lost] == ["c", "a"] and [r.name for r in summary.wrong] == ["d"]
    assert Summary.of([row(eager=None)]).eager is None
