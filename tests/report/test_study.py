import pytest

from caloforge.io.study import is_study
from caloforge.report import drawing, figures, write_report
from caloforge.report.study import read_study
from made_study import RATE, SCHEDULE, TRIALS, trial, write_study


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "study", TRIALS, importance={RATE: 0.875, SCHEDULE: 0.125})


def test_a_study_says_what_was_reached(study):
    content = read_study(study).content
    assert [trial.number for trial in content.ended] == [0, 1, 2, 3]
    assert [trial.number for trial in content.finished] == [3, 0]
    assert [trial.reached for trial in content.ended] == [9.0, 20.0, None, 4.0]


def test_the_page_of_a_study(study, tmp_path):
    (study / "best.toml").write_text('name = "best <i>"\n')
    write_report([study], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for wanted in (
        "4 ended trials (2 finished, 1 pruned, 1 failed); 1 running",
        "Best: trial 3, validation W1 [photons] 4.00 at epoch 2",
        "What trials reach",
        "0.875",
        "the loss became nan",
        "best &lt;i&gt;",
        "made &lt;b&gt;&amp;",
        "1e-06 to 0.01, log",
    ):
        assert wanted in page
    assert page.count("<img") == 3
    assert "<b>&<" not in page


def test_a_study_beside_runs(study, run, tmp_path, monkeypatch):
    for name, drawn in (("svg", b"<svg/>"), ("png", b"\x89PNG")):
        monkeypatch.setattr(drawing, name, lambda figure, drawn=drawn: drawn)
    write_report([study, run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Tuning of made" in page
    assert "Provenance" in page


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([], "No trial has ended yet."),
        ([trial(0, "failed", reason="x")], "nothing to draw"),
        ([trial(0, "pruned", None, [(1, 3.0)])], "Importance is estimated"),
    ],
)
def test_what_is_missing_is_said(tmp_path, trials, message):
    write_report([write_study(tmp_path / "study", trials)], tmp_path / "report.html")
    assert message in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_study_of_another_format(tmp_path):
    folder = write_study(tmp_path / "study", [], format=2)
    assert is_study(folder)
    with pytest.raises(ValueError, match=r"trials\.json must have format 1, got 2"):
        write_report([folder], tmp_path / "report.html")


def heights(values, total, finished=()):
    """Returns the corners of the drawn steps."""
    drawn = {}

    def keep(figure):
        for line in figure.axes[0].lines:
            drawn[line.get_label()] = list(zip(*line.get_data(), strict=True))
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "svg", keep)
        figures.cumulative(values, total, finished, "W1")
    return drawn


def test_the_cumulative_share_by_hand():
    drawn = heights([4.0, 2.0, 8.0], 4, [2.0, 8.0])
    assert drawn["all ended (4)"][:3] == [(2.0, 0.25), (4.0, 0.5), (8.0, 0.75)]
    assert drawn["finished (2)"][:2] == [(2.0, 0.5), (8.0, 1.0)]
    # a failed trial never comes below
    assert max(share for _, share in drawn["all ended (4)"]) == 0.75
