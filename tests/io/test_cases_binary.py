"""Broken HDF5, Parquet and ROOT files: read equal, or refused in one line; nothing outside the file is read."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from caloforge.detectors import DS2, ZN
from caloforge.events import Events, load
from caloforge.io import convert, create, open_events, open_primaries, provenance
from made import made_events

CASES = Path(__file__).parents[3] / "shared" / "cases"


def made(path, detector=ZN):
    """A small file of events; showers where the detector has layers."""
    with create(path, detector, {"from": "a test"}) as writer:
        writer.append(made_events(particles=6, repeats=2) if detector is ZN else made_showers())
    return path


def made_showers():
    rng = np.random.default_rng(0)
    showers = rng.uniform(0.02, 5, (4, *DS2.shape)).astype(np.float32)
    return Events(DS2, np.full((4, 1), 5000.0), np.full(4, DS2.pdg), responses=showers)


def replaced(file, key, **options):
    del file[key]
    return file.create_dataset(key, **options)


def refused(path, problem):
    with pytest.raises(ValueError, match=problem) as error:
        load(open_events(path))
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


BROKEN = {
    "complex numbers": (
        lambda file: replaced(file, "conditions", data=np.ones((12, 9), complex)),
        "conditions must be numbers",
    ),
    "text": (
        lambda file: replaced(file, "conditions", data=[[b"1"] * 9] * 12, dtype=h5py.string_dtype()),
        "conditions must be numbers",
    ),
    "a compound": (
        lambda file: replaced(file, "pdg", data=np.zeros(12, [("a", int)])), "pdg must be numbers"
    ),
    "a single value": (lambda file: replaced(file, "pdg", data=22), "pdg must have one entry a row"),
    "nothing": (lambda file: replaced(file, "pdg", data=h5py.Empty("i4")), "pdg must have one entry a row"),
    "rows that are not stored": (
        lambda file: replaced(file, "responses", shape=(3_000_000_000, 44, 44), dtype="u2", chunks=(1, 44, 44)),
        "responses declares 11,616,000,000,000 bytes",
    ),
    "a chunk too large": (
        lambda file: replaced(
            file, "responses", data=np.zeros((12, 44, 44)), chunks=(20_000, 44, 44), maxshape=(None, 44, 44),
            compression="gzip",
        ),
        "responses has chunks of shape",
    ),
    "a link in a circle": (lambda file: linked(file, "pdg", h5py.SoftLink("/pdg")), "pdg"),
    "a link to another file": (
        lambda file: linked(file, "responses", h5py.ExternalLink("other.h5", "/responses")),
        "responses is a link to another file",
    ),
    "more than float32": (
        lambda file: replaced(file, "responses", data=np.full((12, 44, 44), 1e300)), "responses must fit float32"
    ),
    "a detector that is a number": (lambda file: file.attrs.update(detector=7), "no detector '7'"),
}  # fmt: skip


def linked(file, key, link):
    del file[key]
    file[key] = link


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_file_of_events_is_refused_in_one_line(tmp_path, name):
    change, problem = BROKEN[name]
    path = made(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    refused(path, problem)


def test_values_that_lie_in_other_files_are_not_read(tmp_path, secret):
    path = made(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        replaced(
            file, "responses", shape=(12, 44, 44), dtype="u2", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        )
    refused(path, "responses keeps its values outside the file")
    layout = h5py.VirtualLayout((12, 44, 44), "u2")
    layout[:] = h5py.VirtualSource(str(tmp_path / "missing.h5"), "responses", (12, 44, 44))
    path = made(tmp_path / "b.h5")
    with h5py.File(path, "r+") as file:
        del file["responses"]
        file.create_virtual_dataset("responses", layout, fillvalue=7)
    refused(path, "responses is a virtual data set")


@pytest.mark.parametrize("key", ["incident_energies", "showers"])
def test_showers_are_checked_likewise(tmp_path, key):
    path = made(tmp_path / "a.h5", DS2)
    with h5py.File(path, "r+") as file:
        replaced(file, key, data=1.0)
    refused(path, f"{key} must have one entry a row")


def test_a_deep_provenance_is_none(tmp_path):
    path = made(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = "[" * 100_000
    assert provenance(path) == {}
    assert convert(path, tmp_path / "b.h5") == 12


@pytest.mark.parametrize("suffix", [".parquet", ".root"])
def test_metadata_of_other_types(tmp_path, suffix, monkeypatch):
    pytest.importorskip({".parquet": "pyarrow", ".root": "uproot"}[suffix])
    real = json.dumps
    for found, problem in (({"detector": 5, "provenance": {}}, "by int"), ({"provenance": 5}, None)):
        monkeypatch.setattr(json, "dumps", lambda value, found=found, **_: real(found))
        path = tmp_path / f"{len(real(found))}{suffix}"
        made(path)
        monkeypatch.undo()
        if problem:
            refused(path, problem)
        else:
            assert provenance(path) == {}
            assert len(open_events(path)) == 12


def test_a_struct_is_no_energy(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(made(tmp_path / "a.parquet"))
    struct = arrow.array([{"a": 1.0}] * 12)
    position = table.schema.names.index("energy")
    parquet.write_table(table.set_column(position, "energy", struct), tmp_path / "b.parquet")
    refused(tmp_path / "b.parquet", "energy")


@pytest.mark.parametrize("jagged", ["energy", "responses"])
def test_entries_of_several_lengths_are_refused(tmp_path, jagged):
    awkward, uproot = pytest.importorskip("awkward"), pytest.importorskip("uproot")
    events = made_events(particles=6, repeats=2)
    columns = dict(zip(ZN.features, events.conditions.T, strict=True))
    columns |= {"pdg": events.pdg, "responses": events.responses}
    columns[jagged] = awkward.Array([[1.0] * (1 + row % 3) for row in range(12)])
    with uproot.recreate(tmp_path / "a.root") as file:
        types = {
            name: np.dtype((value.dtype, value.shape[1:]))
            for name, value in columns.items()
            if name != jagged
        }
        file.mktree("events", {**types, jagged: "var * float64"})
        file["events"].extend(columns)
    with pytest.raises(ValueError, match=jagged) as error:
        load(open_events(tmp_path / "a.root"))
    assert "\n" not in str(error.value)


def cases():
    if not CASES.is_dir():
        return [
            pytest.param("", "", marks=pytest.mark.skip(reason="no ../shared/cases beside this checkout"))
        ]
    with (CASES / "manifest.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        (row["file"], row["wanted"])
        for row in rows
        if row["file"].startswith(("h_", "cc_", "p_", "r_", "n_detrel"))
    ]


@pytest.mark.parametrize(("name", "wanted"), cases())
def test_a_shared_case(tmp_path, name, wanted):
    def whole():
        try:
            events = open_events(CASES / name)
        except ValueError as error:
            if "no key 'responses'" not in str(error) and "no column" not in str(error):
                raise
            open_primaries(CASES / name)
        else:
            events.slices(slice(None))

    def copied():
        convert(CASES / name, tmp_path / "out.h5")

    for read in (whole, copied):
        problem = None
        try:
            read()
        except (ValueError, OSError) as error:
            problem = str(error)
        assert problem is None or "\n" not in problem
        if wanted == "ref":
            assert problem is not None
            assert list(tmp_path.iterdir()) == []
