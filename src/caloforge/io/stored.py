"""Rows of numbers that are mostly zeros, in a temporary file without a name: for what does not fit into memory.

Published files of showers are compressed in pieces that hold some columns of some hundred rows, so reading a few rows
costs as much as reading all of them, and an epoch in random order many times the whole file. So rows that are needed
more than once are read in order once and kept here, what is not zero of them: a value and its place, 6 bytes where a
row has at most 65,536 numbers.

The file has no name: it is gone when it is closed, or when the process ends, however it ends.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from caloforge.events import Events, EventSource, Joined, Primaries, Rows, in_slices, with_responses

RUN = 256
"""Rows read in one go."""

IN_FILE = 2**27
"""Cells of a source from which a training keeps it in a temporary file."""


class StoredRows:
    """Rows of one width, written in order and read by their numbers.

    Args:
        width: numbers a row.
        dtype: their type.
        folder: where the file lies.

    Raises:
        ValueError: a folder that cannot be written.
    """

    def __init__(self, width: int, dtype: DTypeLike, folder: Path) -> None:
        self.width, self.dtype = width, np.dtype(dtype)
        place = np.uint16 if width <= 2**16 else np.uint32
        self._entry = np.dtype([("value", self.dtype), ("place", place)])
        self._starts = [np.zeros(1, np.int64)]
        self._edges: NDArray[np.int64] | None = None
        try:
            self._file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"cannot write a temporary file in {folder}: {error}") from error
        self.close = weakref.finalize(self, self._file.close)

    def append(self, rows: NDArray[Any]) -> None:
        """Writes some rows, (n, width).

        Raises:
            OSError: the disk is full.
        """
        for start in range(0, len(rows), RUN):
            part = rows[start : start + RUN]
            row, place = np.nonzero(part)
            entries = np.empty(len(row), self._entry)
            entries["value"], entries["place"] = part[row, place], place
            content = entries.tobytes()
            while content:
                content = content[self._file.write(content) :]
            counts = np.bincount(row, minlength=len(part))
            self._starts.append(self._starts[-1][-1] + np.cumsum(counts))
        self._edges = None

    @property
    def _start(self) -> NDArray[np.int64]:
        """The first entry of each row, and the number of entries."""
        if self._edges is None:
            self._edges = np.concatenate(self._starts)
            self._starts = [self._edges]
        return self._edges

    def __len__(self) -> int:
        return len(self._start) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and their width."""
        return len(self), self.width

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return int(self._start[-1]) * self._entry.itemsize

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        """Reads some rows, (n, width), in the order asked for."""
        index = np.arange(len(self))[rows]
        dense = np.zeros((len(index), self.width), self.dtype)
        order = np.argsort(index, kind="stable")
        ranked = index[order]
        breaks = np.flatnonzero(np.diff(ranked) != 1) + 1
        edges = np.unique(np.concatenate([np.arange(0, len(index), RUN), breaks, [len(index)]]))
        for first, last in pairwise(edges):
            numbers = ranked[first:last]
            entries = self._read(int(numbers[0]), int(numbers[-1]) + 1)
            counts = np.diff(self._start[numbers[0] : numbers[-1] + 2])
            dense[np.repeat(order[first:last], counts), entries["place"]] = entries["value"]
        return dense

    def _read(self, first: int, last: int) -> NDArray[Any]:
        """Reads the entries of neighbouring rows."""
        start, stop = (int(edge) * self._entry.itemsize for edge in self._start[[first, last]])
        self._file.seek(start)
        content = self._file.read(stop - start)
        if len(content) != stop - start:
            raise OSError(f"a temporary file is cut: wanted {stop - start} bytes, got {len(content)}")
        return np.frombuffer(content, self._entry)


class StoredSource:
    """Events whose responses are in a temporary file: an `EventSource`.

    Args:
        primaries: the particles.
        responses: the responses, flat.
    """

    def __init__(self, primaries: Primaries, responses: StoredRows) -> None:
        self.primaries, self._responses = primaries, responses

    def __len__(self) -> int:
        return len(self.primaries)

    def slices(self, rows: Rows) -> Events:
        """Reads some rows, in the order asked for."""
        responses = self._responses[rows]
        return with_responses(
            self.primaries.select(rows), responses.reshape(-1, *self.primaries.detector.shape)
        )


def stored(source: EventSource, folder: Path, least: int = IN_FILE) -> EventSource:
    """Copies a large source into a temporary file, energies as float32; a small one is given back as it is.

    Args:
        source: the events.
        folder: where the file lies; the nearest folder above that exists.
        least: cells from which a source is large.
    """
    detector = source.primaries.detector
    if len(source) * detector.cells < least:
        return source
    parts = source.sources if isinstance(source, Joined) else (source,)
    kinds = [part.slices(slice(0, 1)).responses.dtype for part in parts]
    dtype = np.float32 if any(kind.kind == "f" for kind in kinds) else np.result_type(*kinds)
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    rows = StoredRows(detector.cells, dtype, nearest)
    try:
        for events in in_slices(source):
            rows.append(events.responses.reshape(len(events), -1))
    except OSError as error:
        rows.close()
        free = shutil.disk_usage(nearest).free / 1e9
        warnings.warn(
            f"no temporary copy of the responses in {nearest} ({error.strerror}, {free:.1f} GB are free): every epoch "
            "reads the files themselves",
            stacklevel=2,
        )
        return source
    return StoredSource(source.primaries, rows)
