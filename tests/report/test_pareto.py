import pytest

from caloforge.report import drawing, figures
from caloforge.report.pareto import METRICS, Priced, PricePanel, frontier, milliseconds, priced
from caloforge.report.runs import Run
from made_scores import entry, scores, times, timing, typed

LOOK = drawing.style(0, "model")


def run(name="model", ms=2.0, sweep=(), number=0, **more):
    one = scores(
        name,
        {
            "all": {
                "n": 4,
                "particles": 2,
                "metrics": {"w1": entry(5.0, 0.2), "mae_c": entry(None, reason="few")},
            }
        },
        **more,
    )
    if ms is not None:
        one["timing"] = timing(ms)
    for value, time, w1 in sweep:
        sets = scores(name, {"all": {"n": 4, "particles": 2, "metrics": {"w1": entry(w1)}}})["sets"]
        one["sweep"].append({"path": "steps", "value": value, "ms_per_event": times(time), "sets": sets})
    return Run(None, name, typed(one), None, drawing.style(number, name))


def test_every_timed_run_and_setting_is_a_point():
    runs = [
        run(sweep=[(1, 0.5, 9.0), (4, 4.0, 4.5)]),
        run("sums", 0.3, kind="readout"),
        run("random", 0.01, type="resample"),
        run("untimed", None),
    ]
    found = [(point.kind, point.setting, point.ms, point.value) for point in priced(runs, "made", "w1")]
    assert found == [
        ("generator", "", 2.0, 5.0),
        ("generator", "1", 0.5, 9.0),
        ("generator", "4", 4.0, 4.5),
        ("readout", "", 0.3, 5.0),
        ("yardstick", "", 0.01, 5.0),
    ]
    assert [point.spread for point in priced(runs[:1], "made", "w1")] == [0.2, 0.0, 0.0]
    assert milliseconds(None) is None


@pytest.mark.parametrize("metric", ["mae_c", "conditional_w1", "w1"])
def test_a_metric_without_a_value_has_no_point(metric):
    assert metric in METRICS
    assert priced([run()], "elsewhere", metric) == []
    assert (priced([run()], "made", metric) == []) == (metric != "w1")


def point(ms, value, kind="generator"):
    return Priced(LOOK, kind, ms, value)


def test_the_frontier_holds_what_nothing_beats():
    fast, good, middle = point(1, 9), point(8, 2), point(2, 5)
    beaten = [point(1, 9.5), point(3, 5), point(9, 2), point(2.5, 7)]
    assert frontier([good, *beaten, middle, fast]) == [fast, middle, good]
    assert frontier([]) == []


def test_the_frontier_is_a_law():
    points = [point(ms, (7 * ms) % 11) for ms in range(1, 11)]
    best = frontier(points)
    for one in points:
        beaten = any(
            other.ms <= one.ms and other.value <= one.value and (other.ms, other.value) != (one.ms, one.value)
            for other in points
        )
        assert (one in best) == (not beaten)


def test_the_figure_shows_one_beyond_the_edge_by_its_number():
    points = (point(1, 2), point(2, 3, "readout"), point(0.1, 15_045, "yardstick"))
    drawn = figures.quality_against_time([PricePanel(points, (1.0, 0.2), "W1 [photons]")], "png")
    assert drawn.startswith(b"\x89PNG")
