"""Rows of numbers that are mostly zeros, in memory: what is not zero, and where."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class SparseRows:
    """Rows of one width that are put once, in any order, and read as they were.

    Args:
        rows: their number.
        width: numbers a row, of type float32.
    """

    def __init__(self, rows: int, width: int) -> None:
        self.shape = rows, width
        self._place = np.uint16 if width <= 2**16 else np.uint32
        empty = np.empty(0, np.float32), np.empty(0, self._place)
        self._entries: list[tuple[NDArray[np.float32], NDArray[Any]]] = [empty] * rows

    def __len__(self) -> int:
        return self.shape[0]

    def put(self, row: int, values: NDArray[np.floating]) -> None:
        """Sets a row, (width,)."""
        place = np.flatnonzero(values)
        self._entries[row] = values[place].astype(np.float32), place.astype(self._place)

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns some rows, (n, width)."""
        dense = np.zeros((len(rows), self.shape[1]), np.float32)
        for row, number in zip(dense, rows, strict=True):
            values, place = self._entries[number]
            row[place] = values
        return dense
