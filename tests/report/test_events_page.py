"""What the histograms of events are filled with."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from caloforge.metrics import observe
from caloforge.report.drawing import style
from caloforge.report.pages import events as page
from made import made_events


@pytest.mark.parametrize("weighed", [False, True])
def test_grey_is_the_reference_and_the_line_the_model(monkeypatch, weighed):
    drawn = []
    monkeypatch.setattr(
        page.figures, "compare", lambda reference, models, **options: drawn.append((reference, models)) or b""
    )
    truth, other = made_events(seed=0, repeats=20), made_events(seed=1, repeats=20)
    weight = np.random.default_rng(0).gamma(2, size=len(other)) if weighed else None
    reference, model = observe(truth), observe(dataclasses.replace(other, weight=weight))
    quantity = page.Quantity("sum", "sum [photons]", lambda observed: observed.photons)
    run = SimpleNamespace(name="m", look=style(0, "m"))
    page._histograms(quantity, reference, [(run, model, [])])
    assert len(drawn) == 2
    for bins, [(_, theirs)] in drawn:
        np.testing.assert_allclose(bins.counts, np.histogram(reference.photons, bins.edges)[0])
        line = theirs[0] if isinstance(theirs, tuple) else theirs
        shares = None if weight is None else weight / weight.mean()
        np.testing.assert_allclose(
            line.counts, np.histogram(model.photons, line.edges, weights=shares)[0], rtol=1e-9
        )


def test_it_is_said_what_weighted_events_are_worth():
    (note,) = page.weighted([("plain", None), ("weighed", np.array([1.0, 3.0]))])
    assert "weighed: 2 events worth 2" in str(note)
    assert page.weighted([("plain", None)]) == []
