import itertools
import json
import re

import numpy as np
import pytest

from caloforge.events import Selected, split
from caloforge.io import open_events
from caloforge.report import drawing
from caloforge.report.pages.results import Contents, Trained, map_rows, write_results
from made import made_events


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leaves out what takes the time, turning figures into files."""
    monkeypatch.setattr(drawing, "svg", lambda figure: b"<svg/>")
    monkeypatch.setattr(drawing, "png", lambda figure: b"\x89PNG")


def row_of(text, name):
    """Joins the pieces of a row of the first table that has it."""
    blocks = text.split("\n\n")
    start = next(k for k, block in enumerate(blocks) if f"\n| {name} |" in block)
    pieces = itertools.takewhile(lambda block: block.startswith("|"), blocks[start:])
    return " ".join(line for piece in pieces for line in piece.splitlines() if line.startswith(f"| {name} |"))


def page_of(out, folders, **more):
    runs = [Trained(folder, f"caloforge train {folder.name}", folder.name == "flow") for folder in folders]
    write_results(out, Contents("caloforge compare HERE", runs, **more))
    return out.read_text(encoding="utf-8")


def test_rows_stand_beside_what_is_published(models, tmp_path):
    text = page_of(tmp_path / "results.md", models)
    score = json.loads((models[0] / "scores.json").read_text())["sets"]["made"]["groups"]["all"]["metrics"][
        "w1"
    ]
    row = row_of(text, "zn-flow_matching")
    assert f"{score['mean']:.2f}" in row
    assert row.endswith("| 1.27 | 0.46 |")
    assert row_of(text.partition("**Further columns**")[2], "zn-flow_matching").endswith("| 16.99 |")
    assert row_of(text, "zn-knn").endswith("| 2.98 |  |")
    assert row_of(text, "floor").endswith("| 0.53 |  |")


def test_a_plan_names_its_page(models, tmp_path):
    assert page_of(tmp_path / "results.md", models).startswith("# Results\n")
    assert page_of(tmp_path / "other.md", models, title="Showers").startswith("# Showers\n")


def test_the_flows_have_tables_of_their_own(models, tmp_path):
    text = page_of(tmp_path / "results.md", models)
    assert re.search(r"\| all \| zn-maf \|.*1\.74 / 8\.89 / 5\.17 \|", text)
    assert "zn-flow_matching" not in text.partition("flows by particle type")[2].partition("###")[0]


def test_models_have_tables_by_particle_type(models, tmp_path):
    text = page_of(tmp_path / "results.md", models)
    section = text.partition("made: by particle type")[2].partition("\n### ")[0]
    assert re.search(r"^\| particle \| .*zn-flow_matching", section, re.MULTILINE)
    assert re.search(r"^\| all \| \d", section, re.MULTILINE)
    # neutrons and photons each for themselves, here too few of them
    assert re.search(r"Without a value \(events\): .*\bn \(\d+\).*: fewer than 20 rows", section)


def test_every_row_says_how_it_came_about(models, tmp_path):
    text = page_of(tmp_path / "results.md", models, failed={"zn-gan": "the loss became NaN"})
    assert "| `caloforge train flow` | yes | 7 | 1.0 | here |" in row_of(
        text.partition("## Budgets")[2], "zn-flow_matching"
    )
    assert "- `zn-gan`: the loss became NaN" in text
    assert "caloforge compare HERE" in text


def test_both_pages_show_the_same_figures_and_old_ones_go(models, reference, tmp_path):
    stale = tmp_path / "images" / "results" / "old.svg"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    source = open_events(reference)
    test = Selected(source, split(source, "canonical")["test"]).primaries
    maps = {"made": np.zeros((len(map_rows(test)), 2))}
    text = page_of(tmp_path / "results.md", models, maps=maps)
    named = re.findall(r"\]\(images/results/([^)]*)\)", text)
    assert "made-w1-steps.svg" in named
    assert "made-map.png" in named
    assert sorted(named) == sorted(path.name for path in stale.parent.iterdir())
    html = (tmp_path / "results.html").read_text(encoding="utf-8")
    assert html.count('src="data:image/') == len(named)
    assert "images/results" not in html


def test_a_map_has_each_particle_once():
    primaries = made_events(particles=20, repeats=4).primaries
    rows = map_rows(primaries)
    assert len(rows) == 20
    assert len(set(primaries.group[rows])) == 20
    many = made_events(particles=2500, repeats=1).primaries
    assert len(map_rows(many)) == 2000
