"""Laws over the table of formats: what is written is read, in any order, or not there at all."""

import errno
import hashlib
import os
import pickle
import resource
import sys

import h5py
import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.events import Events, Primaries, load
from caloforge.io import (
    FORMATS,
    FileSource,
    NoResponsesError,
    convert,
    create,
    formats,
    open_data,
    open_events,
    open_particles,
    open_primaries,
    provenance,
    sha256,
    source,
)

WRITTEN = [suffix for suffix, kind in FORMATS.items() if kind.output]
EVENT_FORMATS = [suffix for suffix, kind in FORMATS.items() if kind.open_events]
PARTICLE_ARRAYS = ("conditions", "pdg", "group", "fold")


def same(got, wanted):
    assert got.detector.name == wanted.detector.name
    for name in PARTICLE_ARRAYS:
        a, b = getattr(got, name), getattr(wanted, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)
    if isinstance(wanted, Events):
        assert got.responses.dtype == wanted.responses.dtype
        np.testing.assert_array_equal(got.responses, wanted.responses)


def write(path, events, facts=None):
    with create(path, events.detector, facts) as writer:
        writer.append(events)
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(formats, "BUFFERED_ROWS", 3)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("detector", [ZN, ZP], ids=lambda detector: detector.name)
@pytest.mark.parametrize("suffix", EVENT_FORMATS)
def test_events_written_are_read(tmp_path, make_events, suffix, detector, whole):
    events = make_events(detector, whole=whole)
    path = write(tmp_path / f"events{suffix}", events, {"seed": 3, "run": {"name": "a"}})
    assert os.listdir(tmp_path) == [path.name]
    same(load(open_events(path)), events)
    same(load(open_events(path, detector)), events)
    same(open_primaries(path), events.primaries)
    assert isinstance(open_primaries(path), Primaries)
    assert not isinstance(open_primaries(path), Events)
    assert provenance(path) == {"seed": 3, "run": {"name": "a"}}


@pytest.mark.parametrize("suffix", WRITTEN)
def test_particles_alone_written_are_read(tmp_path, events, suffix):
    path = write(tmp_path / f"primaries{suffix}", events.primaries, {"seed": 3})
    same(open_primaries(path, ZN), events.primaries)
    same(open_data(path, ZN), events.primaries)
    with pytest.raises(NoResponsesError, match=r"primaries\.\w+: .*(no responses|no .* 'responses')"):
        open_events(path, ZN)


@pytest.mark.parametrize("suffix", EVENT_FORMATS)
@pytest.mark.parametrize(
    "rows",
    [
        slice(2, 9),
        slice(None, None, 3),
        slice(None, None, -1),
        slice(4, 4),
        slice(15, 100),
        np.array([7, 0, 19, 7, 3, 3, 12]),
        np.array([5]),
        np.array([8, 9, 10]),
        np.array([], int),
    ],
    ids=str,
)
@pytest.mark.usefixtures("small_blocks")
def test_rows_are_read_as_numpy_indexes(tmp_path, make_events, suffix, rows):
    events = make_events(rows=20)
    path = tmp_path / f"events{suffix}"
    with create(path, ZN) as writer:
        for start in range(0, 20, 4):
            writer.append(events.slices(slice(start, start + 4)))
    source = open_events(path)
    assert len(source) == 20
    for reader in (source, pickle.loads(pickle.dumps(source))):
        same(reader.slices(rows), events.slices(rows))
    same(pickle.loads(pickle.dumps(source)).slices(rows), events.slices(rows))  # opened before, closed there


@pytest.mark.parametrize("suffix", [suffix for suffix in EVENT_FORMATS if suffix != ".npz"])
def test_files_stay_closed_until_rows_are_read_and_survive_a_change_of_folder(
    tmp_path, events, suffix, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / f"events{suffix}", events)
    source = open_events(f"events{suffix}")
    assert isinstance(source, FileSource)
    monkeypatch.chdir("/")
    same(source.slices(np.array([3, 1])), events.slices(np.array([3, 1])))


@pytest.mark.parametrize("suffix", EVENT_FORMATS)
@pytest.mark.usefixtures("small_blocks")
def test_counts_widen_when_later_cells_do_not_fit(tmp_path, make_events, suffix):
    counts, fractions = make_events(rows=4), make_events(rows=4, seed=1, whole=False)
    path = tmp_path / f"events{suffix}"
    with create(path, ZN, {"seed": 1}) as writer:
        for events in (counts, fractions, counts):
            writer.append(events)
    assert os.listdir(tmp_path) == [path.name]
    wanted = np.concatenate([counts.responses, fractions.responses, counts.responses])
    got = load(open_events(path)).responses
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)
    assert provenance(path) == {"seed": 1}


@pytest.mark.parametrize(("value", "dtype"), [(65_535, np.uint16), (65_536, np.float32), (0.5, np.float32)])
def test_type_of_the_cells_goes_by_their_values(tmp_path, events, value, dtype):
    responses = events.responses.astype(np.float64)
    responses[3, 7, 8] = value
    path = write(tmp_path / "events.h5", Events(ZN, events.conditions, events.pdg, responses=responses))
    got = load(open_events(path)).responses
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, responses)


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("flushed", [True, False])
def test_an_error_in_the_block_leaves_nothing_and_the_old_file(
    tmp_path, events, suffix, flushed, monkeypatch
):
    monkeypatch.setattr(formats, "BUFFERED_ROWS", 1 if flushed else 1000)
    path = tmp_path / f"events{suffix}"
    path.write_text("old")

    def interrupted():
        with create(path, ZN) as writer:
            writer.append(events)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "old"


def test_an_error_of_the_block_is_not_mistaken_for_one_of_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^no file elsewhere$"), create(tmp_path / "a.h5", ZN):
        raise FileNotFoundError("no file elsewhere")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_full_disk_leaves_nothing(tmp_path, make_events, suffix, monkeypatch):
    monkeypatch.setattr(formats, "BUFFERED_ROWS", 100)
    events = make_events(rows=100, whole=False)
    path = tmp_path / f"events{suffix}"

    def fill():
        with create(path, ZN) as writer:
            for _ in range(4):
                writer.append(events)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=rf"cannot write .*events{suffix}, nothing is left of it: .*too large"
        ):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/a.h5", "no folder .*nowhere"),
        ("a_file/a.h5", "no folder .*a_file"),
        ("a_folder.h5", "is a folder"),
        (
            "a.hdf",
            "no format '.hdf'; there are .h5, .hdf5, .npz, .parquet, .root, .hepmc, .hepmc3, .csv, "
            "did you mean '.hdf5'",
        ),
        ("a", "no format ''"),
    ],
)
def test_targets_that_cannot_be_written_are_refused_before_the_work(tmp_path, name, message):
    (tmp_path / "a_file").touch()
    (tmp_path / "a_folder.h5").mkdir()
    with pytest.raises(ValueError, match=message), create(tmp_path / name, ZN):
        pytest.fail("the block must not start")


def test_an_unwritable_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(ValueError, match=r"cannot write .*Permission denied"), create(tmp_path / "a.h5", ZN):
        pytest.fail("the block must not start")


def append(path, *parts):
    with create(path, ZN) as writer:
        for part in parts:
            writer.append(part)


def test_writers_refuse_what_does_not_belong(tmp_path, events, make_events):
    path = tmp_path / "a.h5"
    with pytest.raises(ValueError, match=r"a\.h5 is for zn, got events of zp"):
        append(path, make_events(ZP))
    with pytest.raises(ValueError, match="no events"):
        append(path)
    with pytest.raises(ValueError, match="with create"):
        create(path, ZN).append(events)
    with pytest.raises(TypeError, match="JSON"):
        create(path, ZN, {"path": path})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rows", [3, 1000])
@pytest.mark.parametrize("events_first", [True, False])
def test_writers_refuse_events_and_particles_in_one_file(tmp_path, events, rows, events_first, monkeypatch):
    monkeypatch.setattr(formats, "BUFFERED_ROWS", rows)
    parts = (events, events.primaries) if events_first else (events.primaries, events)
    with pytest.raises(ValueError, match="either events or particles alone"):
        append(tmp_path / "a.h5", *parts)
    assert os.listdir(tmp_path) == []


def test_a_writer_copies_what_it_is_given(tmp_path, events):
    responses = events.responses.copy()
    with create(tmp_path / "a.h5", ZN) as writer:
        writer.append(Events(ZN, events.conditions, events.pdg, responses=responses))
        responses[:] = 0
    np.testing.assert_array_equal(load(open_events(tmp_path / "a.h5")).responses, events.responses)


@pytest.mark.parametrize("suffix", EVENT_FORMATS)
def test_files_of_another_detector_are_refused(tmp_path, make_events, suffix):
    path = write(tmp_path / f"events{suffix}", make_events(ZP))
    for opened in (open_events, open_primaries):
        with pytest.raises(ValueError, match=rf"events{suffix}: the file is of detector zp, wanted zn"):
            opened(path, ZN)


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("content", [b"", b"# nothing of any format\n" * 40])
def test_files_of_no_format_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.\w+: (the file is empty|truncated, or not|no column)"):
        open_primaries(path, ZN)
    with pytest.raises(ValueError, match=rf"broken{suffix}"):
        open_events(path, ZN)


@pytest.mark.parametrize("suffix", EVENT_FORMATS)
def test_truncated_files_are_refused(tmp_path, make_events, suffix):
    path = write(tmp_path / f"broken{suffix}", make_events(rows=20))
    content = path.read_bytes()
    for part in (0.2, 0.6, 0.99):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(ValueError, match=rf"broken{suffix}: .*(truncated|damaged)"):
            load(open_events(path))


@pytest.mark.parametrize("suffix", WRITTEN)
def test_particles_are_read_by_rows(tmp_path, make_events, small_blocks, monkeypatch, suffix):
    monkeypatch.setattr(source, "SLICE", 7)
    events = make_events(rows=20)
    path = write(tmp_path / f"events{suffix}", events)
    particles = open_particles(path, ZN)
    assert (len(particles), particles.detector.name) == (20, "zn")
    for start in (0, 5, 10, 3):  # on, and back
        same(particles.select(slice(start, start + 5)), events.primaries.select(slice(start, start + 5)))
    same(particles.select(np.array([9, 4, 6])), events.primaries.select(np.array([9, 4, 6])))
    assert len(particles.select(slice(20, 30))) == 0


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_unique_particles_have_one_number_however_far_apart(tmp_path, make_events, monkeypatch, suffix):
    monkeypatch.setattr(source, "SLICE", 3)
    some = make_events(rows=4).primaries
    kind = np.array([0, 1, 2, 3, 2, 0, 1])
    again = some.select(kind)
    path = write(tmp_path / f"particles{suffix}", again)
    if suffix == ".h5":
        with h5py.File(path, "a") as file:
            del file["group"]
    else:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        column = lines[0].index("group")
        path.write_text("\n".join(",".join(line[:column] + line[column + 1 :]) for line in lines))
    particles = open_particles(path, ZN)
    group = np.concatenate([particles.select(slice(start, start + 2)).group for start in range(0, 7, 2)])
    np.testing.assert_array_equal(group[:, None] == group, kind[:, None] == kind)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_broken_particle_is_named_by_its_row_in_the_file(tmp_path, make_events, monkeypatch, suffix):
    monkeypatch.setattr(source, "SLICE", 4)
    events = make_events(rows=12).primaries
    events.conditions[9, 0] = 1e-3  # less than the momentum
    path = write(tmp_path / f"particles{suffix}", events)
    with pytest.raises(ValueError, match=rf"particles{suffix}: energy must be .* in row 9"):
        open_particles(path, ZN)


@pytest.mark.parametrize("function", [open_events, open_primaries, open_data, provenance])
def test_files_that_are_not_there(tmp_path, function):
    with pytest.raises(FileNotFoundError, match=r"no file .*nothing\.h5"):
        function(tmp_path / "nothing.h5")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(ValueError, match=r"folder\.h5 is a folder"):
        function(tmp_path / "folder.h5")
    with pytest.raises(ValueError, match=r"no format '.pkl'; there are \.h5"):
        function(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".parquet", "pyarrow.parquet", "parquet"), (".root", "uproot", "root")]
)
def test_a_missing_package_is_named(tmp_path, events, suffix, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'caloforge\[{extra}\]'"):
        write(tmp_path / f"a{suffix}", events)
    assert os.listdir(tmp_path) == []
    (tmp_path / f"a{suffix}").write_text("something")
    with pytest.raises(ImportError, match=rf"pip install 'caloforge\[{extra}\]'"):
        open_events(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", EVENT_FORMATS)
def test_events_survive_conversion_there_and_back(tmp_path, events, suffix, monkeypatch):
    monkeypatch.setattr(formats, "SLICE", 3)
    first = write(tmp_path / "first.h5", events, {"seed": 1})
    seen = []
    assert convert(first, tmp_path / f"second{suffix}", progress=seen.append) == len(events)
    assert seen == [3, 6, 8]
    assert convert(tmp_path / f"second{suffix}", tmp_path / "third.h5") == len(events)
    same(load(open_events(tmp_path / "third.h5")), events)
    origin = provenance(tmp_path / "third.h5")["converted_from"]
    assert origin["name"] == f"second{suffix}"
    assert origin["provenance"]["converted_from"]["sha256"] == sha256(first)
    assert origin["provenance"]["converted_from"]["provenance"] == {"seed": 1}


@pytest.mark.parametrize("suffix", WRITTEN)
def test_particles_alone_survive_conversion(tmp_path, events, suffix):
    first = write(tmp_path / f"first{suffix}", events.primaries)
    assert convert(first, tmp_path / "second.h5", ZN) == len(events)
    same(open_primaries(tmp_path / "second.h5"), events.primaries)


def test_a_broken_row_stops_a_conversion_and_leaves_nothing(tmp_path, events, monkeypatch):
    import h5py

    monkeypatch.setattr(formats, "SLICE", 3)
    path = write(tmp_path / "a.h5", events)
    responses = events.responses.astype(np.float32)
    responses[7, 1, 2] = np.nan
    with h5py.File(path, "a") as file:
        del file["responses"]
        file["responses"] = responses
    with pytest.raises(
        ValueError, match=r"a\.h5: responses must be finite and not negative, got nan in row 7"
    ):
        convert(path, tmp_path / "b.parquet")
    assert os.listdir(tmp_path) == ["a.h5"]


def test_sha256_is_the_hash_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
