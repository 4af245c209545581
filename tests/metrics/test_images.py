import math

import numpy as np
import pytest

from caloforge.metrics import METRICS
from caloforge.metrics.images import (
    centre_mae,
    centre_rmse,
    centre_variance_mae,
    centre_variance_rmse,
    image_distances,
    radius_mae,
    radius_rmse,
    radius_variance_mae,
    radius_variance_rmse,
    w1_centre,
    w1_lit,
    w1_radius,
)
from made import made_events


@pytest.fixture
def pair(observables):
    """Particle 1 with two responses, particle 2 with three."""
    group = [1, 1, 2, 2, 2]
    reference = observables(
        np.zeros((5, 1)),
        group,
        centre=[[0, 0], [2, 0], [5, 5], [5, 5], [5, 5]],  # means (1, 0), (5, 5); variances (1, 0), (0, 0)
        radius=[1, 3, 4, 4, 4],  # means 2, 4; variances 1, 0
    )
    generated = observables(
        np.zeros((5, 1)),
        group,
        centre=[[2, 1], [6, 1], [5, 2], [5, 5], [5, 8]],  # means (4, 1), (5, 5); variances (4, 0), (0, 6)
        radius=[6, 6, 1, 4, 4],  # means 6, 3; variances 0, 2
    )
    return reference, generated


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (centre_mae, 2 * (3 + 1) / 2 / 5),
        (centre_rmse, math.sqrt(2 * (9 + 1) / 2 / 5)),
        (centre_variance_mae, (2 * 3 / 2 + 3 * 6 / 2) / 5),
        (centre_variance_rmse, math.sqrt((2 * 9 / 2 + 3 * 36 / 2) / 5)),
        (radius_mae, (2 * 4 + 3 * 1) / 5),
        (radius_rmse, math.sqrt((2 * 16 + 3 * 1) / 5)),
        (radius_variance_mae, (2 * 1 + 3 * 2) / 5),
        (radius_variance_rmse, math.sqrt((2 * 1 + 3 * 4) / 5)),
    ],
)
def test_the_eight_numbers_worked_by_hand(metric, value, pair):
    result = metric(*pair, minimum=2)
    assert result.value == pytest.approx(value, rel=1e-12)
    assert result.particles == 2


def test_means_need_ten_responses_and_variances_thirty(observables):
    def repeated(n):
        return observables(np.zeros((n, 1)), centre=np.ones((n, 2)))

    ten, thirty = repeated(10), repeated(30)
    for metric in METRICS.values():
        if metric.needs == "responses" and metric.minimum:
            result = metric.function(ten, ten)
            if "variance" in metric.name:
                assert math.isnan(result.value)
                assert result.reason == "no particle has at least 30 responses in both sets"
            else:
                assert result.value == 0.0
            assert metric.function(thirty, thirty).value == 0.0


def test_responses_without_photons_are_left_out(observables):
    empty = [np.nan, np.nan]
    reference = observables(np.ones((4, 1)), centre=[[1, 1]] * 4, radius=[2, 2, 2, 2])
    generated = observables(np.ones((4, 1)), centre=[[3, 1], empty, [3, 1], [3, 1]], radius=[2, np.nan, 5, 5])
    assert centre_mae(reference, generated, minimum=3).value == 1.0
    assert w1_centre(reference, generated).value == 1.0
    assert w1_radius(reference, generated).value == pytest.approx(2.0)
    assert (
        radius_mae(reference, generated, minimum=4).reason
        == "no particle has at least 4 responses in both sets"
    )


def test_distributions_worked_by_hand(observables):
    reference = observables([[1], [1]], centre=[[0, 0], [1, 9]], radius=[1, 2], lit=[5, 7])
    generated = observables([[1], [1]], centre=[[2, 9], [1, 0]], radius=[2, 4], lit=[5, 8])
    assert w1_centre(reference, generated).value == 0.5
    assert w1_radius(reference, generated).value == 1.5
    assert w1_lit(reference, generated).value == 0.5


def test_only_empty_responses_give_nan_with_the_reason(observables):
    nothing = observables([[0]], centre=[[np.nan, np.nan]], radius=[np.nan], lit=[0])
    something = observables([[1]], centre=[[1, 1]])
    for metric in (w1_centre, w1_radius):
        assert metric(something, nothing).reason == "no responses to compare"
    assert w1_lit(something, nothing).value == 1.0


def test_channel_sums_alone_have_no_shower(observables):
    readout = observables([[1.0]])
    with pytest.raises(ValueError, match="centre needs responses of two axes"):
        w1_centre(readout, readout)


def test_distances_of_images():
    events = made_events()
    assert max(image_distances(events.responses, events.responses).values()) == 0
    moved = np.roll(events.responses, 3, axis=1)
    distances = image_distances(events.responses, moved)
    assert distances["centre_x"] > 0.1
    assert distances["lit"] == 0
