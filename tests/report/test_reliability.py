"""The figure of the reliability."""

import numpy as np

from caloforge.report.drawing import style
from caloforge.report.figures import Reliability, reliability


def test_the_figure_shows_every_curve():
    p = np.linspace(0, 1, 5)
    curves = [Reliability(style(i, name), p, p**2, np.full(5, 0.01)) for i, name in enumerate(("ZN", "ZP"))]
    picture = reliability(curves, "predicted", "observed")
    assert picture.startswith(b"<?xml")
    assert b"</svg>" in picture
    assert picture != reliability(curves[:1], "predicted", "observed")
    assert picture == reliability(curves, "predicted", "observed")
