"""The table of the CaloChallenge."""

import pytest

from caloforge.metrics.showers import SHOWER_METRICS
from caloforge.report import challenge
from caloforge.report.document import Details
from caloforge.report.pages.challenge import blocks, text
from made_scores import entry, scores, typed


def made(name="mine", data_set="ds2", classifiers=("low", "high"), **more):
    """Scores of one set with the challenge's numbers."""
    metrics = {key: entry(0.5, floor=0.4) for key in SHOWER_METRICS}
    for view in classifiers:
        metrics[f"auc_{view}"] = entry(0.61, floor=0.5)
        metrics[f"auc_raw_{view}"] = entry(0.62, floor=0.51)
        metrics[f"jsd_{view}"] = entry(0.03)
    separations = {
        "E_tot/E_inc": 0.04,
        "E_layer 0": 0.01,
        "E_layer 1": 0.03,
        "EC_eta 0": None,
        "voxels": 0.002,
    }
    if data_set in ("ds1-photons", "ds1-pions"):
        separations["E_tot/E_inc 256 MeV"] = 0.9
    numbers = {
        "data_set": data_set,
        "separations": separations,
        "fpd": {"value": 31.25, "error": 0.25},
        "kpd": {"value": 0.02, "error": 0.01},
        "precision": {"value": 0.7, "error": None},
    } | more
    group = {"n": 10, "particles": 10, "metrics": metrics, "note": "few", "challenge": numbers}
    return typed(scores(name, {"all": group}))


def cells(table, row):
    (line,) = (one for one in table.rows if one.name == row)
    return dict(
        zip((column.title for column in table.columns), (cell.text for cell in line.cells), strict=True)
    )


def test_ones_own_numbers_stand_beside_the_published_ones():
    table = challenge.numbers_table([made(), made("other")], "made")
    assert [row.name for row in table.rows][:4] == ["floor", "mine", "other", "GEANT4, published"]
    mine, floor, published = (cells(table, name) for name in ("mine", "floor", "CaloDREAM, published"))
    assert (mine["AUC low"], mine["FPD"], mine["KPD"]) == (
        "0.6100 (raw 0.6200)",
        "31.25 ± 0.25",
        "0.0200 ± 0.0100",
    )
    assert (floor["AUC low"], floor["JSD low"], floor["FPD"]) == ("0.5000 (raw 0.5100)", "–", "0.40")
    assert (published["AUC high"], published["FPD"], published["JSD low"]) == ("0.5208", "24.6", "–")
    assert table.notes[0] == "few"
    assert "only with the challenge's own files" in table.notes[-1]


def test_a_set_without_published_rows_has_none_and_further_classifiers_have_columns():
    pions = made(data_set="ds1-pions", classifiers=("low", "low-normed", "high"))
    table = challenge.numbers_table([pions], "made")
    assert [row.name for row in table.rows] == ["floor", "mine"]
    assert [column.title for column in table.columns][:3] == ["AUC low", "AUC high", "AUC low-normed"]
    assert challenge.data_set_title([pions], "made") == "data set 1, pions"
    assert not any("Published" in note for note in table.notes)
    unknown = made(data_set=None)
    assert [row.name for row in challenge.numbers_table([unknown], "made").rows] == ["floor", "mine"]
    assert challenge.data_set_title([unknown], "made") == "a data set of one's own"


def test_separations_are_means_over_layers():
    table = challenge.separations_table([made()], "made")
    assert cells(table, "E_layer") == {
        "mine": "0.0200 (largest 0.0300)", "CaloDREAM, published": "1.39e-3", "GEANT4, published": "2.4e-4",
    }  # fmt: skip
    assert cells(table, "EC_eta")["mine"] == "–"
    # those at single energies are no part of a mean
    assert cells(challenge.separations_table([made(data_set="ds1-photons")], "made"), "E_tot/E_inc") == {
        "mine": "0.0400"
    }


def test_every_histogram_has_a_row():
    table = challenge.histograms_table([made(data_set="ds1-photons"), made("other")], "made")
    assert cells(table, "E_tot/E_inc 256 MeV") == {"mine": "0.90", "other": "–"}
    assert len(table.rows) == 6


@pytest.mark.parametrize("metric", challenge.GROUPS.values())
def test_kinds_of_histograms_are_metrics(metric):
    assert metric in SHOWER_METRICS


def test_the_page_says_where_scores_have_no_such_numbers():
    content = made().content()
    del content["sets"]["made"]["groups"]["all"]["challenge"]
    old = typed(content)
    (paragraph,) = blocks([old], "made")
    assert "evaluate again" in paragraph.text
    *_, every = blocks([old, made()], "made")
    assert isinstance(every, Details)


def test_the_text_of_all_sets():
    page = text(made())
    assert page.startswith("# CaloChallenge: mine\n\n## made, data set 2\n")
    assert "| mine | 0.6100 (raw 0.6200) |" in page
    assert "All 5 histograms" in page
