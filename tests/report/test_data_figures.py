import numpy as np

from caloforge.report import drawing, figures
from caloforge.report.figures import Quantity


def test_histograms_survive_constants_and_gaps():
    rng = np.random.default_rng(0)
    quantities = [
        Quantity("constant", {"a": np.zeros(10), "b": np.zeros(5)}),
        Quantity("energy", {"a": rng.lognormal(size=100), "b": rng.lognormal(size=50)}, log=True),
        Quantity("gaps", {"a": np.array([1.0, np.nan, 3.0]), "b": np.array([2.0])}),
        Quantity("plain", {"a": rng.normal(size=100), "b": rng.normal(size=100)}),
    ]
    found = figures.histograms(quantities)
    assert found.startswith(b"<?xml")
    assert found == figures.histograms(quantities)


def test_a_map_colours_the_frequent_kinds_alone(monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, "png", lambda figure: drawn.append(figure) or b"")
    points = np.random.default_rng(0).normal(size=(30, 2))
    figures.embedding(points, ["n"] * 20 + ["gamma"] * 9 + ["p"], shown=2)
    (axes,) = drawn[0].axes
    assert [one.get_label() for one in axes.collections] == ["others (1)", "n (20)", "gamma (9)"]
