"""Laws of events and splits: checked at construction, equal to NumPy indexing, parts that never overlap."""

import dataclasses

import numpy as np
import pytest

from caloforge.detectors import DS2, DS3, ZN, ZP
from caloforge.events import (
    SLICE,
    SLICE_CELLS,
    Displaced,
    Events,
    Joined,
    Primaries,
    Selected,
    displaced,
    groups_of,
    in_slices,
    load,
    of_particles,
    rows_at_once,
    split,
    with_responses,
)
from caloforge.metrics.conditional import impact

COLUMNS = ("conditions", "pdg", "group", "fold", "responses")
PDG = np.array([22, 2112, 3122])


def make(particles=60, repeats=3, seed=0, detector=ZN):
    """Builds `particles` particles, each `repeats` times, in random order."""
    rng = np.random.default_rng(seed)
    conditions = np.zeros((particles, 9), np.float32)
    conditions[:, 4:7] = rng.normal(size=(particles, 3)) * [0.1, 0.1, 500]
    conditions[:, 1:4] = rng.normal(size=(particles, 3))
    conditions[:, 0] = np.linalg.norm(conditions[:, 4:7].astype(np.float64), axis=1) * 1.001
    group = rng.permutation(np.repeat(np.arange(particles), repeats))
    responses = rng.poisson(0.5, (len(group), *detector.shape)).astype(np.uint16)
    return Events(detector, conditions[group], PDG[group % 3], group, group % 10, responses)


def equal(got, wanted, rows=slice(None)):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name)[rows], err_msg=name)


@pytest.fixture(scope="module")
def events():
    return make()


ROWS = [slice(3, 9), slice(None, None, -2), slice(5, 5), np.array([7, 0, 179, 7]), np.array([], int)]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_slices_are_numpy_indexing(events, rows):
    equal(events.slices(rows), events, rows)
    for name in COLUMNS[:-1]:
        np.testing.assert_array_equal(getattr(events.select(rows), name), getattr(events, name)[rows])
    assert not isinstance(events.select(rows), Events)


@pytest.mark.parametrize("rows", [*ROWS[:-2], np.array([7, 0, 19, 7]), ROWS[-1]], ids=str)
def test_selected_rows_are_counted_within_the_selection(events, rows):
    chosen = np.random.default_rng(1).permutation(180)[:20]
    selected = Selected(events, chosen)
    assert len(selected) == 20
    equal(selected.slices(rows), events, chosen[rows])
    np.testing.assert_array_equal(selected.primaries.conditions, events.conditions[chosen])
    equal(load(Selected(selected, np.array([4, 2]))), events, chosen[[4, 2]])


@pytest.mark.parametrize(
    "rows",
    [slice(None), slice(50, 130, 3), slice(None, None, -1), np.array([179, 0, 60, 59, 60]), ROWS[-1]],
    ids=str,
)
def test_joined_sources_are_one_after_the_other(events, rows):
    parts = [events.slices(slice(0, 60)), Selected(events, np.arange(60, 61)), events.slices(slice(61, 180))]
    joined = Joined(parts)
    assert len(joined) == 180
    got = joined.slices(rows)
    for name in ("conditions", "pdg", "fold", "responses"):
        np.testing.assert_array_equal(getattr(got, name), getattr(events, name)[rows], err_msg=name)
    np.testing.assert_array_equal(joined.primaries.pdg, events.pdg)


def test_a_particle_has_one_group_over_all_joined_sources(events):
    other = make(seed=1)  # numbers its own particles from 0 again
    joined = Joined([events, other, events]).primaries
    same = (joined.conditions[:, None] == joined.conditions[None]).all(-1)
    np.testing.assert_array_equal(joined.group[:, None] == joined.group[None], same)


def test_joined_counts_and_fractions_keep_both(events):
    fractions = with_responses(events.primaries, events.responses * np.float32(0.5))
    got = Joined([events, fractions]).slices(np.array([5, 185, 6]))
    np.testing.assert_array_equal(got.responses[0], events.responses[5])
    np.testing.assert_array_equal(got.responses[1], fractions.responses[5])
    np.testing.assert_array_equal(got.responses[2], events.responses[6])


def test_joined_sources_are_of_one_detector(events):
    with pytest.raises(ValueError, match="one detector, got zn, zp"):
        Joined([events, make(2, detector=ZP)])
    with pytest.raises(ValueError, match="one detector, got no data"):
        Joined([])


@pytest.mark.parametrize("size", [1, 7, 180, 1000])
def test_slices_walk_through_a_source_once(events, size):
    parts = list(in_slices(events, size))
    assert all(len(part) <= size for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.responses for part in parts]), events.responses)


# -- splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["canonical", "grouped", "paper"])
@pytest.mark.parametrize("seed", [0, 1, -5])
def test_parts_are_disjoint_cover_all_rows_and_repeat(events, kind, seed):
    parts = split(events, kind, seed)
    assert list(parts) == ["train", "validation", "test"]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(180))
    for name, rows in parts.items():
        assert len(rows) > 0
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(rows, split(events, kind, seed)[name])


@pytest.mark.parametrize("kind", ["canonical", "grouped"])
def test_no_particle_is_in_two_parts(events, kind):
    groups = [set(events.group[rows].tolist()) for rows in split(events, kind).values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_the_split_of_the_papers_shares_particles(events):
    parts = split(events, "paper")
    assert set(events.group[parts["train"]].tolist()) & set(events.group[parts["test"]].tolist())


def test_canonical_parts_are_the_folds(events):
    parts = split(events, "canonical", seed=3)
    assert set(events.fold[parts["test"]].tolist()) == {0, 1}
    assert set(events.fold[parts["validation"]].tolist()) == {2}
    assert set(events.fold[parts["train"]].tolist()) == {3, 4, 5, 6, 7, 8, 9}


def test_canonical_split_needs_folds(events):
    without = Events(ZN, events.conditions, events.pdg, responses=events.responses)
    with pytest.raises(ValueError, match="needs folds"):
        split(without, "canonical")


def test_unknown_split():
    with pytest.raises(ValueError, match="no split 'random'; there are canonical, grouped, paper"):
        split(make(1, 1), "random")


@pytest.mark.parametrize("kind", ["grouped", "paper"])
def test_a_row_keeps_its_part_when_rows_are_sorted_cut_or_stored_otherwise(events, kind):
    def parts_by_row(source, numbers):
        return {int(numbers[row]): part for part, rows in split(source, kind).items() for row in rows}

    wanted = parts_by_row(events, np.arange(180))
    order = np.random.default_rng(2).permutation(180)[:100]
    assert parts_by_row(Selected(events, order), order) == {row: wanted[row] for row in sorted(order)}
    stored = with_responses(events.primaries, events.responses.astype(np.float64))
    assert parts_by_row(stored, np.arange(180)) == wanted
    turned = Joined([events.slices(slice(90, 180)), events.slices(slice(0, 90))])
    assert parts_by_row(turned, np.r_[90:180, 0:90]) == wanted


@pytest.mark.parametrize("kind", ["grouped", "paper"])
def test_seeds_give_other_splits(events, kind):
    assert not np.array_equal(split(events, kind, 0)["test"], split(events, kind, 1)["test"])


@pytest.mark.parametrize("kind", ["grouped", "paper"])
def test_parts_are_70_10_20_within_the_binomial_spread(kind):
    rows = 2000
    conditions = np.zeros((rows, 9))
    conditions[:, 0] = np.arange(1, rows + 1)
    primaries = Primaries(ZN, conditions, np.full(rows, 22))
    parts = split(with_responses(primaries, np.zeros((rows, 44, 44), np.uint8)), kind)
    for part, fraction in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert abs(len(parts[part]) / rows - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / rows)


def test_signed_zeros_do_not_split_a_particle():
    conditions = np.array([[10, 0, 0, 0, 0, 0, 0, 0, 0], [10, -0.0, 0, 0, -0.0, 0, 0, 0, 0]])
    assert len(np.unique(groups_of(conditions, np.array([22, 22])))) == 1
    pair = with_responses(Primaries(ZN, conditions, np.array([22, 22])), np.zeros((2, 44, 44)))
    assert sum(len(rows) > 0 for rows in split(pair, "grouped").values()) == 1


# -- groups and particles ------------------------------------------------------------------------------------


def test_groups_are_particles_with_equal_features_and_pdg_id():
    conditions = np.array([[5.0, 0], [5, 0], [5, 1], [5, 0], [4, 0]])
    group = groups_of(conditions, np.array([22, 22, 22, 2112, 22]))
    assert group.dtype == np.int32
    assert group[0] == group[1]
    assert len(set(group.tolist())) == 4


def test_groups_are_derived_where_not_given(events):
    derived = Primaries(ZN, events.conditions, events.pdg)
    assert len(np.unique(derived.group)) == 60
    for number in np.unique(events.group):
        assert len(np.unique(derived.group[events.group == number])) == 1
    assert (derived.fold == -1).all()


@pytest.mark.parametrize("names", [["n"], ["2112"], ["gamma", "Lambda"]])
def test_particles_are_chosen_by_name(events, names):
    wanted = {"n": [2112], "2112": [2112], "gamma": [22, 3122]}[names[0]]
    chosen = of_particles(events, names)
    rows = np.flatnonzero(np.isin(events.pdg, wanted))
    assert len(chosen) == len(rows) > 0
    equal(load(chosen), events, rows)


def test_no_names_choose_all(events):
    assert of_particles(events, []) is events


# -- what construction refuses -------------------------------------------------------------------------------


def broken(name, value, row=None, column=None):
    def build(events):
        columns = {key: getattr(events, key) for key in COLUMNS}
        if row is None:
            columns[name] = value
        else:
            columns[name] = columns[name].astype(np.float64)
            columns[name][row, column] = value
        return Events(events.detector, **columns)

    return build


REFUSED = {
    "too few features": (
        broken("conditions", np.ones((180, 8))),
        r"shape \(N, 9\): energy, .*; got \(180, 8\)",
    ),
    "flat conditions": (
        broken("conditions", np.ones(9)),
        r"zn conditions must have shape \(N, 9\).*got \(9,\)",
    ),
    "NaN": (broken("conditions", np.nan, 7, 3), "conditions must be finite, got nan in row 7, vz"),
    "infinite": (broken("conditions", np.inf, 7, 0), "conditions must be finite, got inf in row 7, energy"),
    "energy below |p|": (broken("conditions", 1e-3, 7, 0), r"at least \|p\|, got E = 0\.001 GeV .* in row 7"),
    "no energy": (broken("conditions", 0, 7, 0), "energy must be positive .* in row 7"),
    "pdg": (broken("pdg", np.full(179, 22)), r"pdg must have shape \(180,\), one value a row, got \(179,\)"),
    "group": (broken("group", np.zeros((180, 1))), r"group must have shape \(180,\)"),
    "fold": (broken("fold", np.zeros(3)), r"fold must have shape \(180,\)"),
    "image": (
        broken("responses", np.zeros((180, 56, 30))),
        r"zn responses must have shape \(180, 44, 44\).*got \(180, 56, 30\)",
    ),
    "responses short": (
        broken("responses", np.zeros((179, 44, 44))),
        r"shape \(180, 44, 44\), one response for each of the 180 conditions, got \(179, 44, 44\)",
    ),
    "NaN cell": (broken("responses", np.nan, 9, (3, 4)), "responses must be finite, got nan in row 9"),
    "infinite cell": (broken("responses", np.inf, 9, (3, 4)), "responses must be finite, got inf in row 9"),
    "negative cell": (
        broken("responses", -1, 9, (3, 4)),
        "responses must be zero or positive, got -1.0 in row 9",
    ),
    "negative integer": (
        lambda events: with_responses(events.primaries, events.responses.astype(np.int32) - 1),
        "responses must be zero or positive, got -1 in row 0",
    ),
    "text": (broken("responses", np.full((180, 44, 44), "a")), "responses must be numbers, got dtype <U1"),
    "no responses": (broken("responses", None), r"zn responses must have shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_broken_events_are_refused_with_the_reason(events, name):
    build, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build(events)


def test_rounding_of_the_energy_is_no_error(events):
    conditions = events.conditions.copy()
    momentum = np.linalg.norm(conditions[:, 4:7].astype(np.float64), axis=1)
    conditions[:, 0] = (momentum * (1 - 1e-6)).astype(np.float32)
    assert len(Primaries(ZN, conditions, events.pdg)) == 180


def test_columns_get_their_types(events):
    got = Events(
        ZN, events.conditions.astype(np.float64), events.pdg.tolist(), responses=events.responses.tolist()
    )
    assert [getattr(got, name).dtype for name in COLUMNS[:-1]] == [np.float32, np.int32, np.int32, np.int8]
    assert len(got) == len(got.primaries) == 180
    np.testing.assert_array_equal(got.feature("pz"), events.conditions[:, 6])


def test_an_ordered_split_goes_file_by_file(events):
    few = events.slices(slice(0, 48))  # test ceil(9.6) = 10, validation ceil(4.8) = 5
    parts = split(Joined([few, few]), "ordered")
    assert parts["test"].tolist() == [*range(38, 48), *range(86, 96)]
    assert parts["validation"].tolist() == [*range(33, 38), *range(81, 86)]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(96))


def test_large_responses_come_in_fewer_rows():
    assert rows_at_once(ZN) == SLICE
    assert rows_at_once(DS3) * DS3.cells <= SLICE_CELLS


def test_displaced_vertices_keep_impact_and_momentum():
    rng = np.random.default_rng(3)
    momentum = rng.normal(size=(50, 3)) * [0.3, 0.3, 0] + [0, 0, 900]
    momentum[::2, 2] *= -1
    vertex = rng.normal(size=(50, 3)) * [0.1, 0.1, 5]
    energy = np.linalg.norm(momentum, axis=1)
    conditions = np.column_stack([energy, vertex, momentum, np.zeros(50), np.zeros(50)])
    primaries = Primaries(ZP, conditions, np.full(50, 22))
    shifts = rng.normal(size=(50, 3)) * [0.01, 0.01, 6]
    moved = dataclasses.replace(primaries, conditions=displaced(primaries, shifts))
    np.testing.assert_allclose(moved.conditions[:, 1:4], vertex + shifts, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(impact(moved), impact(primaries), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(moved.conditions[:, 4:7], axis=1), energy, rtol=1e-6)
    assert (np.sign(moved.conditions[:, 6]) == np.sign(momentum[:, 2])).all()
    np.testing.assert_array_equal(moved.conditions[:, [0, 7, 8]], primaries.conditions[:, [0, 7, 8]])


def test_a_displaced_source_is_the_same_row_by_row_and_leaves_its_source_alone():
    conditions = np.array([[1000, 0, 0, 0, 0.1, 0, 999, 0.9396, 0]] * 6, np.float32)
    events = Events(ZN, conditions, np.full(6, 2112), responses=np.ones((6, 44, 44)))
    source = Displaced(events, (0.01, 0.01, 6.0), seed=1)
    whole = source.slices(slice(None))
    np.testing.assert_array_equal(whole.conditions, source.primaries.conditions)
    np.testing.assert_array_equal(source.slices(np.array([4, 1])).conditions, whole.conditions[[4, 1]])
    np.testing.assert_array_equal(whole.group, events.group)
    assert len(np.unique(whole.conditions[:, 3])) == 6
    assert (events.conditions == conditions).all()
    other = Displaced(events, (0.01, 0.01, 6.0), seed=2)
    assert not np.array_equal(other.primaries.conditions, whole.conditions)


def test_vertices_are_displaced_before_detectors_with_a_face_only():
    primaries = Primaries(DS2, np.ones((2, 1)), np.full(2, -11))
    with pytest.raises(ValueError, match="displaced vertices need a face"):
        displaced(primaries, np.zeros((2, 3)))
