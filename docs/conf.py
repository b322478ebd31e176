"""The documentation site: `make site` builds build/site of these pages and of the docstrings, with Sphinx."""

import re
from pathlib import Path

import genfast

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/genfast/genfast"

project = "genfast"
author = "the genfast authors"
version = release = genfast.__version__
myst_enable_extensions = ["colon_fence", "deflist"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["generate.py"]
html_theme = "furo"
html_title = f"genfast {version}"
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
html_extra_path = ["llms.txt"]

default_role = "code"
myst_heading_anchors = 4
autodoc_inherit_docstrings = False  # torch's text of forward says nothing of ours
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they are in the signature
autodoc_default_options = {"exclude-members": "constants, running"}
python_maximum_signature_line_length = 100
napoleon_custom_sections = ["Gradients", "Paper", "Shape"]
napoleon_use_rtype = False
napoleon_use_ivar = True
smartquotes = False
highlight_language = "python"

# What a docstring says on one line, as in "Shape: [B, F] -> [B]", and goes on with on indented ones.
INLINE = re.compile(r"^(Args|Attributes|Example|Gradients|Paper|Parameters|Raises|Returns|Shape): (?=\S)")


def read_docstring(app, what, name, obj, options, lines):
    """Docstrings are text with code in backticks: what else reStructuredText would read as markup is escaped."""
    literal = None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None:
            line = INLINE.sub(r":\1: ", line)
            if not line.lstrip().startswith(">>>"):
                parts = re.split(r"(``?[^`]+``?)", line)
                parts[::2] = [re.sub(r"([*|\\])", r"\\\1", re.sub(r"(?<=\w)_(?!\w)", r"\\_", p)) for p in parts[::2]]
                line = "".join(parts)
            if line.rstrip().endswith("::"):
                literal = indent
        lines[number] = line


def link_to_the_repository(app, name, source):
    """What lies beside docs/ in a checkout is no page of the site: links lead to the repository."""
    source[0] = re.sub(r"\]\(\.\./((?!docs/)[\w./-]+)(#[\w-]+)?\)", rf"]({REPOSITORY}/blob/main/\1\2)", source[0])


def setup(app):
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon
    app.connect("source-read", link_to_the_repository)
