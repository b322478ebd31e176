"""Reports: one self-contained page with figures, tables and pictures, and its numbers as JSON, in a folder."""

from genfast.reports.blocks import Block, Facts, Figure, Mark, Page, Picture, Section, Table
from genfast.reports.figures import Bar, Line, Points, bars, columns, histogram, lines, scatter
from genfast.reports.numbers import interval, number, plain
from genfast.reports.page import check_report, html, write_report
from genfast.reports.sheets import sheet

__all__ = [
    "Bar",
    "Block",
    "Facts",
    "Figure",
    "Line",
    "Mark",
    "Page",
    "Picture",
    "Points",
    "Section",
    "Table",
    "bars",
    "check_report",
    "columns",
    "histogram",
    "html",
    "interval",
    "lines",
    "number",
    "plain",
    "scatter",
    "sheet",
    "write_report",
]
