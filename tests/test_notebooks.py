"""The notebooks and the gallery run from top to bottom, in an empty folder; notebooks are stored without outputs."""

import ast
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
BY_NOTEBOOK = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run_cell(text, name, names):
    """Runs a cell; returns the value of its last expression, which a notebook would show."""
    tree = ast.parse(text, name)
    shown = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    return eval(compile(ast.Expression(shown.value), name, "eval"), names) if shown else None


@pytest.mark.slow
@BY_NOTEBOOK
def test_a_notebook_runs_and_shows_what_it_ends_its_cells_with(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # where a notebook lies it finds modules
    modules = set(sys.modules)
    names = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            if cell["cell_type"] == "code":
                value = run_cell("".join(cell["source"]), f"{path.name}, cell {number}", names)
                assert value is None or getattr(value, "_repr_html_", value.__repr__)()
    finally:
        for name in set(sys.modules) - modules:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
                del sys.modules[name]
        importlib.invalidate_caches()


def test_there_is_a_notebook_for_each_of_the_first_things_to_do():
    assert {path.stem for path in NOTEBOOKS} == {"sample", "train", "detector", "judge"}


@BY_NOTEBOOK
def test_a_notebook_is_of_format_4_without_outputs_as_jupyter_writes_it(path):
    text = path.read_text()
    notebook = json.loads(text)
    assert json.dumps(notebook, indent=1, ensure_ascii=False) + "\n" == text
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]{1,64}", one) for one in ids)
    for cell in notebook["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert set(cell) == keys | {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        else:
            assert (cell["cell_type"], set(cell)) == ("markdown", keys)
        assert "".join(cell["source"]).splitlines(keepends=True) == cell["source"] != []


@BY_NOTEBOOK
def test_the_links_of_a_notebook_resolve(path):
    text = "\n".join(
        "".join(cell["source"])
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "markdown"
    )
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []


# --- the gallery -------------------------------------------------------------------------------------------


def pictures():
    return {path.name: path.stat().st_size for path in (DOCS / "images" / "gallery").iterdir()}


def test_the_gallery_shows_every_picture_of_its_folder_and_they_are_small():
    text = (DOCS / "gallery.md").read_text()
    assert sorted(re.findall(r"\]\(images/gallery/(\S+)\)", text)) == sorted(pictures())
    assert sum(pictures().values()) < 600_000


@pytest.mark.slow
def test_the_lines_of_the_gallery_make_its_pictures(tmp_path):
    runpy.run_path(str(ROOT / "tools" / "pictures.py"))["gallery"](tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(pictures())
    for path in tmp_path.iterdir():
        assert path.stat().st_size > 10_000
