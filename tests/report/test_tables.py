import pytest

from caloforge.report import markdown, tables
from made_scores import entry, scores, timing, typed


@pytest.fixture
def contents():
    good = {
        "all": {
            "n": 100,
            "particles": 60,
            "metrics": {
                "w1": entry(6.0, 0.12, floor=5.0, matched=6.5),
                "mae": entry(15.0, 0.1, floor=16.0, matched=16.8),
                "mae_c": entry(None, reason="no particle has at least 10 responses"),
            },
        },
        "n": {"n": 80, "particles": 50, "metrics": {"w1": entry(7.0, floor=5.0)}},
        "pi-": {"n": 3, "particles": 3, "metrics": {}, "reason": "fewer than 20 rows"},
    }
    other = {
        "all": {
            "n": 100,
            "particles": 60,
            "metrics": {"w1": entry(9.0, floor=5.0), "mae": entry(12.0, floor=16.0)},
        },
        "n": {"n": 80, "particles": 50, "metrics": {"w1": entry(6.0, floor=5.0)}},
    }
    lazy = {
        "all": {
            "n": 100,
            "particles": 60,
            "metrics": {"w1": entry(3.0, floor=5.0), "mae": entry(60.0, floor=16.0)},
        }
    }
    return [
        scores("resample", lazy, type="resample"),
        scores("sums", other, kind="readout"),
        scores("flow", good, timing=timing(31.04), parameters=77372),
    ]


@pytest.fixture
def models(contents):
    return [typed(content) for content in contents]


def test_rows_are_ordered_and_the_best_is_no_yardstick(models):
    table = tables.scores_table(models, "made", ["w1", "mae"])
    assert [(row.name, row.kind) for row in table.rows] == [
        ("floor", "floor"),
        ("flow", "generator"),
        ("sums", "readout"),
        ("resample", "yardstick"),
    ]
    texts = [[cell.text for cell in row.cells] for row in table.rows]
    assert texts == [
        ["5.00 ± 0.50", "16.00 ± 0.50"],
        ["6.00 ± 0.12", "15.00 ± 0.10"],
        ["9.00", "12.00"],
        ["3.00", "60.00"],
    ]
    assert [[cell.best for cell in row.cells] for row in table.rows] == [
        [False, False],
        [True, True],  # MAE should come near 16, so 15 beats 12
        [False, False],
        [False, False],
    ]
    assert [cell.ratio for cell in table.rows[1].cells] == pytest.approx([1.2, 15 / 16])
    assert [cell.matched for cell in table.rows[1].cells] == pytest.approx([1.3, 1.05])


def test_a_lone_model_is_not_the_best(models):
    assert not any(cell.best for row in tables.scores_table(models[2:], "made").rows for cell in row.cells)


def test_a_metric_without_numbers_becomes_a_note(models):
    table = tables.scores_table(models, "made")
    assert [column.title for column in table.columns] == ["W1", "MAE"]
    assert "No value for MAE_c: no particle has at least 10 responses." in table.notes


def test_speed_and_parameters(models):
    table = tables.scores_table(models, "made", ["w1"], speed=True)
    assert [cell.text for cell in table.rows[1].cells[1:]] == ["31", "77,372"]
    assert table.rows[2].cells[1].reason == "not timed"
    assert "Median time on cpu, 1 thread, batch 8, here." in table.notes


def test_particle_types_have_a_row_each_or_a_note(models):
    table = tables.particles_table(models, "made", "w1")
    assert [row.name for row in table.rows] == ["all", "n"]
    assert [cell.text for cell in table.rows[1].cells] == ["80", "50", "5.00 ± 0.50", "7.00", "6.00", "–"]
    assert table.rows[1].cells[4].best
    assert table.notes == ("Without a value (events): pi- (3): fewer than 20 rows.",)


def test_overview_has_a_column_a_set(models):
    elsewhere = models[2].model_copy(update={"name": "other", "sets": {"wide": models[2].sets["made"]}})
    table = tables.overview_table([models[2], elsewhere], ["made", "wide"], "w1")
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["5.00 ± 0.50", "5.00 ± 0.50"],
        ["6.00 ± 0.12", ""],
        ["", "6.00 ± 0.12"],
    ]


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (4.834, 0.123, "4.83 ± 0.12"),
        (0.53, None, "0.53"),
        (16.411, 0.0, "16.41"),
        (7.6512, 0.0012, "7.651 ± 0.001"),
        (123.45, 1.26, "123.5 ± 1.3"),
        (12345.6, None, "12,346"),
        (0.0593, 0.0003, "0.0593 ± 0.0003"),
        (0.0, None, "0.00"),
        (4e-5, None, "4e-05"),
        (float("nan"), None, "–"),
    ],
)
def test_numbers(value, spread, text):
    assert tables.number(value, spread) == text


def test_a_table_as_markdown(models):
    assert markdown.table(tables.scores_table(models, "made", ["w1"])) == (
        "| model | W1 [photons] |\n"
        "| --- | ---: |\n"
        "| floor | 5.00 ± 0.50 |\n"
        "| flow | **6.00 ± 0.12** (1.30 ×) |\n"
        "| sums | 9.00 (1.80 × floor) |\n"
        "| resample | 3.00 (0.60 × floor) |\n"
    )


def test_console_has_plain_strings_only(models):
    assert tables.console(tables.scores_table(models, "made", ["w1"])) == [
        ["model", "W1 [photons]"],
        ["floor", "5.00 ± 0.50"],
        ["flow", "6.00 ± 0.12 (1.30×) *"],
        ["sums", "9.00 (1.80×)"],
        ["resample", "3.00 (0.60×)"],
    ]


def test_published_rows_are_a_table():
    table = tables.published_table("zn")
    assert [cell.text for cell in table.rows[0].cells] == ["0.53", "16.41", "–"]
    assert tables.published_table("elsewhere") is None


def test_no_model_is_called_the_best_for_few_particles(contents):
    for content in contents:
        for group in content["sets"]["made"]["groups"].values():
            if group["n"] == 80:
                group["particles"] = 19
    models = [typed(content) for content in contents]
    table = tables.scores_table(models, "made", ["w1"], group="n")
    assert not any(cell.best for row in table.rows for cell in row.cells)
    assert "Fewer than 20 particles in the test part: no claim." in table.notes
    by_type = tables.particles_table(models, "made", "w1")
    assert not any(cell.best for cell in by_type.rows[1].cells)
    assert "Fewer than 20 particles, no claim: n." in by_type.notes


def test_the_distances_from_the_floor_leave_out_what_makes_no_claim(contents):
    (_, _, flow) = contents
    models = [typed(content) for content in contents]
    measured = tables.distances(models[2], "made")
    # MAE approaches its floor, MAE_c has no number, and the types have no matched floor
    assert [(one.text, one.times) for one in measured] == [("W1, 1.30 ×", 1.3)]
    flow["sets"]["made"]["groups"]["n"]["metrics"]["w1"] = entry(7.0, floor=5.0, matched=20.0)
    flow["sets"]["made"]["groups"]["pi-"] |= {"metrics": {"w1": entry(7.0, floor=1.0, matched=50.0)}}
    other = typed(flow)
    assert [one.text for one in tables.distances(other, "made")] == ["W1, 1.30 ×", "W1 of n, 4.00 ×"]
    assert tables.extremes_table(models, "made") is None  # of one model there is nothing to compare
    (row,) = tables.extremes_table([other, other.model_copy(update={"name": "b"})], "made").rows[1:]
    assert [cell.text for cell in row.cells] == ["W1, 1.30 ×", "W1, 1.30 ×", "W1 of n, 4.00 ×"]


def test_the_unit_is_the_detectors(models, monkeypatch):
    crystal = type("Crystal", (), {"unit": "MeV"})()
    monkeypatch.setattr(tables, "detector_named", lambda name, trust: crystal)
    assert tables.column_of("w1", "ecal").label == "W1 [MeV]"
    assert tables.column_of("w1_photons", "ecal").label == "W1 of the sum [MeV]"
    assert tables.column_of("w1_lit", "ecal").label == "W1 of lit cells [cells]"
    assert tables.column_of("unheard", "ecal").label == "unheard"
