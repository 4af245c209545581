"""CSV and Parquet: columns by name, sums in CSV, and what is wrong with broken tables."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caloforge.detectors import ZN
from caloforge.events import load
from caloforge.io import create, open_events, open_primaries, provenance, summarize


def table_of(events):
    columns = dict(zip(ZN.features, events.conditions.T, strict=True))
    return {**columns, "pdg": events.pdg, "group": events.group, "fold": events.fold}


def write_csv(path, columns):
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        lines.writerows(zip(*columns.values(), strict=True))
    return path


def test_csv_columns_are_found_by_name(tmp_path, events):
    columns = table_of(events)
    turned = {"note": ["x"] * 8, **dict(reversed(columns.items()))}
    got = open_primaries(write_csv(tmp_path / "a.csv", turned), ZN)
    np.testing.assert_array_equal(got.conditions, events.conditions)
    np.testing.assert_array_equal(got.fold, events.fold)
    del turned["group"], turned["fold"]
    got = open_primaries(write_csv(tmp_path / "a.csv", turned), ZN)
    assert (got.fold == -1).all()
    assert len(np.unique(got.group)) == 8


def test_csv_as_spreadsheets_write_it(tmp_path, events):
    text = write_csv(tmp_path / "a.csv", table_of(events)).read_text()
    (tmp_path / "a.csv").write_text("\ufeff" + text.replace(",", ", ").replace("\n", "\r\n") + "\r\n")
    np.testing.assert_array_equal(open_primaries(tmp_path / "a.csv", ZN).conditions, events.conditions)


def test_csv_of_events_holds_their_sums(tmp_path, events):
    path = tmp_path / "a.csv"
    with create(path, ZN, {"seed": 1}) as writer:
        writer.append(events)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row, response in zip(rows, events.responses, strict=True):
        assert float(row["total"]) == response.sum()
        assert (
            float(row["paper_quadrant_1"])
            == response[:22, :22].ravel()[np.indices((22, 22)).sum(0).ravel() % 2 == 0].sum()
        )
        for name in ("paper", "o2"):
            sums = [float(value) for key, value in row.items() if key.startswith(f"{name}_")]
            assert len(sums) == 5
            assert sum(sums) == response.sum()
    assert provenance(path) == {}
    np.testing.assert_array_equal(open_primaries(path, ZN).conditions, events.conditions)
    with pytest.raises(
        ValueError, match=r"a CSV file holds particles, no responses; wanted one of \.h5, .*\.root"
    ):
        open_events(path)


def without(name):
    return lambda columns: {key: column for key, column in columns.items() if key != name}


def changed(name, row, value):
    def change(columns):
        column = list(columns[name])
        column[row] = value
        return {**columns, name: column}

    return change


def renamed(old, new):
    return lambda columns: {new if key == old else key: column for key, column in columns.items()}


def energy_and_vx_swapped(columns):
    return {**columns, "energy": columns["vx"], "vx": columns["energy"]}


BROKEN = {
    "missing": (without("vz"), r"no column 'vz'; the file has energy, vx, vy, px"),
    "misspelt": (renamed("energy", "enrgy"), r"no column 'energy'; .* did you mean 'enrgy'\?"),
    "no pdg": (without("pdg"), r"no column 'pdg'"),
    "text": (changed("vx", 4, "far"), r"vx must be a number, got 'far' in row 4"),
    "no value": (changed("vx", 4, ""), r"vx must be a number, got '' in row 4"),
    "NaN": (changed("vx", 4, "nan"), r"conditions must be finite, got nan in row 4, vx"),
    "NaN pdg": (changed("pdg", 4, "nan"), r"pdg must be whole 32-bit numbers, got nan in row 4"),
    "fraction": (changed("pdg", 4, 22.5), r"pdg must be whole 32-bit numbers, got 22\.5 in row 4"),
    "swapped": (energy_and_vx_swapped, r"energy must be positive and at least \|p\|.* in row \d"),
    "no rows": (lambda columns: {key: [] for key in columns}, r"the file is empty: it has no rows"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_csv_is_refused_with_the_reason(tmp_path, events, name):
    change, message = BROKEN[name]
    with pytest.raises(ValueError, match=rf"a\.csv: .*{message}"):
        open_primaries(write_csv(tmp_path / "a.csv", change(table_of(events))), ZN)


def test_csv_rows_of_another_length_are_named(tmp_path, events):
    path = write_csv(tmp_path / "a.csv", table_of(events))
    lines = path.read_text().splitlines()
    lines[3] += ",7"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"row 2 \(line 4\) has 13 columns, the first line names 12"):
        open_primaries(path, ZN)


def test_csv_needs_the_detector_and_utf8(tmp_path, events):
    path = write_csv(tmp_path / "a.csv", table_of(events))
    with pytest.raises(ValueError, match=r"a\.csv: the file does not say its detector: give one of zn, zp"):
        open_primaries(path)
    path.write_bytes(b"energy,vx\xff\xfe\n")
    with pytest.raises(ValueError, match=r"a\.csv: .*utf-8"):
        open_primaries(path, ZN)


def write_parquet(path, events, responses=None, **options):
    columns = {name: pa.array(np.ascontiguousarray(column)) for name, column in table_of(events).items()}
    if responses is not None:
        columns["responses"] = responses
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("kind", ["lists", "fixed lists"])
def test_foreign_parquet_holds_lists_of_cells(tmp_path, events, kind):
    flat = events.responses.reshape(8, -1)
    type_ = pa.list_(pa.uint16()) if kind == "lists" else pa.list_(pa.uint16(), 1936)
    path = write_parquet(tmp_path / "a.parquet", events, pa.array(list(flat), type_), row_group_size=3)
    source = open_events(path)
    assert source.primaries.detector is ZN
    for rows in (slice(None), slice(2, 5), np.array([7, 0, 3, 3])):
        np.testing.assert_array_equal(source.slices(rows).responses, events.responses[rows])
    assert provenance(path) == {}


def cells(events, row, value):
    lists = [response.ravel().tolist() for response in events.responses]
    lists[row] = value
    return lists


BROKEN_PARQUET = {
    "length": (lambda events: pa.array(cells(events, 4, [1, 2])), r"must have 1936 cells, got 2 in row 4"),
    "null": (lambda events: pa.array(cells(events, 4, None)), r"must have 1936 cells, got none in row 4"),
    "shape": (
        lambda events: pa.array([[1, 2]] * 8),
        r"no detector has responses of shape \(2,\); there are zn \(44, 44\)",
    ),
    "negative": (
        lambda events: pa.array(cells(events, 5, [-1] * 1936), pa.list_(pa.int32())),
        r"responses must be finite and not negative, got -1 in row 5",
    ),
    "numbers": (lambda events: pa.array([1.0] * 8), r"responses must be lists of cells, got double"),
    "text": (
        lambda events: pa.array([["a"] * 1936] * 8),
        r"responses must be numbers, got",
    ),
}


@pytest.mark.parametrize("name", BROKEN_PARQUET)
def test_broken_parquet_is_refused_with_the_reason(tmp_path, events, name):
    responses, message = BROKEN_PARQUET[name]
    path = write_parquet(tmp_path / "a.parquet", events, responses(events), row_group_size=3)
    with pytest.raises(ValueError, match=rf"a\.parquet: .*{message}"):
        summarize(open_events(path))


def test_parquet_of_another_shape_than_the_detector_wanted(tmp_path, events):
    path = write_parquet(tmp_path / "a.parquet", events, pa.array([[1, 2]] * 8))
    with pytest.raises(ValueError, match=r"zn responses must have shape \(N, 44, 44\), got \(N, 2\)"):
        open_events(path, ZN)


def test_parquet_with_gaps_in_a_column(tmp_path, events):
    columns = {name: pa.array(np.ascontiguousarray(column)) for name, column in table_of(events).items()}
    columns["pdg"] = pa.array([22, None, *[22] * 6])
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"pdg must be whole 32-bit numbers, got nan in row 1"):
        open_primaries(tmp_path / "a.parquet", ZN)


def test_parquet_neighbouring_slices_decompress_a_row_group_once(tmp_path, events, monkeypatch):
    with create(tmp_path / "a.parquet", ZN) as writer:
        writer.append(events)
    source = open_events(tmp_path / "a.parquet")
    calls = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: calls.append(a[1]) or read(*a, **k))
    for start in range(0, 8, 2):
        source.slices(slice(start, start + 2))
    assert calls == [0]
    np.testing.assert_array_equal(load(source).responses, events.responses)
