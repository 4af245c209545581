"""Settings of the documentation site: `make docs`."""

import inspect
import itertools
import json
import re
from importlib.metadata import version as installed
from pathlib import Path

from pydantic import BaseModel

project = "caloforge"
author = "The caloforge developers"
release = version = installed("caloforge")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
exclude_patterns = ["_build", "_templates"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext", ".ipynb": "markdown"}
autodoc_member_order = "bysource"
# types stand in signatures, once; a line an argument where they are long
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
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


def _short(app, what, name, obj, options, signature, returned):
    """Shortens signatures; of a class whose docstring lists its attributes these have the types."""
    if what == "class" and issubclass(obj, BaseModel):
        return f"(*, {', '.join(map(_default, obj.model_fields, obj.model_fields.values()))})", None
    if what == "class" and "Attributes:" in (obj.__doc__ or ""):
        found = inspect.signature(obj)
        bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
        return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty)), None
    return _arrays(signature), _arrays(returned)


def _default(name, field):
    """Returns a field of a config with its default; sections by the name of their class."""
    if field.is_required():
        return name
    value = field.get_default(call_default_factory=True)
    return f"{name}={type(value).__name__}()" if isinstance(value, BaseModel) else f"{name}={value!r}"


_ARRAY = re.compile(
    r"~?(?:numpy\.)?ndarray\[tuple\[~?(?:typing\.)?Any, \.\.\.\], "
    r"~?(?:numpy\.)?dtype\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\]"
)


def _arrays(text):
    """Writes NDArray[float32] where the alias was expanded."""
    return text and _ARRAY.sub(r"NDArray[\1]", text)


def _typed(app, what, name, obj, options, lines):
    lines[:] = [_arrays(line) if line.startswith(":vartype") else line for line in lines]


def _remove_pages_of_modules_that_are_gone(app):
    api = Path(app.srcdir) / "api"
    listed = re.findall(r"^   (caloforge[\w.]*)$", (api / "index.md").read_text(), re.MULTILINE)
    for page in (api / "generated").glob("*.rst"):
        if page.stem not in listed:
            page.unlink()


def _notebook(app, docname, source):
    """Turns a notebook into Markdown: its texts, its code, and a link to the file."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb":
        return
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(source[0])["cells"]]
    parts = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells]
    link = f"This page is a notebook: {{download}}`{path.name}`. Its cells run as they stand."
    source[0] = "\n\n".join([parts[0], link, *parts[1:]])


def setup(app):
    """Reads notebooks, docstrings before napoleon, which writes markup of its own, and types of attributes after it."""
    app.connect("autodoc-process-docstring", _plain, priority=400)
    app.connect("autodoc-process-docstring", _typed, priority=600)
    app.connect("autodoc-process-signature", _short)
    app.connect("source-read", _notebook)
    app.connect("builder-inited", _remove_pages_of_modules_that_are_gone, priority=100)
