"""The page of a report, and the folder that it is written to."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from genfast._text import shown
from genfast._version import __version__
from genfast.io import check_free, check_writable, json_bytes, read_json, write_bytes
from genfast.reports.blocks import Block, Figure, Page, Picture
from genfast.reports.numbers import number, plain

INDEX, REPORT = "index.html", "report.json"
MARKER = "genfast_report"  # in report.json: the version of its layout
NAME = re.compile(r"[\w-]+\.(png|svg)", re.ASCII)  # of a picture


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "embedded": _embedded, "groups": _groups}
    return made


def _groups(blocks: Sequence[Block]) -> list[tuple[bool, list[Block]]]:
    """Blocks in order, with figures and pictures that follow one another together: (whether they are, blocks)."""
    return [
        (drawn, list(group)) for drawn, group in groupby(blocks, lambda block: isinstance(block, (Figure, Picture)))
    ]


def _embedded(block: Picture | Figure) -> Markup:
    """A picture as the address of an image; a plot as an element, whose ink is the page's."""
    if isinstance(block, Picture):
        return Markup(f"data:image/png;base64,{base64.b64encode(block.data).decode()}")
    body = block.svg[block.svg.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', body)
    start = Markup('<svg {} role="img" aria-label="{}">').format(Markup(box[0] if box else ""), block.alt)
    return start + Markup(body[body.index(">") + 1 :])


def html(page: Page) -> str:
    """The page as one self-contained HTML file: it loads nothing, and fits a telephone and a wide window."""
    return _environment().get_template("page.html").render(page=page)


def check_report(out: str | Path, overwrite: bool = False, ours: Collection[str] = ()) -> None:
    """Before the work: that a report can be written to a folder.

    `ours`: names of files of the caller's, which `overwrite` replaces as well.

    Raises: FileExistsError for a report that is there, which takes `overwrite`, or for another's index.html or
        report.json, which nothing replaces; OSError for a folder that cannot be written.
    """
    out = Path(out)
    _check(out, (INDEX, REPORT, *ours), overwrite, ours)
    check_writable(out)


def write_report(
    out: str | Path, page: Page, data: Any, *, overwrite: bool = False, ours: Collection[str] = ()
) -> Path:
    """Write index.html, report.json and the pictures of a page to a folder, which is made if missing.

    Args:
        out: the folder.
        page: what the reader sees.
        data: the same numbers for programs: a dataclass or a dict, as `genfast.reports.plain` takes it.
        overwrite, ours: whether to replace a report that is there, with its pictures, and files of these names.
    Returns: the path of index.html, which is written last.
    Raises: as `check_report`.
    """
    out, files = Path(out), page.files()
    for name in files:
        if not NAME.fullmatch(name):
            raise ValueError(f"report: expected a name such as loss.svg of a picture; got {shown(repr(name))}")
    _check(out, (INDEX, REPORT, *files), overwrite, ours)
    for name in _pictures_of(out) - {*files}:
        (out / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes(out / name, content)
    content = {MARKER: 1, "genfast": __version__, "machine": dict(page.machine), "files": [*files]}
    write_bytes(out / REPORT, json_bytes(plain(content | plain(data))))
    write_bytes(out / INDEX, html(page).encode())
    return out / INDEX


def _check(out: Path, names: Collection[str], overwrite: bool, ours: Collection[str]) -> None:
    ours = {INDEX, REPORT, *_pictures_of(out), *ours} if _is_report(out) else {*ours}
    for name in names:
        check_free(out / name, overwrite and name in ours)


def _report(out: Path) -> dict[str, Any]:
    try:
        return read_json(out / REPORT, "report")
    except (OSError, ValueError):
        return {}


def _is_report(out: Path) -> bool:
    """Whether a folder has a report of genfast."""
    return MARKER in _report(out)


def _pictures_of(out: Path) -> set[str]:
    """The pictures of the report that is in a folder."""
    names = _report(out).get("files") if _is_report(out) else None
    return {name for name in names if isinstance(name, str) and NAME.fullmatch(name)} if type(names) is list else set()
