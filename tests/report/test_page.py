import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from caloforge.io import open_events
from caloforge.report import drawing, write_report
from caloforge.report.pages.events import gallery_particles
from caloforge.report.pages.run import _simulated
from caloforge.report.runs import comparisons, read_runs
from made import made_events

DRAWN = {"svg": drawing.svg, "png": drawing.png}


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Leaves out what takes the time, turning figures into files; test_figures and one slow test do that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "svg", lambda figure: b"<svg/>")
        patch.setattr(drawing, "png", lambda figure: b"\x89PNG")
        yield


@pytest.fixture(scope="module")
def page(run, readout, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report([run, readout], out)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text(encoding="utf-8")


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "wbr", "line"})

    def __init__(self, text):
        super().__init__()
        self.headings, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3", "h4"):
            self.headings.append(data)


def test_the_page_is_whole_and_self_contained(page):
    parsed = Page(page)
    assert parsed.open == []
    assert all(link.startswith(("#", "data:image/")) for link in parsed.links)
    assert "url(" not in page
    assert "<script" not in page
    anchors = {link[1:] for link in parsed.links if link.startswith("#")}
    assert anchors == set(re.findall(r'<h\d id="(\w+)"', page))


def test_every_section_is_there(page):
    headings = Page(page).headings
    for wanted in (
        "ALICE ZN", "made", "made: distributions", "made: events", "made: mean shower", "made: settings",
        "made: quality against time",
        "By particle type", "ALICE ZN: published results", "ALICE ZN: training", "ALICE ZN: data", "Provenance",
    ):  # fmt: skip
        assert wanted in headings
    for wanted in (
        "1 generator and 1 readout against GEANT", "16 test rows of made.h5", "Published, on other data",
        "no test particle was trained on", "W1 against steps", "best epoch 2", "Recipe",
    ):  # fmt: skip
        assert wanted in page


def test_what_is_missing_is_said(page, readout, tmp_path):
    assert "sums: channel sums only, no events to show." in page
    assert "sums: no training log." in page
    assert "No timing was recorded for sums." in page
    assert "sums: no card, so the training data are not known." in page
    write_report([readout], tmp_path / "alone.html")
    alone = (tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "No sweep was recorded" in alone
    assert "No generated events were kept: no gallery." in alone


def test_names_are_escaped(page):
    assert "made <b>&" not in page
    assert "made &lt;b&gt;&amp;" in page
    assert "<i>.h5" not in page


def test_a_missing_reference_names_the_option(run, reference, tmp_path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    scores = json.loads((moved / "scores.json").read_text())
    scores["sets"]["made"]["reference"]["path"] = str(tmp_path / "gone.h5")
    (moved / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(ValueError, match=r"made of .* is not at .*gone\.h5: .* --reference"):
        write_report([moved], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    (part,) = comparisons(read_runs([moved]), {"made": reference})
    assert part.file == reference


def test_another_file_is_no_reference(run, tmp_path, events_file):
    with pytest.raises(ValueError, match="is not the file"):
        write_report([run], tmp_path / "report.html", {"made": events_file})
    with pytest.raises(ValueError, match="no run was scored on a set 'mode'"):
        write_report([run], tmp_path / "report.html", {"mode": events_file})


def test_generated_events_must_belong_to_the_reference(run, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    shutil.copy(
        json.loads((run / "scores.json").read_text())["sets"]["made"]["reference"]["path"],
        broken / "generated" / "made.h5",
    )
    with pytest.raises(ValueError, match=r"generated/made\.h5: .*16.*80 rows"):
        write_report([broken], tmp_path / "report.html")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no scores.json: caloforge evaluate"),
        ("[1]", "got 'list'"),
        ("{", "not valid JSON"),
        ("{}", "got None"),
    ],
)
def test_a_folder_without_scores_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        write_report([tmp_path], tmp_path / "report.html")


def test_no_run_or_one_twice_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(ValueError, match="given once"):
        write_report([run, run], tmp_path / "report.html")


def test_runs_of_one_name_are_told_apart_by_their_folders(run, tmp_path):
    shutil.copytree(run, tmp_path / "again")
    assert [one.name for one in read_runs([run, tmp_path / "again"])] == [
        "made <b>& (one)",
        "made <b>& (again)",
    ]


def test_the_gallery_takes_each_particle_once(reference):
    source = open_events(reference)
    chosen = gallery_particles(source)
    groups = [set(source.primaries.group[rows]) for rows in chosen]
    assert len(chosen) == 6
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 6
    assert all(len(rows) == 2 for rows in chosen)
    assert {int(source.primaries.pdg[rows[0]]) for rows in chosen} == {22, 2112}
    few = made_events(particles=2, repeats=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(gallery_particles(few))), [0, 1])


@pytest.mark.slow
def test_a_page_with_its_figures_is_small(run, readout, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        for name, function in DRAWN.items():
            patch.setattr(drawing, name, function)
        write_report([run, readout], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    images = re.findall(r"data:image/(png|svg\+xml);base64,([^\"]+)", text)
    assert len(images) > 25
    assert all(len(data) > 2000 for _, data in images)
    assert len(text) < 3e6


@pytest.mark.parametrize("origin", ["substitutes", "official"])
def test_a_simulated_reference_says_how_it_was_made(origin):
    sets = {"origin": origin, "folders": ["G4EMLOW8.8"]}
    made = {
        "simulation": "Geant4",
        "geant4": "11.4.1",
        "physics": "G4EmStandardPhysics",
        "cut": 0.7,
        "data_sets": sets,
    }
    text = _simulated(made)
    assert "Geant4 11.4.1, G4EmStandardPhysics, cut 0.7 mm" in text
    assert ("substitutes for Geant4's data sets" in text) == (origin == "substitutes")
    assert _simulated({"simulation": "Geant4", "data_sets": "all"}) == _simulated({}) == ""


def test_bold_is_explained_only_where_something_is(run, page, tmp_path):
    assert "the best model, yardsticks aside" in page
    write_report([run], tmp_path / "alone.html")
    assert "Bold" not in (tmp_path / "alone.html").read_text(encoding="utf-8")


def test_the_headline_says_where_the_model_is_near_and_far(page):
    assert re.search(r"nearest to the floor in W1[^;]*, [\d.]+ ×; farthest in [^.]+, [\d.]+ ×", page)


def test_a_sample_that_ships_is_found_by_its_content(run, reference, tmp_path, monkeypatch):
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    scores = json.loads((moved / "scores.json").read_text())
    scores["sets"]["made"]["reference"]["path"] = str(tmp_path / "gone.h5")
    (moved / "scores.json").write_text(json.dumps(scores))
    monkeypatch.setattr("caloforge.report.runs.SAMPLES", ("made",))
    monkeypatch.setattr("caloforge.report.runs.sample", lambda name: reference)
    (part,) = comparisons(read_runs([moved]), {})
    assert part.file == reference
