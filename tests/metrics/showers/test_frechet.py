import itertools

import numpy as np
import pytest
from scipy import linalg, optimize

from caloforge.metrics.showers import Sizes, fpd, frechet, frechet_population, kernel_population, kpd
from caloforge.metrics.showers.frechet import bounded_line, fpd_sizes, mmd, population_sizes, scaled


def test_frechet_of_one_feature_by_hand():
    a, b = np.array([[0.0], [2.0], [4.0]]), np.array([[10.0], [11.0], [12.0]])
    # means 2 and 11, standard deviations 2 and 1
    assert frechet(a, b) == pytest.approx(81 + 1, abs=1e-9)


def test_frechet_agrees_with_the_matrix_root():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), rng.normal(size=(60, 4)) + 0.3
    c1, c2 = np.cov(a.T), np.cov(b.T)
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("rows", "others"), [(6, 5), (6, 40), (40, 6), (9, 9)])
def test_frechet_of_fewer_rows_than_features_is_that_of_their_covariances(rows, others):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, 9)) + 0.3, rng.normal(size=(others, 9)) * 2
    c1, c2 = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.linalg.eigvals(c1 @ c2).real.clip(min=0)).sum()  # each vanishing one is 1e-8 off
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2) - 2 * roots
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-7)


def test_sizes_of_the_frechet_distance():
    sizes = fpd_sizes()
    assert sizes.tolist() == [10000, 10975, 12162, 13636, 15517, 18000, 21428, 26470, 34615, 49999]
    sizes = population_sizes(100_000)
    assert (len(sizes), sizes[0], sizes[-1]) == (10, 10_000, 50_000)
    np.testing.assert_allclose(np.diff(1 / sizes), (1 / 5e4 - 1 / 1e4) / 9, rtol=1e-2)
    assert population_sizes(2000)[[0, -1]].tolist() == [400, 2000]


def test_rows_that_count_several_times_are_those_rows_repeated():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12, 3))
    times, others = rng.integers(0, 4, (2, 12))
    repeated = np.repeat(a, times, axis=0), np.repeat(b, others, axis=0)
    assert frechet(a, b, times, others) == pytest.approx(frechet(*repeated), rel=1e-9)
    assert mmd(a, b, times, others, block=5) == pytest.approx(mmd(*repeated), rel=1e-9)


@pytest.mark.parametrize(
    ("y", "value"),
    [
        ([3.0, 5.0, 7.0, 9.0], 1.0),  # 1 + 2 x
        ([1.0, 3.0, 5.0, 7.0], 0.0),  # -1 + 2 x: through 0
        ([4.0, 3.0, 2.0, 1.0], 2.5),  # falls: the mean
        ([-1.0, -2.0, -1.0, -2.0], 0.0),
    ],
)
def test_a_line_with_coefficients_that_are_not_negative(y, value):
    assert bounded_line([1.0, 2.0, 3.0, 4.0], y).value == pytest.approx(value, abs=1e-12)


def test_the_bounded_line_is_that_of_a_numerical_minimum():
    x, rng = 1 / fpd_sizes(), np.random.default_rng(0)
    for intercept in (0.0, 0.01, 1.0):
        y = intercept + 200 * x + rng.normal(0, 1e-3, len(x))
        fit, covariance = optimize.curve_fit(lambda x, a, b: a + b * x, x, y, bounds=(0, np.inf))
        wanted = (fit[0], covariance[0, 0] ** 0.5)
        np.testing.assert_allclose(bounded_line(x, y), wanted, rtol=1e-4, atol=1e-5)


STORED = [
    (400, 300, 0.05, (1.6298916189175674, 0.06133822306641624), (0.010209316558644321, 0.001298750730663635)),
    (
        300,
        300,
        0.0,
        (1.2852768596026354, 0.031507322069606505),
        (0.0061392278920013865, 0.0007696352075379788),
    ),
]
"""Rows of both sets, shift of the second, FPD and KPD with their errors as jetnet 0.2.5 gives them."""

FEW = Sizes(fpd_least=200, fpd_largest=1000, fpd_draws=3, kpd_batches=5, kpd_batch=500)


def pairs_of_features():
    """Features of two sets, of which one is 0 and two are alike in the first."""
    rng = np.random.default_rng(0)
    for rows, others, shift, *_ in STORED:
        real = rng.normal(size=(rows, 40))
        generated = rng.normal(size=(others, 40)) * (3.0**0.1 if shift else 1.0) + shift
        generated[:, 3], real[:, 3], real[:, 0] = generated[:, 2], real[:, 2], 0
        yield real, generated


def test_the_challenges_estimators_give_what_jetnet_gave():
    for pair, (*_, frechet_distance, kernel_distance) in zip(pairs_of_features(), STORED, strict=True):
        np.testing.assert_allclose(fpd(*pair, FEW), frechet_distance, rtol=1e-6)
        np.testing.assert_allclose(kpd(*pair, FEW), kernel_distance, rtol=1e-8)


@pytest.mark.filterwarnings("ignore")
def test_the_challenges_estimators_give_what_jetnet_gives():
    evaluation = pytest.importorskip("jetnet.evaluation")
    for pair in pairs_of_features():
        wanted = evaluation.fpd(*pair, min_samples=200, max_samples=1000, num_batches=3)
        np.testing.assert_allclose(fpd(*pair, FEW), wanted, rtol=1e-6)
        wanted = evaluation.kpd(*pair, num_batches=5, batch_size=500)
        np.testing.assert_allclose(kpd(*pair, FEW), wanted, rtol=1e-8)


def test_the_population_distance_takes_the_bias_of_small_samples_away():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4000, 6))
    few = np.mean([frechet(*rng.normal(size=(2, 800, 6))) for _ in range(5)])
    scale = np.abs(a).max() ** 2
    assert abs(frechet_population(a, b)) < 0.3 * few / scale
    shifted = frechet_population(a, b + np.array([1.0, 0, 0, 0, 0, 0]))
    assert shifted == pytest.approx(1 / np.abs(a[:, 0]).max() ** 2, rel=0.1)


def test_drawn_with_replacement_it_is_the_distance_of_the_two_finite_sets():
    a, b = np.random.default_rng(0).normal(size=(2, 500, 6))
    sizes = Sizes(fpd_draws=4)
    finite = frechet(*scaled(a, b))
    assert fpd(a, b, sizes).value == pytest.approx(finite, rel=0.1)
    assert abs(frechet_population(a, b, sizes=sizes)) < 0.5 * finite


def test_a_feature_that_is_only_rounding_is_left_as_it_is():
    real = np.array([[2.0, 1e-17, 0.0], [-4.0, 0.0, 0.0]])
    ours, theirs = scaled(real, np.array([[1.0, 0.5, 0.5]]), 1e-6)
    assert ours.tolist() == [[0.5, 1e-17, 0.0], [-1.0, 0.0, 0.0]]
    assert theirs.tolist() == [[0.25, 0.5, 0.5]]
    ours, theirs = scaled(real, np.array([[1.0, 1e-18, 0.5]]))
    np.testing.assert_allclose(ours, [[0.5, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    np.testing.assert_allclose(theirs, [[0.25, 0.1, 0.5]])


def test_mmd_agrees_with_its_sums():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 3 + 1) ** 4

    within = sum(kernel(x, y) for x, y in itertools.permutations(a, 2)) / 20
    others = sum(kernel(x, y) for x, y in itertools.permutations(b, 2)) / 12
    across = sum(kernel(x, y) for x in a for y in b) / 20
    assert mmd(a, b, block=2) == pytest.approx(within + others - 2 * across, rel=1e-9)


def test_kernel_distances_are_nothing_for_equals_and_something_for_others():
    a, b = np.random.default_rng(0).normal(size=(2, 2000, 4))
    sizes = Sizes(kpd_batch=2000)
    assert abs(kpd(a, b, sizes).value) < 0.01 * kpd(a, b + 1, sizes).value
    assert abs(kernel_population(a, b)) < 0.01 * kernel_population(a, b + 1)
