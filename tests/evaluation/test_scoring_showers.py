"""Scores of showers: of runs, and of files from anywhere."""

import json
from functools import partial

import h5py
import numpy as np
import pytest

from caloforge import recipe
from caloforge.detectors import DS2
from caloforge.evaluation import scoring
from caloforge.evaluation.classifier import ClassifierConfig, DenseConfig
from caloforge.evaluation.scoring import Sweep, evaluate_events, evaluate_run
from caloforge.events import Events
from caloforge.io import create, open_events
from caloforge.metrics import SHOWER_METRICS
from caloforge.metrics.showers import Sizes, observe_showers, separations
from caloforge.metrics.showers import scores as scores_of_showers
from caloforge.report import tables
from caloforge.report.published import SEPARATIONS
from caloforge.training.checkpoint import load_model
from caloforge.training.run import train
from made_showers import made_showers

QUICK = Sizes(fpd_draws=1, kpd_batches=1, prdc_rows=20, splits=2, slow_splits=1)
TINY = ClassifierConfig(views=("high",), dense=DenseConfig(width=8, hidden=0), epochs=1, seeds=2)


def written(path, events, provenance=None):
    with create(path, DS2, provenance) as writer:
        writer.append(events)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("showers")
    return (
        written(folder / "reference.h5", made_showers(rows=60)),
        written(folder / "mine.h5", made_showers(rows=44, seed=1)),
    )


@pytest.fixture(scope="module")
def scores(files):
    reference, mine = files
    return evaluate_events(mine, [reference], sizes=QUICK, classifiers=TINY)


def test_showers_from_anywhere_are_scored_against_any_reference(files, scores):
    assert (scores.detector, scores.channels, scores.split, scores.part) == (
        "ds2", "layers", "unknown", "all",
    )  # fmt: skip
    entry = scores.sets["reference"]
    assert entry.generated == str(files[1].resolve())
    group = entry.all
    assert group.n == 60
    assert "44 showers: FPD, KPD and classifiers are not comparable" in group.note
    assert "energies" not in group.note
    classified = {"auc_high", "jsd_high", "auc_raw_high", "jsd_raw_high"}
    assert set(SHOWER_METRICS) | classified == set(group.metrics)
    assert sum(group.weights["high"]["truth"]) == 2 * 12
    json.dumps(scores.content(), allow_nan=False)


def test_other_energies_are_said(files, tmp_path):
    events = made_showers(rows=30, seed=2)
    other = Events(DS2, events.conditions * np.float32(3), events.pdg, responses=events.responses)
    found = evaluate_events(written(tmp_path / "other.h5", other), [files[0]], sizes=QUICK)
    assert "incident energies of the two sets differ" in found.sets["reference"].all.note


def test_a_table_shows_every_metric_with_floor_and_control(scores):
    table = tables.showers_table([scores], "reference")
    assert [column.title for column in table.columns] == ["floor", "mine", "control"]
    assert [row.name for row in table.rows][:2] == ["sep. E_layer", "sep. E_tot/E_inc"]
    assert {"FPD [10⁻³]", "AUC, high", "JSD, high [bits]"} <= {row.name for row in table.rows}
    assert all(cell.text != tables.MISSING for row in table.rows for cell in row.cells)
    assert "not comparable with published numbers" in table.notes[0]


@pytest.mark.parametrize(("detector", "rows"), [("ds2", 8), ("ds3", 4)])
def test_published_rows_of_the_challenge(detector, rows):
    table = tables.published_showers_table(detector)
    assert len(table.rows) == rows
    assert "CaloDREAM" in {row.name for row in table.rows}
    assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_published_separations_have_the_names_of_metrics():
    table = tables.published_separations_table("ds2")
    assert [row.name for row in table.rows][-1] == "sep. sparsity"
    assert tables.published_separations_table("ds3") is None
    assert set(SEPARATIONS["ds2"]) <= set(SHOWER_METRICS)


def test_a_run_is_scored_on_the_last_rows(tmp_path, monkeypatch):
    # the model has no setting to sweep
    monkeypatch.setattr(scoring, "load_model", lambda path, settings=(), trust=False: load_model(path))
    reference = written(tmp_path / "reference.h5", made_showers(rows=100))
    values = recipe.with_settings(recipe.read("ds2-nearest"), [f'data.files=["{reference}"]'])
    train(recipe.parse(values), tmp_path / "run")
    found = evaluate_run(
        tmp_path / "run",
        [reference],
        repeats=1,
        sizes=QUICK,
        classifiers=TINY,
        sweeps=[Sweep("steps", ("2",), ("method=euler",))],
    )
    (swept,) = found.sweep
    assert (swept.path, swept.value, swept.settings) == ("steps", 2, {"method": "euler"})
    judged = swept.sets["reference"].all.metrics["auc_high"]
    assert 0 <= judged.mean <= 1
    assert judged.floor is None
    entry = found.sets["reference"]
    assert (found.split, found.part, entry.all.n) == ("ordered", "test", 20)
    assert len(entry.all.metrics["sep_layers"].values) == 1
    assert "auc_high" in entry.all.metrics
    # what was generated are training showers: of the first 70 %
    generated = open_events(tmp_path / "run" / entry.generated).slices(slice(None)).responses
    known = {shower.tobytes() for shower in open_events(reference).slices(slice(0, 70)).responses}
    assert {shower.tobytes() for shower in generated} <= known
    # floors and controls are those of the first scores, and what is the model's own is computed
    monkeypatch.setattr(
        scoring, "classifier_scores", partial(classifier_scores_without_floors, scoring.classifier_scores)
    )
    again = evaluate_run(
        tmp_path / "run", [reference], repeats=1, sizes=QUICK, classifiers=TINY, floors=found
    )
    assert again.sets["reference"].all.metrics == entry.all.metrics


def classifier_scores_without_floors(function, *arguments):
    (*_, beside, _) = arguments
    assert not beside
    return function(*arguments)


def test_classifiers_are_for_showers(events_file, tmp_path):
    with pytest.raises(ValueError, match="classifiers are for detectors of voxels, and zn has no layers"):
        evaluate_events(events_file, [events_file], classifiers=TINY)


def test_the_command_line_scores_files(caloforge, files, tmp_path, monkeypatch):
    monkeypatch.setattr(scores_of_showers, "Sizes", lambda: QUICK)
    reference, mine = files
    out = tmp_path / "scores.json"
    code, text, _ = caloforge("evaluate", mine, "--reference", reference, "--out", out)
    assert code == 0
    assert "FPD" in text
    assert "control" in text
    assert json.loads(out.read_text())["sets"]["reference"]["groups"]["all"]["n"] == 60
    assert caloforge("evaluate", mine, "--reference", reference, "--classifiers", "smal")[0] == 2


def test_the_command_line_shows_the_challenges_table_of_files_with_negative_voxels(
    caloforge, files, tmp_path, monkeypatch
):
    monkeypatch.setattr(scores_of_showers, "Sizes", lambda: QUICK)
    events = made_showers(rows=44, seed=1)
    path = tmp_path / "negative.hdf5"
    with h5py.File(path, "w") as file:
        file["incident_energies"] = events.conditions
        file["showers"] = np.where(events.responses > 0, events.responses, -1e-6).reshape(44, -1)
    code, text, errors = caloforge("evaluate", path, "--reference", files[0], "--challenge")
    assert (code, errors) == (0, "")
    assert "CaloChallenge, data set 2: reference" in text
    assert "CaloDREAM, published" in text
    page = (tmp_path / "negative.scores.challenge.md").read_text()
    assert "| GEANT4, published | 0.4996 | 0.4993 |" in page
    assert "| EC_eta 44 |" in page
    empty = np.count_nonzero(events.responses == 0)
    assert f"negative voxels, set to 0: {empty:,} of negative.hdf5" in page
    scores = json.loads((tmp_path / "negative.scores.json").read_text())
    reference = observe_showers(open_events(files[0]), sizes=QUICK)
    expected = separations(reference, observe_showers(events, reference.edges, QUICK))
    assert scores["sets"]["reference"]["groups"]["all"]["challenge"]["separations"] == pytest.approx(expected)


def test_the_challenges_table_is_for_showers(caloforge, events_file, tmp_path):
    out = tmp_path / "scores.json"
    code, _, errors = caloforge(
        "evaluate", events_file, "--reference", events_file, "--challenge", "--out", out
    )
    assert code == 2
    assert "--challenge is for showers of voxels, got zn generators" in errors


@pytest.mark.slow
def test_a_page_about_files_of_showers(scores, tmp_path):
    from caloforge.report import write_report

    path = tmp_path / "mine.scores.json"
    path.write_text(json.dumps(scores.content()))
    write_report([path], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    for text in (
        "Longitudinal profile", "Sparsity", "Voxel energies", "Mean depth of ring 0", "Response",
        "CaloChallenge", "GEANT4, published", " histograms",
        "Showers in space", "Weights: mine, classifier high", "CaloDREAM", "not comparable with published",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("<img") > 20
