"""The spectrum of cell contents, event by event, and its upper end.

Cells are counted between edges 2^(k/4), from 2^-6 to 2^20 in the detector's unit: steps of 19 %, the same for every
set, so that the spectra of two sets can be compared and added. The **bright** cells of a set lie at or above its edge
t, the smallest one with at most 0.1 % of the set's cells above it: t is the 99.9 % point, rounded up to an edge. Cells
below the lowest edge count as empty, those above the highest count in the last bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGES: NDArray[np.float64] = 2.0 ** (np.arange(-24, 81) / 4)
"""Lower edges of the bins, in the detector's unit; the last bin has no upper one."""

BRIGHT = 1e-3
"""Share of the lit cells of a set that are bright, at most."""

Spectra = NDArray[np.uint16]
"""Cells by content, (N, len(EDGES)), one row an event."""


def spectra(responses: NDArray[np.generic]) -> Spectra:
    """Counts the cells of each event by their content.

    Args:
        responses: contents in the detector's unit, (N, ...).
    """
    cells = np.asarray(responses).reshape(len(responses), -1)
    row, column = np.nonzero(cells >= EDGES[0])
    place = np.searchsorted(EDGES, cells[row, column], side="right") - 1
    flat = np.bincount(row * len(EDGES) + place, minlength=len(cells) * len(EDGES))
    return np.minimum(flat, 65_535).astype(np.uint16).reshape(len(cells), len(EDGES))


def bright_from(spectrum: NDArray[np.generic]) -> int | None:
    """Returns the number of the first edge above which at most `BRIGHT` of all cells lie; None without cells.

    Args:
        spectrum: cells by content, (len(EDGES),).
    """
    above = np.cumsum(spectrum[::-1].astype(np.int64))[::-1]
    if not above[0]:
        return None
    few = above <= BRIGHT * above[0]
    return int(np.argmax(few)) if few.any() else len(EDGES) - 1


def total(counts: Spectra) -> NDArray[np.int64]:
    """Adds the spectra of all events, (N, B) to (B,)."""
    return np.asarray(counts.sum(axis=0, dtype=np.int64))
