import numpy as np
import pytest

from caloforge.metrics.showers.sparse import SparseRows


@pytest.mark.parametrize("width", [9, 70_000])
def test_rows_come_back_as_they_were(width):
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((6, width)) < 0.2, rng.normal(size=(6, width)), 0)
    table = SparseRows(6, width)
    for number in (3, 0, 5, 1, 4):
        table.put(number, rows[number])
    rows[2] = 0
    index = np.array([5, 2, 2, 0])
    assert (len(table), table.shape) == (6, (6, width))
    assert table[index].dtype == np.float32
    np.testing.assert_array_equal(table[index], rows[index].astype(np.float32))
    assert table[index[:0]].shape == (0, width)
