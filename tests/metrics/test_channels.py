import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from caloforge.metrics import wasserstein
from caloforge.metrics.channels import empty, mae, mae_sum, w1, w1_photons

samples = st.lists(st.one_of(st.integers(0, 20), st.floats(-1e6, 1e6)), min_size=1, max_size=30)


@settings(deadline=None)
@given(samples, samples)
def test_wasserstein_agrees_with_scipy(a, b):
    assert wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1000, 1000), (1000, 999), (317, 64)])
def test_wasserstein_agrees_with_scipy_on_counts(n, m):
    rng = np.random.default_rng(n + m)
    a, b = rng.poisson(rng.gamma(1, 50, n)), rng.poisson(rng.gamma(1, 60, m))
    assert wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b), rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ([0, 1], [0, 1, 2], 1 / 6 + 1 / 3),  # |F^-1 - G^-1| = 0, 1, 0, 1 on [0, 1/3, 1/2, 2/3, 1]
        ([5], [1, 2, 9], (4 + 3 + 4) / 3),
        ([3, 1, 2], [4, 2, 3], 1.0),
        ([0, 0, 4], [0, 4], 2 / 3),
    ],
)
def test_wasserstein_worked_by_hand(a, b, distance):
    assert wasserstein(a, b) == pytest.approx(distance, rel=1e-12)


def test_wasserstein_does_not_see_how_often_a_sample_is_repeated():
    a, b = np.array([0.0, 3.0, 4.0]), np.array([1.0, 1.0, 9.0, 2.0])
    assert wasserstein(np.tile(a, 7), b) == pytest.approx(wasserstein(a, b), rel=1e-12)


@pytest.mark.parametrize("wrong", [[], [[1.0, 2.0]], [np.nan], [np.inf]])
def test_wasserstein_refuses_what_is_no_sample(wrong):
    with pytest.raises(ValueError, match="a sample must"):
        wasserstein(wrong, [1.0])


def test_w1_is_the_mean_over_channels(observables):
    reference, generated = observables([[0, 10], [1, 20]]), observables([[0, 10], [1, 10], [2, 10]])
    assert w1(reference, generated).value == pytest.approx((0.5 + 5.0) / 2)
    assert w1_photons(reference, generated).value == pytest.approx(
        wasserstein_distance([10, 21], [10, 11, 12])
    )


def test_mae_averages_over_channels_and_mae_sum_does_not(observables):
    reference, generated = observables([[0, 10], [4, 4]]), observables([[3, 9], [4, 6]])
    assert mae(reference, generated).value == pytest.approx((4 / 2 + 2 / 2) / 2)
    assert mae_sum(reference, generated).value == pytest.approx((4 + 2) / 2)


def test_mae_compares_row_by_row_and_w1_does_not(observables):
    reference, generated = observables([[0.0], [10.0]]), observables([[10.0], [0.0]])
    assert w1(reference, generated).value == 0.0
    assert mae(reference, generated).value == 10.0


def test_mae_needs_equal_rows(observables):
    with pytest.raises(ValueError, match=r"same rows and channels, got .* \(2, 1\) and \(3, 1\)"):
        mae(observables([[0], [1]]), observables([[0], [1], [2]]))


def test_empty_counts_responses_without_photons(observables):
    reference, generated = observables([[1, 0], [2, 3]]), observables([[0, 0], [1, 0], [0, 0], [5, 5]])
    assert empty(reference, generated).value == 0.5


@pytest.mark.parametrize("metric", [w1, w1_photons, mae, mae_sum, empty])
def test_no_rows_give_nan_with_the_reason(metric, observables):
    result = metric(observables(np.zeros((0, 2))), observables(np.zeros((0, 2))))
    assert math.isnan(result.value)
    assert result.reason == "no responses to compare"
