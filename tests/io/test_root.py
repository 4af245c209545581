"""ROOT trees of other programs, and what is wrong with broken ones."""

import pickle

import numpy as np
import pytest
import uproot

from caloforge.detectors import ZN
from caloforge.events import load
from caloforge.io import Layout, NoResponsesError, open_events, open_primaries, provenance, summarize


def branches_of(events):
    columns = dict(zip(ZN.features, events.conditions.astype(np.float64).T, strict=True))
    return {**columns, "pdg": events.pdg.astype(np.int64), "responses": events.responses}


def write(path, branches, tree="events"):
    branches = {name: np.ascontiguousarray(branch) for name, branch in branches.items()}
    with uproot.recreate(path) as file:
        out = file.mktree(tree, {name: np.dtype((b.dtype, b.shape[1:])) for name, b in branches.items()})
        for rows in (slice(0, 3), slice(3, 8)):
            out.extend({name: branch[rows] for name, branch in branches.items()})
    return path


@pytest.mark.parametrize("flat", [True, False])
def test_foreign_trees_are_read(tmp_path, events, flat):
    branches = branches_of(events)
    if flat:
        branches["responses"] = branches["responses"].reshape(8, -1)
    branches["weight"] = np.ones(8)
    path = write(tmp_path / "a.root", branches)
    source = open_events(path)
    assert source.primaries.detector is ZN
    assert (source.primaries.fold == -1).all()
    assert provenance(path) == {}
    for rows in (slice(None), slice(2, 5), np.array([7, 0, 3, 3])):
        np.testing.assert_array_equal(source.slices(rows).responses, events.responses[rows])
    np.testing.assert_array_equal(load(source).conditions, events.conditions)


def test_branches_of_our_files_are_one_a_feature(tmp_path, events):
    from caloforge.io import create

    with create(tmp_path / "a.root", ZN) as writer:
        writer.append(events)
    with uproot.open(tmp_path / "a.root") as file:
        tree = file["events"]
        assert tree.keys() == [*ZN.features, "pdg", "group", "fold", "responses"]
        np.testing.assert_array_equal(tree["energy"].array(library="np"), events.feature("energy"))
        assert tree["responses"].array(library="np").shape == (8, 44, 44)


def with_cell(value):
    def change(branches):
        responses = branches["responses"].astype(np.float32)
        responses[6, 3, 4] = value
        return {**branches, "responses": responses}

    return change


def with_condition(name, row, value):
    def change(branches):
        column = branches[name].copy()
        column[row] = value
        return {**branches, name: column}

    return change


BROKEN = {
    "shape": (
        lambda branches: {**branches, "responses": branches["responses"][:, :, :43]},
        r"no detector has responses of shape \(44, 43\)",
    ),
    "scalar": (
        lambda branches: {**branches, "responses": branches["responses"][:, 0, 0]},
        r"no detector has responses of shape \(\)",
    ),
    "NaN": (with_cell(np.nan), r"responses must be finite and not negative, got nan in row 6"),
    "negative": (with_cell(-3), r"responses must be finite and not negative, got -3\.0 in row 6"),
    "NaN condition": (with_condition("vy", 5, np.nan), r"conditions must be finite, got nan in row 5, vy"),
    "energy": (with_condition("energy", 5, 0.0), r"energy must be positive and at least \|p\|.* in row 5"),
    "pdg": (
        lambda branches: {**branches, "pdg": np.full(8, 0.5)},
        r"pdg must be whole 32-bit numbers, got 0\.5 in row 0",
    ),
    "missing": (
        lambda branches: {name: branch for name, branch in branches.items() if name != "vz"},
        r"no column 'vz'; the file has energy",
    ),
    "responses": (
        lambda branches: {"response" if name == "responses" else name: b for name, b in branches.items()},
        r"no branch 'responses'; .* did you mean 'response'\?",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_trees_are_refused_with_the_reason(tmp_path, events, name):
    change, message = BROKEN[name]
    path = write(tmp_path / "a.root", change(branches_of(events)))
    with pytest.raises(ValueError, match=rf"a\.root: .*{message}"):
        summarize(open_events(path))


def test_of_several_trees_the_one_called_events_is_read(tmp_path, events):
    path = write(tmp_path / "a.root", branches_of(events), tree="event")
    np.testing.assert_array_equal(load(open_events(path)).responses, events.responses)  # there is no other
    with uproot.update(path) as file:
        file["run"] = {"number": np.arange(3)}
    with pytest.raises(
        ValueError,
        match=r"no tree 'events'; the file has event, run, did you mean 'event'\? try: .* --tree event",
    ):
        open_events(path)
    layout = Layout(tree="event")
    np.testing.assert_array_equal(load(open_events(path, None, layout)).responses, events.responses)
    with pytest.raises(ValueError, match="no tree 'even'; the file has event, run"):
        open_events(path, None, Layout(tree="even"))


def test_vectors_of_one_length_are_responses(tmp_path, events):
    import awkward as ak

    branches = branches_of(events)
    branches["responses"] = ak.from_regular(ak.Array(branches["responses"].reshape(8, -1).astype(np.float32)))
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file["events"] = branches
    source = pickle.loads(pickle.dumps(open_events(path)))
    for rows in (slice(None), slice(2, 5), np.array([7, 0, 3, 3])):
        np.testing.assert_array_equal(source.slices(rows).responses, events.responses[rows])


def test_a_vector_of_another_length_is_named(tmp_path, events):
    import awkward as ak

    branches = branches_of(events)
    cells = [list(one) for one in branches.pop("responses").reshape(8, -1).astype(np.float32)]
    cells[5] = cells[5][:100]
    with uproot.recreate(tmp_path / "a.root") as file:
        file["events"] = {**branches, "responses": ak.Array(cells)}
    with pytest.raises(ValueError, match=r"a\.root: responses must be .*got 1936 and 100 \(row 5\)"):
        open_events(tmp_path / "a.root")


@pytest.mark.parametrize("vectors", [True, False])
def test_rntuples_are_read(tmp_path, events, vectors):
    import awkward as ak

    branches = branches_of(events)
    responses = branches["responses"].astype(np.float32).reshape(8, -1)
    branches["responses"] = ak.from_regular(ak.Array(responses)) if vectors else responses
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("showers", ak.Array(branches))
    source = open_events(path)
    np.testing.assert_array_equal(source.primaries.conditions, events.conditions)
    for rows in (slice(None), slice(2, 5), np.array([7, 0, 3, 3])):
        np.testing.assert_array_equal(source.slices(rows).responses, events.responses[rows])


def test_empty_trees_are_refused(tmp_path, events):
    path = write(tmp_path / "a.root", {name: branch[:0] for name, branch in branches_of(events).items()})
    with pytest.raises(ValueError, match=r"a\.root: the file is empty: it has no rows"):
        open_events(path)


def test_jagged_responses_are_refused(tmp_path, events):
    import awkward as ak

    with uproot.recreate(tmp_path / "a.root") as file:
        tree = file.mktree("events", {"responses": "var * float32"})
        tree.extend({"responses": ak.Array([[1.0, 2.0], [3.0]])})
    with pytest.raises(ValueError, match=r"a\.root: responses must be arrays of one shape"):
        open_events(tmp_path / "a.root")


def test_trees_of_particles_alone(tmp_path, events):
    branches = branches_of(events)
    del branches["responses"]
    path = write(tmp_path / "a.root", branches)
    np.testing.assert_array_equal(open_primaries(path, ZN).conditions, events.conditions)
    with pytest.raises(NoResponsesError, match="no branch 'responses'"):
        open_events(path, ZN)
