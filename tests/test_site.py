"""The documentation site: every page has a place in it, every room a page of its docstrings; and it builds, where
Sphinx is installed."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import genfast

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ROOMS = ("data", "losses", "metrics", "models", "nn", "ops", "tasks", "train")


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_table_of_contents():
    text = (DOCS / "index.md").read_text()
    listed = [name for part in re.findall(r":::{toctree}(.+?):::", text, re.DOTALL) for name in part.split()[3:]]
    listed = [name for name in listed if not name.startswith(":")]
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*") if path.suffix in (".md", ".rst")}
    assert sorted(listed) == sorted(pages - {"index"})


def test_every_room_has_a_page():
    pages = {path.stem: path.read_text() for path in (DOCS / "api").glob("*.rst")}
    assert pages.keys() == {*ROOMS, "engine"}
    for room in ROOMS:
        assert f".. automodule:: genfast.{room}\n" in pages[room]
    named = set(re.findall(r":: genfast\.(\w+)$", pages["engine"], re.MULTILINE))
    elsewhere = {name for room in ROOMS for name in getattr(genfast, room).__all__}
    assert {name for name in genfast.__all__ if callable(getattr(genfast, name))} - elsewhere <= named


def documented():
    for room in ROOMS:
        for name in getattr(genfast, room).__all__:
            value = getattr(getattr(genfast, room), name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield pytest.param(value, id=f"{room}.{name}")


@pytest.mark.parametrize("value", [*documented()])
def test_docstrings_are_read_as_they_are_written(value, conf):
    """Nothing outside of code is markup, and what stands on the line of its heading is a field."""
    lines = inspect.getdoc(value).splitlines()
    conf.read_docstring(None, "function", "", value, None, lines)
    text, inside = "\n".join(lines), False
    for line in lines:
        inside = (inside and (not line.strip() or line.startswith(" "))) or line.rstrip().endswith("::")
        if not inside and ">>>" not in line:
            plain = re.sub(r"``?[^`]+``?", "", line)
            assert not re.search(r"(?<!\\)[*|]", plain), line
    assert not re.search(r"^(Shape|Paper|Example|Returns|Raises|Args): \S", text, re.MULTILINE)


def test_links_beside_the_pages_lead_to_the_repository(conf):
    source = ["[a](../README.md) [b](data.md) [c](../benchmarks/results/x.json#y)"]
    conf.link_to_the_repository(None, "", source)
    blob = f"{conf.REPOSITORY}/blob/main"
    assert source == [f"[a]({blob}/README.md) [b](data.md) [c]({blob}/benchmarks/results/x.json#y)"]


@pytest.mark.slow
def test_it_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", DOCS, tmp_path / "site"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "site" / "api" / "nn.html").read_text()
    assert "DiagonalBiLSTM" in page and "Defines the computation performed at every call" not in page
