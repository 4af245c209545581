"""Rows in a temporary file."""

import numpy as np
import pytest

from caloforge.detectors import DS2
from caloforge.events import Joined, Selected
from caloforge.io import stored as module
from caloforge.io.stored import StoredRows, stored
from made_showers import made_showers


def sparse(rows, width, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, width)) < 0.1, 1 + 9 * rng.random((rows, width)), 0).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("width", [7, 70_000])
def test_rows_come_back_in_any_order(tmp_path, dtype, width):
    numbers = sparse(600 if width < 100 else 5, width, dtype)
    numbers[3] = 0
    table = StoredRows(width, dtype, tmp_path)
    table.append(numbers[:2])
    table.append(numbers[2:])
    assert table.shape == numbers.shape
    assert table.nbytes == np.count_nonzero(numbers) * (np.dtype(dtype).itemsize + (2 if width < 100 else 4))
    rng = np.random.default_rng(1)
    for rows in (
        slice(None), slice(1, 4), rng.permutation(len(numbers)), np.array([4, 4, 0, 3, 4]), np.empty(0, np.intp),
    ):  # fmt: skip
        read = table[rows]
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, numbers[rows])


def test_nothing_is_left_in_the_folder(tmp_path):
    table = StoredRows(3, np.float32, tmp_path)
    table.append(sparse(50, 3, np.float32))
    assert list(tmp_path.iterdir()) == []
    table.close()
    with pytest.raises(ValueError, match="cannot write a temporary file in"):
        StoredRows(3, np.float32, tmp_path / "nowhere")


def test_a_large_source_is_copied_and_gives_the_same_events(tmp_path):
    source = Joined([made_showers(rows=12), made_showers(rows=9, seed=1)])
    assert stored(source, tmp_path) is source
    copy = stored(source, tmp_path / "not" / "there", least=21 * DS2.cells)
    assert copy is not source
    for rows in (slice(None), np.array([20, 3, 11, 12])):
        ours, theirs = copy.slices(rows), source.slices(rows)
        np.testing.assert_array_equal(ours.responses, theirs.responses)
        np.testing.assert_array_equal(ours.conditions, theirs.conditions)
        np.testing.assert_array_equal(ours.group, theirs.group)
    part = Selected(copy, np.array([5, 2]))
    np.testing.assert_array_equal(part.slices(slice(1, 2)).responses, source.slices(slice(2, 3)).responses)


def test_counts_stay_counts(events, tmp_path):
    copy = stored(events, tmp_path, least=0)
    assert copy.slices(slice(None)).responses.dtype == events.responses.dtype == np.uint16
    np.testing.assert_array_equal(copy.slices(slice(None)).responses, events.responses)


def test_a_full_disk_is_said_and_the_files_are_read(tmp_path, monkeypatch):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.StoredRows, "append", full)
    source = made_showers(rows=4)
    with pytest.warns(UserWarning, match="No space left on device, .* GB are free"):
        assert stored(source, tmp_path, least=0) is source
