"""Scores of probabilities: right on cases worked by hand, least where the probabilities are the true ones."""

import numpy as np
import pytest

from caloforge.metrics.probability import brier, brier_floor, fraction, reliability, roc_auc


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 1.0, 20_000)
    n = rng.choice([1, 15], len(p))
    return n, rng.binomial(n, p), p


def test_brier_by_hand():
    # one row tried four times with one hit, p = 1/2: all four squares are 1/4; one sure and wrong: 1
    assert brier(np.array([4]), np.array([1]), np.array([0.5])) == 0.25
    assert brier(np.array([4, 1]), np.array([1, 0]), np.array([0.5, 1.0])) == pytest.approx(
        (4 * 0.25 + 1) / 5
    )
    assert brier(np.array([1, 1]), np.array([0, 1]), np.array([0.0, 1.0])) == 0


def test_the_floor_is_the_score_of_the_truth(drawn):
    n, k, p = drawn
    repeated = n > 1
    floor = brier_floor(n, k)
    assert floor == pytest.approx(np.average(p[repeated] * (1 - p[repeated])), rel=0.01)
    assert brier(n[repeated], k[repeated], p[repeated]) == pytest.approx(floor, rel=0.01)
    assert brier(n[repeated], k[repeated], np.clip(p + 0.1, 0, 1)[repeated]) > 1.05 * floor
    assert brier_floor(np.ones(3, int), np.ones(3, int)) is None


def test_auc_by_hand():
    n, k = np.array([1, 1, 1, 1]), np.array([0, 0, 1, 1])
    assert roc_auc(n, k, np.array([0.1, 0.2, 0.3, 0.4])) == 1
    assert roc_auc(n, k, np.array([0.4, 0.3, 0.2, 0.1])) == 0
    assert roc_auc(n, k, np.full(4, 0.5)) == 0.5
    # hits at 3 and 1, misses at 2 and 0: three of four pairs in order
    assert roc_auc(n, np.array([0, 1, 0, 1]), np.array([0.0, 0.1, 0.2, 0.3])) == 0.75
    assert np.isnan(roc_auc(n, np.zeros(4, int), np.linspace(0, 1, 4)))


def test_auc_counts_trials(drawn):
    n, k, p = (values[:300] for values in drawn)
    hit = np.concatenate([np.repeat([1, 0], [a, b - a]) for a, b in zip(k, n, strict=True)])
    single = np.repeat(p, n)
    assert roc_auc(np.ones(len(hit), int), hit, single) == pytest.approx(roc_auc(n, k, p))


def test_fractions_are_within_their_errors_where_the_probabilities_are_true(drawn):
    n, k, p = drawn
    parts = reliability(n, k, p)
    assert sum(part.trials for part in parts) == n.sum()
    assert max(abs(part.pull) for part in parts) < 4
    assert np.sqrt(np.mean([part.pull**2 for part in parts])) == pytest.approx(1, abs=0.5)
    assert abs(fraction(n, k, np.clip(p + 0.02, 0, 1)).pull) > 10


def test_the_scatter_counts_rows_and_not_their_trials():
    once, fifteen = np.ones(400, int), np.full(400, 15)
    p = np.full(400, 0.5)
    hit = np.random.default_rng(0).integers(0, 2, 400)
    single, alike = fraction(once, hit, p), fraction(fifteen, 15 * hit, p)
    assert single.scatter == pytest.approx(single.error)
    assert alike.scatter == pytest.approx(single.scatter)
    assert alike.error == pytest.approx(single.error / np.sqrt(15))


def test_bins_hold_their_edges():
    ones = np.ones(3, int)
    low, high = reliability(ones, np.array([0, 0, 1]), np.array([0.0, 0.25, 1.0]), (0.0, 0.5, 1.0))
    assert (low.trials, low.predicted, low.observed) == (2, 0.125, 0)
    assert (high.trials, high.predicted, high.observed, high.error, high.pull) == (1, 1, 1, 0, 0)
