"""Files of events one after the other."""

import h5py
import numpy as np
import pytest

from caloforge.detectors import ZN, ZP
from caloforge.io import create, merge, open_events, open_primaries, provenance
from made import made_events


def written(path, events, **further):
    with create(path, events.detector, {"from": path.stem}) as writer:
        writer.append(events, further)
    return path


def test_rows_and_further_columns_of_all_in_order(tmp_path):
    parts = [made_events(ZN, seed=seed) for seed in (1, 2)]
    lengths = [len(part) for part in parts]
    columns = [np.arange(lengths[0]) % 2 == 0, np.ones(lengths[1], bool)]
    files = [
        written(tmp_path / name, part, in_domain=column)
        for name, part, column in zip(("a.h5", "b.parquet"), parts, columns, strict=True)
    ]
    out = tmp_path / "out.h5"
    assert merge(files, out) == sum(lengths)
    merged = open_events(out).slices(slice(None))
    np.testing.assert_array_equal(merged.responses, np.concatenate([part.responses for part in parts]))
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["in_domain"], np.concatenate(columns))
    assert [origin["provenance"]["from"] for origin in provenance(out)["merged_from"]] == ["a", "b"]


def test_particles_alone(tmp_path):
    files = [written(tmp_path / f"{seed}.h5", made_events(ZN, seed=seed).primaries) for seed in (1, 2)]
    merge(files, tmp_path / "out.root")
    wanted = np.concatenate([open_primaries(file).conditions for file in files])
    np.testing.assert_array_equal(open_primaries(tmp_path / "out.root").conditions, wanted)


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".parquet", ".root"])
def test_further_columns_survive_wider_counts(tmp_path, suffix):
    """Counts that outgrow their type make the writer begin anew; the further columns come along."""
    events = made_events(ZN, particles=300)
    large = events.responses.astype(np.float32)
    large[-1, 3, 3] = 1e6
    path, sums = tmp_path / f"out{suffix}", np.arange(len(events), dtype=np.float64)
    with create(path, ZN) as writer:
        for start in range(0, len(events), 1100):
            rows = slice(start, start + 1100)
            part = events.slices(rows)
            object.__setattr__(part, "responses", large[rows])
            writer.append(part, {"sum": sums[rows]})
    back = tmp_path / "back.h5"
    merge([path], back)
    assert open_events(back).slices(slice(-1, None)).responses.max() == 1e6
    with h5py.File(back) as file:
        np.testing.assert_array_equal(file["sum"], sums)


def test_what_does_not_fit(tmp_path):
    first, second = (written(tmp_path / f"{d.name}.h5", made_events(d)) for d in (ZN, ZP))
    out = tmp_path / "out.h5"
    with pytest.raises(ValueError, match="is for zn, got events of zp"):
        merge([first, second], out)
    with pytest.raises(ValueError, match="give one file at least"):
        merge([], out)
    with pytest.raises(ValueError, match="further columns must be those of the rows before, none, got extra"):
        merge([first, written(tmp_path / "more.h5", made_events(ZN), extra=np.zeros(48))], out)
    table = tmp_path / "table.csv"
    with create(table, ZN) as writer:
        writer.append(made_events(ZN).primaries)
    with pytest.raises(ValueError, match=r"table\.csv"):
        merge([table], out)
    assert not out.exists()


def test_a_source_is_not_replaced(tmp_path):
    path = tmp_path / "a.h5"
    with create(path, ZN) as writer:
        writer.append(made_events(ZN, particles=3))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is one of the files to merge"):
        merge([path, path], tmp_path / "." / "a.h5")
    assert path.read_bytes() == before


def test_a_foreign_provenance_is_no_shard(tmp_path):
    paths = [tmp_path / name for name in ("a.h5", "b.h5")]
    for path, first in zip(paths, ("ten", None), strict=True):
        with create(path, ZN, {"bundle": "x", "first_event": first}) as writer:
            writer.append(made_events(ZN, particles=3))
    assert merge(paths, tmp_path / "out.h5") == 2 * len(made_events(ZN, particles=3))
