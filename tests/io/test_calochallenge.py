"""Files of the challenge: what is written is what is read, foreign files as they are published, broken ones."""

import re

import h5py
import numpy as np
import pytest

from caloforge.detectors import DS2, DS2_ANGLES, DS3, ZN, from_xml
from caloforge.events import Events, load, split
from caloforge.io import (
    NoResponsesError,
    convert,
    create,
    negative_cells,
    open_data,
    open_events,
    open_to_judge,
    provenance,
    summarize,
)
from made_showers import made_showers, made_showers_with_angles

BINNING = """<Bins><Bin pid="22" name="photon"><Layer id="0" r_edges="0,1,2" n_bin_alpha="1"/>
<Layer id="2" r_edges="0,5,9,12" n_bin_alpha="4"/></Bin></Bins>"""


def published(path, energies=None, showers=None, **more):
    """Writes a file as the challenge's are: two data sets, nothing else."""
    events = made_showers(rows=8)
    energies = events.conditions.astype(float) if energies is None else energies
    showers = events.responses.reshape(8, -1) if showers is None else showers
    with h5py.File(path, "w") as file:
        for name, values in {"incident_energies": energies, "showers": showers, **more}.items():
            if values is not ...:
                file[name] = values
    return path


def test_a_published_file_is_read_as_it_is(tmp_path):
    events = made_showers(rows=8)
    found = load(open_events(published(tmp_path / "dataset_2_1.hdf5")))
    assert found.detector is DS2
    np.testing.assert_array_equal(found.responses, events.responses)
    np.testing.assert_array_equal(found.conditions, events.conditions)
    assert (found.pdg == 11).all()
    assert (found.fold == -1).all()


def test_negative_voxels_are_read_as_0_and_counted_where_showers_are_judged(tmp_path):
    showers = made_showers(rows=8).responses.reshape(8, -1).copy()
    showers[5, 7:10], showers[2, 0] = -1e-6, -30
    path = published(tmp_path / "showers.hdf5", showers=showers)
    with pytest.raises(ValueError, match="finite and not negative, got"):
        load(open_events(path))
    source = open_to_judge(path)
    assert negative_cells(source) == 0
    for rows in (slice(0, 6), [5, 2], slice(0, 8)):
        responses = source.slices(np.arange(8)[rows]).responses.reshape(-1, DS2.cells)
        np.testing.assert_array_equal(responses, np.maximum(showers[rows], 0))
    assert negative_cells(source) == 4
    assert source.negative.tolist() == [0, 0, 1, 0, 0, 3, 0, 0]
    showers[1, 1] = -np.inf
    with pytest.raises(ValueError, match="finite and not negative, got -inf in row 1"):
        load(open_to_judge(published(tmp_path / "broken.hdf5", showers=showers)))


def test_what_is_written_is_what_is_read_and_what_the_challenge_reads(tmp_path):
    events = made_showers()
    with create(tmp_path / "a.h5", DS2, {"from": "here"}) as writer:
        writer.append(events.slices(slice(0, 10)))
        writer.append(events.slices(slice(10, None)))
    found = load(open_events(tmp_path / "a.h5"))
    np.testing.assert_array_equal(found.responses, events.responses)
    np.testing.assert_array_equal(found.conditions, events.conditions)
    assert provenance(tmp_path / "a.h5") == {"from": "here"}
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"incident_energies", "showers"}
        assert file["incident_energies"].shape == (24, 1)
        assert (file["showers"].shape, file["showers"].dtype) == ((24, 6480), np.float32)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".root"])
def test_showers_survive_other_formats(tmp_path, suffix):
    path, back = tmp_path / f"b{suffix}", tmp_path / "c.h5"
    convert(published(tmp_path / "a.hdf5"), path)
    convert(path, back)
    np.testing.assert_array_equal(load(open_events(back)).responses, made_showers(rows=8).responses)


def test_whole_numbers_of_mev_stay_float(tmp_path):
    events = made_showers(rows=4)
    whole = Events(DS2, events.conditions, events.pdg, responses=np.zeros((4, *DS2.shape), np.uint16))
    with create(tmp_path / "a.h5", DS2) as writer:
        writer.append(whole)
        writer.append(events)
    assert load(open_events(tmp_path / "a.h5")).responses.dtype == np.float32


def test_energies_alone_are_primaries(tmp_path):
    path = published(tmp_path / "a.h5", showers=...)
    with pytest.raises(NoResponsesError, match="'showers'"):
        open_events(path, DS2)
    assert len(open_data(path, DS2)) == 8
    events = made_showers(rows=5)
    with create(tmp_path / "b.h5", DS2) as writer:
        writer.append(events.primaries)
    np.testing.assert_array_equal(open_data(tmp_path / "b.h5").conditions, events.conditions)


def test_ragged_showers_need_their_binning(tmp_path):
    binning = tmp_path / "binning.xml"
    binning.write_text(BINNING)
    detector = from_xml(binning)
    showers = np.arange(42, dtype=np.float32).reshape(3, 14)
    path = published(tmp_path / "a.hdf5", np.full((3, 1), 256.0), showers)
    with pytest.raises(ValueError, match=r"no detector has responses of shape \(14,\).*\.xml"):
        open_events(path)
    convert(path, tmp_path / "b.h5", detector)
    found = load(open_events(tmp_path / "b.h5", detector))
    np.testing.assert_array_equal(found.responses, showers)
    np.testing.assert_array_equal(detector.readout(found.responses)[0], [1, sum(range(2, 14))])
    assert summarize(found).energy == (256, 256, 256)


def changed(row, column, value):
    showers = made_showers(rows=8).responses.reshape(8, -1).copy()
    showers[row, column] = value
    return {"showers": showers}


def energy(value, row=3):
    energies = made_showers(rows=8).conditions.astype(float)
    energies[row] = value
    return {"energies": energies}


BROKEN = {
    "a negative voxel": (changed(5, 7, -0.5), "responses must be finite and not negative, got -0.5 in row 5"),
    "not a number": (changed(2, 0, np.nan), "got nan in row 2"),
    "infinite": (changed(7, 6479, np.inf), "got inf in row 7"),
    "no energy": (energy(0.0), r"incident_energy must be positive, got 0.0 in row 3"),
    "negative energy": (energy(-2e3), r"incident_energy must be positive, got -2000.0 in row 3"),
    "energy not finite": (energy(np.nan), "got nan in row 3, incident_energy"),
    "too few energies": (
        {"energies": np.ones((7, 1))},
        "columns of different length: incident_energies 7, showers 8",
    ),
    "energies of two columns": ({"energies": np.ones((8, 2))}, r"must have shape \(N, 1\), got \(8, 2\)"),
    "texts": ({"energies": np.full((8, 1), b"x")}, "incident_energies must be numbers"),
    "voxels of texts": ({"showers": np.full((8, 6480), b"x")}, "showers must be numbers"),
    "other voxels": ({"showers": np.ones((8, 6479))}, r"no detector has responses of shape \(6479,\)"),
    "no rows": ({"energies": np.ones((0, 1)), "showers": np.ones((0, 6480))}, "it has no rows"),
    "misspelt": ({"showers": ..., "shower": np.ones((8, 6480))}, "no key 'showers'.*did you mean 'shower'"),
    "no energies": ({"energies": ...}, "no key 'incident_energies'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_the_row_and_the_reason(tmp_path, name):
    values, message = BROKEN[name]
    path = published(tmp_path / "broken.hdf5", **values)
    with pytest.raises(ValueError, match=message) as error:
        summarize(open_events(path))
    assert re.match(rf"{re.escape(str(path))}: ", str(error.value))


def test_files_of_another_detector_are_refused(tmp_path):
    path = published(tmp_path / "a.hdf5")
    with pytest.raises(ValueError, match=r"ds3 responses must have shape \(N, 45, 50, 18\), got \(N, 6480\)"):
        open_events(path, DS3)
    with pytest.raises(
        ValueError, match=r"no key 'responses'; the file has incident_energies, showers.* --detector zn"
    ):
        open_events(path, ZN)


def test_the_ordered_split_keeps_the_last_fifth_for_the_test(tmp_path):
    source = open_events(published(tmp_path / "a.hdf5"))
    parts = split(source, "ordered")
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [0, 1, 2, 3, 4], "validation": [5], "test": [6, 7],
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".parquet", ".root"])
def test_showers_with_angles_are_read_back(tmp_path, suffix):
    events = made_showers_with_angles(rows=5)
    path = tmp_path / f"angles{suffix}"
    with create(path, events.detector) as writer:
        writer.append(events)
    source = open_events(path)
    assert source.primaries.detector is DS2_ANGLES
    np.testing.assert_array_equal(source.primaries.conditions, events.conditions)
    np.testing.assert_array_equal(source.slices(slice(None)).responses, events.responses)


def test_a_file_of_the_challenge_has_no_angles(tmp_path):
    path = tmp_path / "plain.h5"
    with create(path, DS2) as writer:
        writer.append(made_showers(rows=3))
    with pytest.raises(ValueError, match=r"no key .responses.; the file has incident_energies, showers"):
        open_events(path, DS2_ANGLES)
