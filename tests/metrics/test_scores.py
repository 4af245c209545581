import dataclasses
import inspect
import json
import math

import numpy as np
import pytest

from caloforge.events import Primaries
from caloforge.metrics import METRICS, Observables, align, floors, score
from caloforge.metrics.scores import MINIMUM_ROWS, SPLITS, halves, pairs

each_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)

FEW = 3


@pytest.fixture(autouse=True)
def _few_splits(monkeypatch):
    monkeypatch.setattr("caloforge.metrics.scores.SPLITS", FEW)


@each_metric
def test_zero_on_itself(metric, random_observables):
    events = random_observables()
    result = metric.function(events, events)
    assert result.value == 0.0
    assert result.reason == ""
    assert result.particles == (4 if metric.minimum else None)


@each_metric
def test_positive_on_another_set(metric, random_observables):
    reference, generated = random_observables(0), random_observables(1)
    if metric.name == "empty":
        generated.channels[::3] = 0
    assert metric.function(reference, generated).value > 0


@each_metric
def test_symmetric_where_it_claims_to_be(metric, random_observables):
    a, b = random_observables(0), random_observables(1)
    if metric.name != "bright_cells":  # its threshold is the reference's
        assert metric.function(a, b).value == pytest.approx(metric.function(b, a).value, rel=1e-12)
    if metric.floor == "halves" or metric.minimum:  # those of rows compare equal rows only
        b = b.select(np.arange(len(b) - 9))  # fewer rows of the last particle
        same = metric.function(a, b).value == pytest.approx(metric.function(b, a).value, rel=1e-12)
        assert same == metric.symmetric


@each_metric
def test_the_order_of_the_rows_does_not_matter(metric, random_observables):
    a, b = random_observables(0), random_observables(1)
    order = np.random.default_rng(0).permutation(len(a))
    shuffled = metric.function(a.select(order), b.select(order)).value
    assert shuffled == pytest.approx(metric.function(a, b).value, rel=1e-12)


@each_metric
def test_particles_that_count_need_a_minimum(metric, random_observables):
    takes = "minimum" in inspect.signature(metric.function).parameters
    assert takes == (metric.minimum > 0)
    if metric.minimum:
        assert inspect.signature(metric.function).parameters["minimum"].default == metric.minimum
        few = random_observables(repeats=metric.minimum // 4)
        result = metric.function(few, few)
        assert math.isnan(result.value)
        assert result.particles == 0
        assert result.reason


@each_metric
def test_every_metric_says_what_it_is(metric):
    assert METRICS[metric.name] is metric
    assert metric.title
    assert metric.formula
    assert metric.function.__doc__


@each_metric
def test_no_rows_give_nan_with_a_reason(metric, random_observables):
    nothing = random_observables().select(np.array([], int))
    result = metric.function(nothing, nothing)
    assert math.isnan(result.value)
    assert result.reason


def test_halves_share_no_row():
    a, b = halves(11, np.random.default_rng(0))
    assert len(a) == len(b) == 5
    assert len(np.unique(np.concatenate([a, b]))) == 10


def test_pairs_are_of_one_particle_and_use_each_row_once():
    group = np.array([5, 1, 5, 2, 1, 5, 1, 1, 9])
    used = np.zeros(len(group), int)
    for seed in range(50):
        a, b = pairs(group, np.random.default_rng(seed))
        np.testing.assert_array_equal(group[a], group[b])
        rows = np.concatenate([a, b])
        assert len(np.unique(rows)) == len(rows) == 6  # two pairs of 1, one of 5
        used[rows] += 1
    assert used[[1, 4, 6, 7]].tolist() == [50] * 4
    assert (used[[0, 2, 5]] > 20).all()  # any of the three may be left out
    assert used[[3, 8]].tolist() == [0, 0]


def test_the_floor_of_mae_is_that_of_two_responses_of_one_particle(observables):
    # Particles answer (0 or 2) and (10 or 14); the third was seen once and has no floor.
    reference = observables([[0], [10], [2], [14], [99]], group=[1, 2, 1, 2, 3])
    values = [result.value for result in floors(reference)["mae"]]
    assert values == [3.0] * SPLITS


def test_the_floor_of_mae_c_splits_the_responses_of_each_particle(observables):
    channels = np.tile([[0.0], [1.0]], (5, 1))
    reference = observables(channels, group=np.zeros(10))
    found = [result.value for result in floors(reference)["mae_c"]]
    assert set(np.round(found, 9)) <= {0.2, 0.6, 1.0}  # five zeros and five ones, split five and five
    nine = floors(reference.select(slice(9)))["mae_c"]
    assert all(math.isnan(result.value) for result in nine)


def test_floors_depend_on_the_seed_only(random_observables):
    reference = random_observables()
    first, again, other = (floors(reference, seed)["w1"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_scores_have_the_shape_of_the_file(random_observables):
    reference = random_observables()
    found = score(reference, [random_observables(1), random_observables(2)])
    assert list(found) == ["all", "gamma", "n"]
    assert (found["all"]["n"], found["all"]["particles"]) == (160, 4)
    assert (found["gamma"]["n"], found["gamma"]["particles"]) == (80, 2)
    assert list(found["all"]["metrics"]) == list(METRICS)
    for name, entry in found["all"]["metrics"].items():
        one, two = entry["values"]
        assert entry["mean"] == pytest.approx((one + two) / 2)
        assert entry["std"] == pytest.approx(abs(one - two) / math.sqrt(2))
        assert (entry["particles"], entry["reason"]) == (4 if METRICS[name].minimum else None, "")
        for floor in (entry["floor"], entry["matched_floor"]):
            assert set(floor) == {"mean", "std", "splits", "note"}
            assert floor["splits"] == FEW
            assert "80 rows" in floor["note"]
    json.dumps(found, allow_nan=False)


def test_scores_are_the_metrics(random_observables):
    reference, generated = random_observables(0), random_observables(1)
    found = score(reference, [generated])
    gammas = reference.primaries.pdg == 22
    for name, metric in METRICS.items():
        assert found["all"]["metrics"][name]["values"] == [metric.function(reference, generated).value]
        of_type = metric.function(reference.select(gammas), generated.select(gammas)).value
        assert found["gamma"]["metrics"][name]["values"] == [of_type]
        assert found["all"]["metrics"][name]["std"] is None  # one repeat has no spread


def test_the_reference_itself_has_its_floor_as_matched_floor(random_observables):
    reference = random_observables()
    for entry in score(reference, [reference, reference])["all"]["metrics"].values():
        assert entry["mean"] == 0.0
        assert entry["matched_floor"]["mean"] == entry["floor"]["mean"]
        assert entry["matched_floor"]["std"] == entry["floor"]["std"]


def test_floors_know_nothing_of_what_was_generated(random_observables):
    reference = random_observables()
    one, two = (score(reference, [random_observables(seed)]) for seed in (1, 2))
    for kind, group in one.items():
        for name, entry in group["metrics"].items():
            assert entry["floor"] == two[kind]["metrics"][name]["floor"]
    w1 = one["all"]["metrics"]["w1"]["floor"]["mean"]
    assert w1 == pytest.approx(np.mean([result.value for result in floors(reference, splits=FEW)["w1"]]))


def test_nan_becomes_none_with_the_reason(random_observables):
    few = random_observables(repeats=18)
    entry = score(few, [few])["all"]["metrics"]["radius_variance_rmse"]
    assert entry == {
        "values": [None],
        "mean": None,
        "std": None,
        "floor": None,
        "matched_floor": None,
        "particles": 0,
        "reason": "no particle has at least 30 responses in both sets",
    }


def test_a_rare_type_is_listed_without_scores(random_observables):
    reference = random_observables()
    keep = np.concatenate([np.flatnonzero(reference.primaries.pdg == 22), [40, 41]])
    rare = reference.select(keep)
    assert MINIMUM_ROWS > 2
    assert score(rare, [rare])["n"] == {
        "n": 2,
        "particles": 1,
        "metrics": {},
        "reason": f"fewer than {MINIMUM_ROWS} rows",
    }


def test_a_readout_is_scored_on_channels_only(random_observables):
    reference, other = random_observables(0), random_observables(1)
    found = score(reference, [Observables(other.primaries, other.channels)])
    wanted = [metric.name for metric in METRICS.values() if metric.needs == "channels"]
    assert list(found["all"]["metrics"]) == wanted
    assert (
        found["all"]["metrics"]["w1"]["floor"] == score(reference, [other])["all"]["metrics"]["w1"]["floor"]
    )


def test_a_generated_file_may_number_its_particles_otherwise(random_observables):
    reference, other = random_observables(0), random_observables(1)
    theirs = dataclasses.replace(other.primaries, group=1000 - other.primaries.group)
    assert score(reference, [dataclasses.replace(other, primaries=theirs)]) == score(reference, [other])


def test_scores_need_matching_events(random_observables):
    reference = random_observables()
    with pytest.raises(ValueError, match="at least one set of generated events"):
        score(reference, [])
    with pytest.raises(ValueError, match="reference's 160 particles, one response each, got 159 rows"):
        score(reference, [reference.select(slice(159))])
    with pytest.raises(ValueError, match=r"must have shape \(160, 5\), got \(160, 4\)"):
        score(reference, [Observables(reference.primaries, reference.channels[:, :4])])


def test_align_names_the_first_row_of_another_particle(primaries, tiny):
    reference = primaries(np.arange(4), energy=[10.0, 20.0, 30.0, 40.0])
    align(reference, primaries(np.arange(4), energy=[10.0, 20.00001, 30.0, 40.0]))
    with pytest.raises(ValueError, match=r"row 2 must be gamma \[30.0, .*, got gamma \[31.0, "):
        align(reference, primaries(np.arange(4), energy=[10.0, 20.0, 31.0, 41.0]))
    with pytest.raises(ValueError, match=r"row 1 must be gamma .*, got n "):
        align(reference, primaries(np.arange(4), energy=[10.0, 20.0, 30.0, 40.0], pdg=[22, 2112, 22, 22]))
    other = dataclasses.replace(tiny, name="other")
    with pytest.raises(ValueError, match="events must be of tiny, got other"):
        align(reference, Primaries(other, reference.conditions, reference.pdg))
