"""The expanded noise: standard normals, independent over dimensions and events, all changed by the least change."""

import numpy as np
import pytest
from scipy import stats

from caloforge.runtime.expansion import SIZE, expand, mix, words

EVENTS, NORMALS = 2000, 500


def given(events=EVENTS, seed=0):
    return np.random.default_rng(seed).standard_normal((events, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def expanded():
    return expand(given(), NORMALS)


def test_mix_is_the_finalizer_of_splitmix64():
    # SplitMix64 from seed 0 gives mix(G), mix(2 G), ...; first two outputs of the published reference program
    golden = np.uint64(0x9E3779B97F4A7C15)
    counter = np.array([1, 2], np.uint64) * golden
    assert [hex(word) for word in mix(counter)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_each_dimension_and_each_event_is_normal(expanded):
    u, normals = expanded
    assert stats.kstest(normals.ravel(), "norm").pvalue > 0.001
    for axis in (0, 1):
        pvalues = [stats.kstest(row, "norm").pvalue for row in np.moveaxis(normals, axis, 0)[:300]]
        assert stats.kstest(pvalues, "uniform").pvalue > 0.001
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert (u > 0).all()


def test_moments_of_the_tails(expanded):
    _, normals = expanded
    n = normals.size
    for limit in (2, 3, 4):
        wanted = 2 * stats.norm.sf(limit)
        assert abs(np.mean(np.abs(normals) > limit) - wanted) < 5 * np.sqrt(wanted / n)


def test_no_correlation_between_dimensions_or_events(expanded):
    u, normals = expanded
    for values in (normals, normals.T, normals**2, normals.T**2):
        matrix = np.corrcoef(values)
        off = matrix[np.triu_indices(len(matrix), 1)] * np.sqrt(values.shape[1])
        assert np.abs(off).max() < 6.5
        assert np.mean(off**2) == pytest.approx(1, abs=0.02)
    with_u = np.corrcoef(np.vstack([u, normals.T]))[0, 1:] * np.sqrt(EVENTS)
    assert np.mean(with_u**2) == pytest.approx(1, abs=0.25)


def test_spectra_are_white(expanded):
    _, normals = expanded
    for values in (normals, normals.T):
        power = np.abs(np.fft.rfft(values, axis=1)[:, 1:-1]) ** 2 / values.shape[1]
        assert stats.kstest(power.ravel(), "expon").pvalue > 0.001
        assert np.abs(power.mean(0) - 1).max() < 6 / np.sqrt(len(values))


def test_cosines_and_sines_are_independent_pairs(expanded):
    _, normals = expanded
    half = NORMALS // 2
    radius = (normals[:, :half] ** 2 + normals[:, half:] ** 2).ravel()
    assert stats.kstest(radius / 2, "expon").pvalue > 0.001


@pytest.mark.parametrize("place", range(SIZE))
def test_the_least_change_of_one_input_changes_everything(place):
    noise = given(50)
    other = noise.copy()
    other[:, place] = np.nextafter(other[:, place], np.float32(np.inf))
    first, second = (words(values, 200) for values in (noise, other))
    flipped = np.bitwise_count(first ^ second).astype(float)
    assert (first != second).all()
    assert flipped.mean() == pytest.approx(32, abs=0.2)  # of 64 bits
    u, normals = expand(noise, 200)
    v, changed = expand(other, 200)
    assert abs(np.corrcoef(normals.ravel(), changed.ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(u, v)[0, 1]) < 0.5


def test_inputs_may_not_be_exchanged():
    noise = given(20)
    assert (words(noise, 5) != words(noise[:, ::-1].copy(), 5)).all()


def test_more_words_are_a_continuation_and_the_uniform_does_not_depend_on_their_number():
    noise = given(20)
    np.testing.assert_array_equal(words(noise, 30)[:, :10], words(noise, 10))
    np.testing.assert_array_equal(expand(noise, 30)[0], expand(noise, 1000)[0])


def test_extreme_inputs():
    noise = np.array([[0.0] * 10, [40.0] * 10, [-40.0] * 10, [1e-38] * 10], np.float32)
    assert np.isfinite(expand(noise, 100)[1]).all()
