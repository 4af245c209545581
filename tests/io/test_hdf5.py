"""Broken HDF5 files, each with its message; foreign ones that are fine."""

import h5py
import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.events import load
from caloforge.io import convert, create, hdf5, open_data, open_events, open_primaries, provenance, summarize


@pytest.fixture
def path(tmp_path, events):
    with create(tmp_path / "a.h5", ZN) as writer:
        writer.append(events)
    return tmp_path / "a.h5"


def replaced(file, key, values, **attributes):
    kept = dict(file[key].attrs) | attributes
    del file[key]
    file[key] = values
    file[key].attrs.update(kept)


def cell(value):
    def change(file):
        responses = file["responses"][()].astype(np.float32)
        responses[6, 3, 4] = value
        replaced(file, "responses", responses)

    return change


def condition(row, name, value):
    def change(file):
        file["conditions"][row, ZN.features.index(name)] = value

    return change


def swapped(file):
    file["conditions"].attrs["names"] = ["vx", "energy", *ZN.features[2:]]


def silently_swapped(file):
    replaced(file, "conditions", file["conditions"][()][:, [1, 0, 2, 3, 4, 5, 6, 7, 8]])
    del file["conditions"].attrs["names"]


def lacking(file):
    replaced(file, "conditions", file["conditions"][()][:, :8], names=list(ZN.features[:8]))


def lacking_without_names(file):
    replaced(file, "conditions", file["conditions"][()][:, :8])
    del file["conditions"].attrs["names"]


BROKEN = {
    "image shape": (
        lambda file: replaced(file, "responses", np.zeros((8, 56, 30), np.uint16)),
        r"zn responses must have shape \(N, 44, 44\), got \(N, 56, 30\)",
    ),
    "flat images of another detector": (
        lambda file: replaced(file, "responses", np.zeros((8, 1935), np.uint16)),
        r"zn responses must have shape \(N, 44, 44\), got \(N, 1935\)",
    ),
    "NaN cell": (cell(np.nan), r"responses must be finite and not negative, got nan in row 6"),
    "infinite cell": (cell(np.inf), r"responses must be finite and not negative, got inf in row 6"),
    "negative count": (cell(-1), r"responses must be finite and not negative, got -1\.0 in row 6"),
    "negative integer": (
        lambda file: replaced(file, "responses", file["responses"][()].astype(np.int32) - 1),
        r"responses must be finite and not negative, got -1 in row 0",
    ),
    "NaN condition": (condition(5, "vz", np.nan), r"conditions must be finite, got nan in row 5, vz"),
    "energy below momentum": (condition(3, "energy", 0.01), r"energy .* at least \|p\|.* in row 3"),
    "swapped names": (swapped, r"conditions are swapped or too many: wanted energy, vx, .*; got vx, energy"),
    "swapped columns": (silently_swapped, r"energy must be positive and at least \|p\|.* in row 0"),
    "missing column": (lacking, r"the conditions lack charge: wanted energy, .*; got energy"),
    "missing column, no names": (
        lacking_without_names,
        r"must have shape \(N, 9\): energy, .*; got \(8, 8\)",
    ),
    "misspelt column": (
        lambda file: file["conditions"].attrs.update(names=["enrgy", *ZN.features[1:]]),
        r"lack energy: .* did you mean 'enrgy'",
    ),
    "units": (
        lambda file: file["conditions"].attrs.update(units=["MeV", *file["conditions"].attrs["units"][1:]]),
        r"energy must be in GeV, the file has it in MeV",
    ),
    "short pdg": (
        lambda file: replaced(file, "pdg", file["pdg"][:7]),
        r"columns of different length: conditions 8, pdg 7",
    ),
    "short responses": (
        lambda file: replaced(file, "responses", file["responses"][:7]),
        r"columns of different length: conditions 8, responses 7",
    ),
    "no rows": (
        lambda file: [replaced(file, key, file[key][:0]) for key in list(file)],
        r"the file is empty: it has no rows",
    ),
    "no conditions": (
        lambda file: file.move("conditions", "condition"),
        r"no key 'conditions'; the file has .*, did you mean 'condition'\?",
    ),
    "no pdg": (
        lambda file: file.pop("pdg"),
        r"no column 'pdg'; the file has conditions, fold, group, responses",
    ),
    "misspelt responses": (
        lambda file: file.move("responses", "response"),
        r"no key 'responses'; .* did you mean 'response'\?",
    ),
    "group of datasets": (
        lambda file: (file.pop("pdg"), file.create_group("pdg")),
        r"no key 'pdg'",
    ),
    "fractional pdg": (
        lambda file: replaced(file, "pdg", np.array([22, 22, 0.5, 22, 22, 22, 22, 22])),
        r"pdg must be whole 32-bit numbers, got 0\.5 in row 2",
    ),
    "text in pdg": (lambda file: replaced(file, "pdg", [b"n"] * 8), r"pdg must be numbers, got"),
    "large fold": (
        lambda file: replaced(file, "fold", np.arange(8) * 100),
        r"fold must be whole 8-bit numbers, got 200 in row 2",
    ),
    "unknown detector": (
        lambda file: file.attrs.update(detector="zem"),
        r"no detector 'zem'; there are zn, zp",
    ),
    "other detector": (
        lambda file: file.attrs.update(detector="zp"),
        r"zp responses must have shape \(N, 56, 30\), got \(N, 44, 44\)",
    ),
    "text as responses": (
        lambda file: replaced(file, "responses", np.full((8, 44, 44), b"x")),
        r"responses must be numbers, got",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_the_reason(path, name):
    change, message = BROKEN[name]
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=rf"a\.h5: .*{message}"):
        summarize(open_events(path))
    with pytest.raises(ValueError, match=message):  # a misspelt key is no file of particles alone
        summarize(open_data(path))


def test_a_broken_cell_stops_only_who_reads_its_row_and_is_numbered_in_the_file(path, events):
    with h5py.File(path, "a") as file:
        cell(np.nan)(file)
    source = open_events(path)
    np.testing.assert_array_equal(source.slices(slice(0, 6)).responses, events.responses[:6])
    for rows in (slice(5, 8), slice(6, 7), np.array([7, 6, 0]), slice(None, None, -1)):
        with pytest.raises(ValueError, match="got nan in row 6"):
            source.slices(rows)


def test_damaged_chunks_are_named_by_their_rows(path):
    with h5py.File(path) as file:
        place = file["responses"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 20 : place.byte_offset + place.size - 20] = bytes(place.size - 40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.h5: rows 2 to 4 are damaged"):
        open_events(path).slices(slice(2, 5))


def test_foreign_files_are_read_without_attributes_and_with_more_columns(path, events):
    with h5py.File(path, "a") as file:
        del file.attrs["detector"], file.attrs["provenance"], file["group"], file["fold"]
        del file["conditions"].attrs["names"], file["conditions"].attrs["units"]
        file["trials"] = np.zeros(8)
        replaced(file, "responses", file["responses"][()].astype(np.int64))
    got = load(open_events(path))
    assert got.detector is ZN
    np.testing.assert_array_equal(got.responses, events.responses)
    assert (got.fold == -1).all()
    assert len(np.unique(got.group)) == 8
    assert provenance(path) == {}
    with h5py.File(path, "a") as file:
        file.attrs["provenance"] = "made by hand"
    assert provenance(path) == {}


def test_names_may_be_bytes(path):
    with h5py.File(path, "a") as file:
        file["conditions"].attrs["names"] = np.array([name.encode() for name in ZN.features])
        file.attrs["detector"] = np.bytes_(b"zn")
    assert open_events(path).primaries.detector is ZN


def test_lists_of_primaries_need_the_detector_and_keep_rows_without_trials(path, events):
    with h5py.File(path, "a") as file:
        del file.attrs["detector"], file["responses"]
        file["trials"] = np.arange(8)
    with pytest.raises(ValueError, match=r"a\.h5: the file does not say its detector: give one of zn, zp"):
        open_primaries(path)
    primaries = open_primaries(path, ZP)
    assert len(primaries) == 8
    assert primaries.detector is ZP
    np.testing.assert_array_equal(primaries.conditions, events.conditions)


def test_names_units_and_chunks_are_written(path):
    with h5py.File(path) as file:
        assert file.attrs["detector"] == "zn"
        assert list(file["conditions"].attrs["names"]) == list(ZN.features)
        assert list(file["conditions"].attrs["units"]) == [feature.unit for feature in ZN.conditions]
        assert list(file["responses"].attrs["axes"]) == ["x", "y"]
        assert file["responses"].dtype == np.uint16
        assert file["responses"].compression == "gzip"
        assert file["responses"].chunks[0] * 44 * 44 * 2 <= hdf5.CHUNK_BYTES


def test_scattered_rows_are_read_chunk_by_chunk(tmp_path, make_events, monkeypatch):
    events = make_events(rows=700)
    with create(tmp_path / "a.h5", ZN) as writer:
        writer.append(events)
    source = open_events(tmp_path / "a.h5")
    reads = []
    source.slices(slice(0, 1))
    read = source._read
    monkeypatch.setattr(source, "_read", lambda start, stop: reads.append((start, stop)) or read(start, stop))
    rows = np.array([699, 3, 300, 4, 512, 2, 3])
    np.testing.assert_array_equal(source.slices(rows).responses, events.responses[rows])
    assert reads == [(2, 5), (300, 513), (699, 700)]  # chunks of 270 rows
    reads.clear()
    source.slices(slice(100, 600))
    assert reads == [(100, 600)]


def test_conversion_keeps_a_file_of_particles_alone(path, tmp_path):
    with h5py.File(path, "a") as file:
        del file["responses"]
    assert convert(path, tmp_path / "b.csv") == 8
    assert len(open_primaries(tmp_path / "b.csv", ZN)) == 8


def test_rows_cut_into_many_chunks_have_a_cache_for_all_of_them(tmp_path):
    path = tmp_path / "auto.hdf5"
    numbers = np.random.default_rng(0).random((4, 6480))
    with h5py.File(path, "w") as file:
        showers = file.create_dataset("showers", (782, 6480), np.float64, chunks=(391, 51))
        showers[389:393] = numbers
    read = hdf5.rows_of("showers", path)
    (values,) = (
        cell.cell_contents for cell in read.__closure__ if isinstance(cell.cell_contents, h5py.Dataset)
    )
    slots, size, _ = values.id.get_access_plist().get_chunk_cache()
    assert size == 391 * 51 * 128 * 8 > hdf5.CACHE_BYTES
    assert slots > 128
    np.testing.assert_array_equal(read(388, 393), [np.zeros(6480), *numbers])
