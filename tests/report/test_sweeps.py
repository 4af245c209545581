import pytest

from caloforge.report import drawing, figures
from caloforge.report.pareto import priced
from caloforge.report.runs import Run
from caloforge.report.sweeps import curves, wordy
from made_scores import entry, scores, times, typed


def run(*points):
    """A run whose sweep has points: path, value, settings that were held, W1."""
    one = scores("model", {"all": {"n": 4, "particles": 2, "metrics": {"w1": entry(5.0)}}})
    one["sweep"] = [
        {
            "path": path,
            "value": value,
            "settings": held,
            "ms_per_event": times(),
            "sets": scores("", {"all": {"n": 4, "particles": 2, "metrics": {"w1": entry(w1, 0.5)}}})["sets"],
        }
        for path, value, held, w1 in points
    ]
    return Run(None, "model", typed(one), None, drawing.style(0, "model"))


EULER, MIDPOINT = {"solver.method": "euler"}, {"solver.method": "midpoint"}


def test_each_setting_that_is_held_has_its_curve():
    swept = run(
        ("solver.steps", 4, EULER, 3.0),
        ("solver.steps", 2, EULER, 9.0),
        ("solver.steps", 2, MIDPOINT, 2.0),
        ("image.steps", 1, EULER, 1.0),
    )
    found = curves([swept], "made")
    assert [(one.settings, one.x, one.y) for one in found["steps"]] == [
        ("euler", (2, 4), (9.0, 3.0)),
        ("midpoint", (2,), (2.0,)),
    ]
    assert [one.x for one in found["image.steps"]] == [(1,)]
    assert [one.setting for one in priced([swept], "made", "w1")] == [
        "euler 4", "euler 2", "midpoint 2", "euler 1",
    ]  # fmt: skip
    assert b"<svg" in figures.sweep(found["steps"], None, "steps", "W1")


def test_words_have_no_curve():
    swept = run(("solver.method", "euler", {}, 3.0), ("solver.method", "rk4", {}, 2.0))
    assert curves([swept], "made") == {}
    assert [path for _, path in wordy([swept], "made")] == ["solver.method"]
    assert curves([swept], "elsewhere") == {}


@pytest.mark.parametrize("metric", ["w1", "mae_c"])
def test_a_metric_without_values_has_no_curve(metric):
    swept = run(("steps", 1, {}, 3.0))
    assert (curves([swept], "made", metric) == {}) == (metric == "mae_c")
