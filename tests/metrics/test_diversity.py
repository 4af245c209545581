import numpy as np
import pytest

from caloforge.events import SLICE
from caloforge.metrics import Diversity, f_div, f_div_inv_w


def test_f_div_worked_by_hand(events):
    responses = np.zeros((5, 4, 4), np.uint16)
    responses[[0, 2], 0, 0] = 1, 5  # particle 3: standard deviation 2
    responses[[0, 2], 3, 1] = 10, 16  # and 3
    responses[[1, 3, 4], 2, 2] = 1, 2, 3  # particle 8: sqrt(2 / 3)
    found = f_div(events(responses, [3, 8, 3, 8, 8]), minimum=2)
    np.testing.assert_array_equal(found.group, [3, 8])
    np.testing.assert_array_equal(found.count, [2, 3])
    np.testing.assert_allclose(found.value, [5.0, np.sqrt(2 / 3)])


def test_f_div_over_slices_equals_numpy(events):
    rng = np.random.default_rng(0)
    group = rng.integers(0, 30, SLICE + 700)  # every particle lies in both slices
    group[:5] = 99  # too few responses
    responses = rng.poisson(1 + group[:, None, None] % 7, (len(group), 4, 4))
    found = f_div(events(responses, group))
    np.testing.assert_array_equal(found.group, np.arange(30))
    np.testing.assert_allclose(found.value, [responses[group == c].std(axis=0).sum() for c in range(30)])
    np.testing.assert_array_equal(found.count, np.bincount(group)[:30])


def test_f_div_needs_ten_responses(events):
    responses = np.zeros((19, 4, 4), np.uint16)
    assert f_div(events(responses, np.repeat([1, 2], [9, 10]))).group.tolist() == [2]
    assert len(f_div(events(responses[:9])).group) == 0


def test_weights_worked_by_hand():
    # 1/f: 1, 0.5, 0.25; scaled: 1, 1/3, 0; times |X_c|: 10, 20/3, 0; mean over the 50 responses: 14/3.
    found = f_div_inv_w(Diversity(np.array([1, 2, 3]), np.array([10, 20, 20]), np.array([1.0, 2.0, 4.0])))
    weight = np.array([10, 20 / 3, 0]) + 1e-3 * 14 / 3
    np.testing.assert_allclose(found.value, weight / (14 / 3 * 1.001))
    assert np.average(found.value, weights=found.count) == pytest.approx(1.0)


def test_equal_responses_do_not_flatten_the_other_weights():
    counts = np.array([10, 10, 10])
    found = f_div_inv_w(Diversity(np.arange(3), counts, np.array([0.0, 1.0, 2.0])))
    np.testing.assert_array_equal(found.group, [1, 2])
    assert found.value[0] > 100 * found.value[1] > 0
    rounded = f_div_inv_w(Diversity(np.arange(3), counts, np.array([1e-14, 1.0, 2.0])))
    np.testing.assert_array_equal(rounded.value, found.value)


def test_equal_diversities_weigh_by_occurrence():
    found = f_div_inv_w(Diversity(np.arange(2), np.array([10, 30]), np.array([3.0, 3.0])), epsilon=1e-9)
    assert found.value[1] / found.value[0] == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("value", [[], [0.0]])
def test_weights_need_repeats(value):
    with pytest.raises(ValueError, match="diversity weights need particles with repeated"):
        f_div_inv_w(Diversity(np.arange(len(value)), np.full(len(value), 10), np.array(value)))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive"):
        f_div_inv_w(Diversity(np.arange(1), np.array([10]), np.array([1.0])), epsilon)
