"""Laws of weights, over every metric."""

import dataclasses

import numpy as np
import pytest

from caloforge.events import load
from caloforge.metrics import METRICS, SHOWER_METRICS, Observables, effective_size, wasserstein, weights_of
from caloforge.metrics.showers import Sizes, observe_showers
from caloforge.metrics.showers.scores import compare
from caloforge.metrics.weights import uneven
from made_showers import made_showers

SIZES = Sizes(
    fpd_least=20,
    fpd_largest=60,
    fpd_draws=2,
    kpd_batch=30,
    kpd_batches=2,
    prdc_rows=40,
    splits=2,
    slow_splits=1,
)
PAIRED = ("mae", "mae_sum")
DRAWN = ("fpd", "kpd")


def weighted(observed, weight):
    return dataclasses.replace(observed, primaries=dataclasses.replace(observed.primaries, weight=weight))


def value(name, reference, generated) -> float:
    metric = METRICS[name]
    return metric.function(reference, generated, **({"minimum": 1} if metric.minimum else {})).value


def again(observed, rows) -> Observables:
    """Appends some rows once more."""
    return observed.select(np.concatenate([np.arange(len(observed)), rows]))


@pytest.fixture
def pair(random_observables):
    return random_observables(0), random_observables(1)


@pytest.mark.parametrize("name", METRICS)
def test_weights_of_1_change_nothing(name, pair):
    plain = value(name, *pair)
    for weight in (np.ones(160), np.full(160, 0.3)):
        assert value(name, *(weighted(observed, weight) for observed in pair)) == plain


@pytest.mark.parametrize("name", METRICS)
def test_a_row_twice_is_a_row_of_weight_2(name, pair):
    reference, generated = pair
    rows = np.random.default_rng(0).permutation(160)[:50]
    weight = np.ones(160)
    weight[rows] = 2
    if name in PAIRED:
        expected = value(name, again(reference, rows), again(generated, rows))
    else:
        expected = value(name, reference, again(generated, rows))
    assert value(name, reference, weighted(generated, weight)) == pytest.approx(expected, rel=1e-9)
    if name in PAIRED:
        return
    expected = value(name, again(reference, rows), generated)
    assert value(name, weighted(reference, weight), generated) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_the_rows_says_nothing(name, pair):
    rng = np.random.default_rng(3)
    sets = [weighted(observed, rng.gamma(1, size=160)) for observed in pair]
    order = rng.permutation(160)
    turned = [observed.select(order) for observed in sets]
    assert value(name, *turned) == pytest.approx(value(name, *sets), rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_a_row_of_weight_0_is_none(name, pair):
    reference, generated = pair
    weight = np.random.default_rng(4).gamma(2, size=160)
    weight[::3] = 0
    left = np.flatnonzero(weight)
    expected = value(
        name,
        reference.select(left) if name in PAIRED else reference,
        weighted(generated, weight).select(left),
    )
    assert value(name, reference, weighted(generated, weight)) == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def showers():
    reference, generated = made_showers(rows=60, seed=0), made_showers(rows=60, seed=1)
    first = observe_showers(reference, sizes=SIZES)
    return first, generated, observe_showers(generated, first.edges, SIZES)


def test_the_laws_hold_for_showers(showers):
    reference, events, generated = showers
    plain = compare(reference, generated, 0, SIZES)
    ones = compare(reference, weighted(generated, np.full(60, 7.0)), 0, SIZES)
    assert {name: result.value for name, result in ones.items()} == {
        name: result.value for name, result in plain.items()
    }
    rows, weight = np.arange(0, 60, 3), np.ones(60)
    weight[rows] = 2
    uneven_ones = compare(reference, weighted(generated, weight), 0, SIZES)
    twice = observe_showers(events.slices(np.concatenate([np.arange(60), rows])), reference.edges, SIZES)
    expected = compare(reference, twice, 0, SIZES)
    for name in SHOWER_METRICS:
        if name.startswith("sep_"):
            assert uneven_ones[name].value == pytest.approx(expected[name].value, rel=1e-9)
        elif name.endswith("_population"):
            assert np.isnan(uneven_ones[name].value)
            assert "without replacement" in uneven_ones[name].reason
        elif name in DRAWN:
            assert uneven_ones[name].value != plain[name].value


def test_a_set_of_two_kinds_weighed_to_one_is_that_one(showers):
    """Half of the generated showers are the reference's, the others are not, and weights tell them apart."""
    reference, events, _ = showers
    both = load(events).slices(np.arange(60))
    mixed = observe_showers(both, reference.edges, SIZES)
    weight = np.where(np.arange(60) < 30, 1.0, 1e-12)
    near = compare(mixed.select(np.arange(30)), weighted(mixed, weight), 0, SIZES, slow=False)
    far = compare(mixed.select(np.arange(30)), mixed, 0, SIZES, slow=False)
    assert near["sep_voxels"].value < 1e-6 < far["sep_voxels"].value
    assert near["sep_layers"].value < 1e-6 < far["sep_layers"].value


def test_distance_of_weighted_numbers_by_hand():
    assert wasserstein([0, 1], [0, 1], weight_b=[1, 3]) == pytest.approx(0.25)
    assert wasserstein([0.0], [0, 10], weight_b=[9, 1]) == pytest.approx(1.0)


def test_effective_sample_size_by_hand():
    assert effective_size([1, 1, 1, 1]) == 4
    assert effective_size([3, 1]) == pytest.approx(16 / 10)
    assert effective_size([0, 5, 0]) == 1


@pytest.mark.parametrize(
    ("weight", "message"),
    [([1, -0.5], "at least 0, got -0.5 in row 1"), ([0, 0], "above 0"), ([1, np.nan], "got nan in row 1")],
)
def test_weights_that_are_none_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        uneven(weight)


def test_weights_are_over_their_mean(primaries):
    particles = dataclasses.replace(primaries([0, 1, 2]), weight=np.array([2.0, 4, 6]))
    np.testing.assert_allclose(weights_of(particles), [0.5, 1, 1.5])
    assert weights_of(primaries([0, 1])) is None
