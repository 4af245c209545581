import itertools

import numpy as np
import pytest
from scipy import linalg

from caloforge.metrics.showers import (
    fpd,
    frechet,
    kpd,
)
from caloforge.metrics.showers.frechet import fpd_sizes, mmd, scaled


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


def test_sizes_of_the_frechet_distance():
    sizes = fpd_sizes(100_000)
    assert (len(sizes), sizes[0], sizes[-1]) == (10, 10_000, 50_000)
    np.testing.assert_allclose(np.diff(1 / sizes), (1 / 5e4 - 1 / 1e4) / 9, rtol=1e-2)
    assert fpd_sizes(2000)[[0, -1]].tolist() == [400, 2000]


def test_fpd_takes_the_bias_of_small_samples_away():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4000, 6))
    few = np.mean([frechet(*rng.normal(size=(2, 800, 6))) for _ in range(5)])
    scale = np.abs(a).max() ** 2
    assert abs(fpd(a, b)) < 0.3 * few / scale
    shifted = fpd(a, b + np.array([1.0, 0, 0, 0, 0, 0]))
    assert shifted == pytest.approx(1 / np.abs(a[:, 0]).max() ** 2, rel=0.1)


def test_a_feature_that_is_only_rounding_is_left_as_it_is():
    real = np.array([[2.0, 1e-17], [-4.0, 0.0]])
    ours, theirs = scaled(real, np.array([[1.0, 0.5]]))
    assert ours.tolist() == [[0.5, 1e-17], [-1.0, 0.0]]
    assert theirs.tolist() == [[0.25, 0.5]]


def test_mmd_agrees_with_its_sums():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 3 + 1) ** 4

    within = sum(kernel(x, y) for x, y in itertools.permutations(a, 2)) / 20
    others = sum(kernel(x, y) for x, y in itertools.permutations(b, 2)) / 12
    across = sum(kernel(x, y) for x in a for y in b) / 20
    assert mmd(a, b, block=2) == pytest.approx(within + others - 2 * across, rel=1e-9)


def test_kpd_is_nothing_for_equals_and_something_for_others():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2000, 4))
    assert abs(kpd(a, b)) < 0.01 * kpd(a, b + 1)
