"""Columns of a CSV file, matched to images; and what each group of them is like."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genfast._text import shown
from genfast.data import ImageData
from genfast.io import read_bytes

MOST_BYTES = 2**30
MOST_GROUPS = 100
FILES = ("file", "filename", "file_name", "name", "path", "image")
INDEX = ("index", "id", "row", "number")
FEW = 12  # distinct numbers that are taken as names of groups; more are cut into FIFTHS
FIFTHS = 5


@dataclass(frozen=True)
class Column:
    """A property of images that is known beside their pixels.

    Attributes:
        name: of the column.
        codes: int64 [n], the group of each image.
        groups: their names.
    """

    name: str
    codes: Tensor
    groups: tuple[str, ...]


def label_column(data: ImageData) -> Column:
    """The labels of images. ValueError for images without."""
    if data.labels is None:
        raise ValueError(f"column: expected labels for the column 'label'; got {data.name}, which has none")
    present = data.labels.unique()
    names = tuple(data.class_names[i] if data.class_names else str(i) for i in present.tolist())
    return Column("label", torch.searchsorted(present, data.labels.contiguous()), names)


def read_column(path: str | Path, name: str, data: ImageData) -> Column:
    """A column of a CSV file with a line of heads, matched to images.

    Rows are matched by a column of file names (`file`, `filename`, `name`, `path` or `image`) if the images have names,
    else by a column of numbers from 0 (`index`, `id`, `row`, `number`), else by their order. Rows of other images are
    left out. More than 12 distinct numbers are cut into fifths of equal counts.

    Raises: FileNotFoundError; ValueError for no such column, an image without a row or with two, a column of one value
        or of too many.
    """
    rows = _rows(path)
    heads = rows[0]
    if name not in heads:
        raise ValueError(f"{shown(path)}: expected a column {shown(name)}; got only {shown(', '.join(heads))}")
    if len({*heads}) < len(heads):
        raise ValueError(f"{shown(path)}: expected heads that differ; got {shown(', '.join(heads))}")
    values = _matched(path, rows, heads.index(name), data)
    return column(name, values, shown(path))


def column(name: str, values: Sequence[str], what: str = "column") -> Column:
    """Texts, one for each image, as groups; `what` begins the errors."""
    distinct = sorted({*values})
    numbers = [_number(value) for value in distinct]
    if len(distinct) > FEW and None not in numbers:
        order = torch.tensor([float(value) for value in values], dtype=torch.float64, device="cpu")
        edges = order.quantile(torch.linspace(0, 1, FIFTHS + 1, dtype=torch.float64, device="cpu")[1:-1]).unique()
        codes = torch.searchsorted(edges, order)
        present, codes = codes.unique(return_inverse=True)
        ends = [order[codes == i] for i in range(len(present))]
        return Column(name, codes, tuple(f"{float(e.min()):g} to {float(e.max()):g}" for e in ends))
    if None not in numbers:
        distinct.sort(key=float)
    if not 2 <= len(distinct) <= MOST_GROUPS:
        expected = f"2 to {MOST_GROUPS} values in column {shown(name)}, or numbers"
        raise ValueError(f"{what}: expected {expected}; got {len(distinct)} values")
    place = {value: i for i, value in enumerate(distinct)}
    codes = torch.tensor([place[value] for value in values], dtype=torch.int64, device="cpu")
    return Column(name, codes, tuple(value or "(empty)" for value in distinct))


def _rows(path: str | Path) -> list[list[str]]:
    try:
        text = read_bytes(path, "column", MOST_BYTES).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{shown(path)}: expected a CSV file in UTF-8; got {shown(error)}") from None
    if len(rows) < 2:
        raise ValueError(f"{shown(path)}: expected a line of heads and rows; got {len(rows)} lines")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise ValueError(f"{shown(path)}: expected {len(rows[0])} cells in row {number}; got {len(row)}")
    return [[cell.strip() for cell in row] for row in rows]


def _matched(path: str | Path, rows: list[list[str]], at: int, data: ImageData) -> list[str]:
    heads = [head.lower() for head in rows[0]]
    by_file = next((heads.index(head) for head in FILES if head in heads and heads.index(head) != at), None)
    by_index = next((heads.index(head) for head in INDEX if head in heads and heads.index(head) != at), None)
    if by_file is not None and data.files:
        keys, key_of = list(data.files), by_file
    elif by_index is not None:
        keys, key_of = [str(i) for i in range(len(data))], by_index
    elif len(rows) - 1 == len(data):
        return [row[at] for row in rows[1:]]
    else:
        expected = f"a column of file names ({', '.join(FILES)}) or of numbers ({', '.join(INDEX)}), or a row for each"
        raise ValueError(f"{shown(path)}: expected {expected} of {len(data)} images; got {len(rows) - 1} rows")
    known: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if row[key_of] in known:
            raise ValueError(
                f"{shown(path)}: expected one row for each image; got {shown(row[key_of])} again, row {number}"
            )
        known[row[key_of]] = row[at]
    missing = [key for key in keys if key not in known]
    if missing:
        some = ", ".join(shown(key, 100) for key in missing[:3])
        got = f"none for {len(missing)}, such as {some}"
        raise ValueError(f"{shown(path)}: expected a row for each of {len(keys)} images; got {got}")
    return [known[key] for key in keys]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
