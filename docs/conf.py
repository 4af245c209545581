"""Settings of the documentation site: `make docs`."""

import itertools
import re
from importlib.metadata import version as installed

project = "caloforge"
author = "The caloforge developers"
release = version = installed("caloforge")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
# inherited docstrings of torch, pydantic and typing are not ours to mend
autodoc_inherit_docstrings = False
napoleon_use_ivar = True
html_theme = "furo"
html_title = "caloforge"
suppress_warnings = ["myst.header", "myst.xref_missing"]


def _plain(app, what, name, obj, options, lines):
    """Takes docstrings as the plain text they are: markup stands for itself, columns stay columns."""
    found = []
    for blank, group in itertools.groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        columns = re.compile(r"\S {2,}\S|^ ")
        if what == "module" and any(columns.search(line) for line in paragraph):
            found += ["::", "", *(f"    {line}" for line in paragraph)]
        else:
            found += paragraph if blank else _escaped("\n".join(paragraph)).split("\n")
    lines[:] = found


def _escaped(text):
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"_(?=\W|$)", r"\\_", re.sub(r"([*|\\])", r"\\\1", parts[index]))
    return "``".join(parts)


def setup(app):
    """Runs before napoleon, which writes markup of its own."""
    app.connect("autodoc-process-docstring", _plain, priority=400)
