"""The papers' pairs of files, our own archives, and what is wrong with broken ones."""

import pickle

import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.events import load
from caloforge.io import convert, create, open_data, open_events, open_primaries, provenance


@pytest.fixture
def pair(tmp_path, events):
    def write(responses=None, particles=None):
        if responses is None:
            responses = events.responses.astype(np.float32)
        if particles is None:
            particles = np.column_stack([events.conditions.astype(np.float64), events.pdg])
        np.savez(tmp_path / "data_responses_1.npz", responses)
        np.savez(tmp_path / "data_particles_1.npz", particles)
        return tmp_path / "data_responses_1.npz"

    return write


def test_a_pair_is_read_by_its_responses_file(pair, events):
    path = pair()
    got = load(open_events(path))
    assert got.detector is ZN
    np.testing.assert_array_equal(got.conditions, events.conditions)
    np.testing.assert_array_equal(got.pdg, events.pdg)
    np.testing.assert_array_equal(got.responses, events.responses)
    assert got.responses.dtype == np.uint16
    assert (got.fold == -1).all()
    assert provenance(path) == {}
    np.testing.assert_array_equal(open_primaries(path).conditions, events.conditions)


def test_the_particles_file_is_a_list_of_primaries(pair, events):
    path = pair().with_name("data_particles_1.npz")
    np.testing.assert_array_equal(open_primaries(path, ZP).conditions, events.conditions)
    with pytest.raises(ValueError, match="does not say its detector"):
        open_primaries(path)


def test_the_same_particle_has_the_same_group(pair, make_events):
    events = make_events(rows=4)
    particles = np.column_stack([events.conditions, events.pdg])[[0, 1, 0, 2, 1]]
    group = open_events(pair(events.responses[[0, 1, 2, 3, 0]], particles)).primaries.group
    assert group[0] == group[2]
    assert group[1] == group[4]
    assert len(np.unique(group)) == 3


def test_images_tell_the_detector(pair, make_events):
    assert open_events(pair(make_events(ZP).responses)).primaries.detector is ZP


def test_a_pair_with_other_names_is_converted(tmp_path, pair, events):
    (tmp_path / "images.npz").write_bytes(pair().read_bytes())
    (tmp_path / "table.npz").write_bytes((tmp_path / "data_particles_1.npz").read_bytes())
    with pytest.raises(ValueError, match=r"images\.npz: .*'responses' in its name"):
        convert(tmp_path / "images.npz", tmp_path / "b.h5")
    convert(tmp_path / "images.npz", tmp_path / "b.h5", particles_path=tmp_path / "table.npz")
    np.testing.assert_array_equal(load(open_events(tmp_path / "b.h5")).responses, events.responses)
    with pytest.raises(ValueError, match=r"only a pair of \.npz files"):
        convert(tmp_path / "b.h5", tmp_path / "c.h5", particles_path=tmp_path / "table.npz")


def broken_cell(events, value):
    responses = events.responses.astype(np.float32)
    responses[6, 3, 4] = value
    return responses


PAIRS = {
    "image shape": (
        lambda events: {"responses": np.zeros((8, 44, 43))},
        r"no detector has .*\(44, 43\); .* zn",
    ),
    "no image": (lambda events: {"responses": np.zeros(8)}, r"no detector has responses of shape \(\)"),
    "NaN": (lambda events: {"responses": broken_cell(events, np.nan)}, r"got nan in row 6"),
    "negative": (lambda events: {"responses": broken_cell(events, -2)}, r"not negative, got -2\.0 in row 6"),
    "length": (
        lambda events: {"responses": events.responses[:7]},
        r"different length: particles 8, responses 7",
    ),
    "columns": (
        lambda events: {"particles": np.zeros((8, 9))},
        r"particles must have shape \(N, 10\): energy, .*PDG",
    ),
    "empty": (
        lambda events: {"responses": events.responses[:0], "particles": np.zeros((0, 10))},
        r"particles_1\.npz: the file is empty: it has no rows",
    ),
    "pdg": (
        lambda events: {"particles": np.column_stack([events.conditions, events.pdg + 0.5])},
        r"particles_1\.npz: pdg must be whole 32-bit numbers, got 2\d+\.5 in row 0",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_broken_pairs_are_refused_with_the_reason(pair, events, name):
    arrays, message = PAIRS[name]
    path = pair(**arrays(events))
    with pytest.raises(ValueError, match=rf"data_responses_1\.npz: .*{message}"):
        open_events(path)


def test_a_lost_half_of_a_pair_is_named(pair):
    path = pair()
    path.with_name("data_particles_1.npz").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=r"no file .*data_particles_1\.npz"):
        open_events(path)


def test_pickles_are_never_read(tmp_path, events):
    path = tmp_path / "responses.npz"
    path.write_bytes(pickle.dumps({"responses": [1, 2]}))
    with pytest.raises(ValueError, match=r"responses\.npz: this is a pickle, wanted an npz archive"):
        open_events(path)
    np.savez(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"responses\.npz: an array in it is a pickle"):
        open_events(path)


def test_our_archives_with_lost_or_misspelt_keys(tmp_path, events):
    path = tmp_path / "a.npz"
    arrays = {"conditions": events.conditions, "pdg": events.pdg, "responses": events.responses}
    np.savez(path, **arrays)
    np.testing.assert_array_equal(load(open_events(path)).responses, events.responses)
    np.savez(path, condition=events.conditions, pdg=events.pdg, responses=events.responses)
    with pytest.raises(ValueError, match=r"no key 'conditions'; .* did you mean 'condition'\?"):
        open_events(path)
    np.savez(path, conditions=events.conditions, pdg=events.pdg, response=events.responses)
    with pytest.raises(ValueError, match=r"no key 'responses'; .* did you mean 'response'\?"):
        open_data(path)
    np.savez(path, conditions=events.conditions, responses=events.responses)
    with pytest.raises(ValueError, match="no column 'pdg'"):
        open_events(path)


def test_damaged_archives(tmp_path, events):
    with create(tmp_path / "a.npz", ZN) as writer:
        writer.append(events)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[400:500] = bytes(100)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: truncated or damaged npz archive"):
        open_events(tmp_path / "a.npz")
