"""Tables: CSV for particles (and, to look at, channel sums), Parquet for particles and events.

Columns are found by name: the detector's features, `pdg`, and `group` and `fold` where there are any; others
are ignored. In Parquet a response is a list of its cells in C order, `responses`. Events written as CSV
become the sum over all cells, `total`, and that of each channel of each channel map, `paper_quadrant_1` and
so on: such a file gives back particles, never events.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.columns import PARTICLE_COLUMNS, PLAIN, Layout, columns_needed, no_responses
from caloforge.io.source import (
    NONE_FURTHER,
    Columns,
    FileSource,
    FurtherColumns,
    ParticleRows,
    RangeReader,
    channel_columns,
    check_lengths,
    check_shape,
    detector_of,
    laid_out_primaries,
    parse_provenance,
)

METADATA = b"caloforge"


def _next(lines: Any, default: list[str] | None) -> Any:
    """Returns the next row of a csv reader.

    Raises:
        ValueError: a cell is too large, or the text is no table; the message names the line.
    """
    try:
        return next(lines, default)
    except csv.Error as error:
        raise ValueError(f"line {lines.line_num}: {error}") from error


def _csv_lines(path: Path) -> Iterator[list[str]]:
    """Gives the names of the columns, then the texts of each row."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = [name.strip() for name in _next(lines, [])]
        repeated = [name for place, name in enumerate(names) if name in names[:place]]
        if repeated:
            raise ValueError(f"the first line must name every column once, {repeated[0][:80]!r} stands twice")
        yield names
        row = 0
        while (texts := _next(lines, None)) is not None:
            if texts and len(texts) != len(names):
                raise ValueError(
                    f"row {row} (line {lines.line_num}) has {len(texts)} columns, the first line names {len(names)}"
                )
            if texts:
                yield texts
                row += 1


class _CsvReader:
    """Reads rows of a CSV file; those that follow each other without starting over."""

    def __init__(self, path: Path, detector: Detector, layout: Layout) -> None:
        self._path, self._detector, self._layout = path, detector, layout
        self._lines, self._next = _csv_lines(path), 0
        self.names = next(self._lines)
        self.rows = sum(1 for _ in self._lines)

    def read(self, start: int, stop: int) -> Primaries:
        if start != self._next or start == 0:
            self._lines = islice(_csv_lines(self._path), start + 1, None)
        needed = columns_needed(self._detector, self._layout, self.names)
        numbers = {name: self.names.index(name) for name in needed}
        columns: dict[str, list[float]] = {name: [] for name in numbers}
        # only numbers are kept: one long cell of an ignored column would make every cell as long
        for row, texts in enumerate(islice(self._lines, stop - start), start):
            for name, place in numbers.items():
                try:
                    columns[name].append(float(texts[place]))
                except ValueError:
                    raise ValueError(
                        f"{name} must be a number, got {texts[place][:80]!r} in row {row}"
                    ) from None
        self._next = stop

        def column(name: str) -> NDArray[np.generic]:
            return np.array(columns[name], np.float64)

        return laid_out_primaries(self._detector, self._layout, self.names, column, stop - start)


def open_csv_particles(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> ParticleRows:
    """Opens the particles of a CSV file; its first line names the columns."""
    detector = detector_of(detector, None, None)
    reader = _CsvReader(path, detector, layout)
    return ParticleRows(detector, reader.rows, layout.source("group") in reader.names, reader.read)


def no_provenance(path: Path, layout: Layout = PLAIN) -> dict[str, Any]:
    """Returns an empty mapping: a CSV file has no room for it."""
    return {}


class CsvOutput:
    """Appends particles, and channel sums instead of responses, to a CSV file."""

    def __init__(
        self,
        path: Path,
        detector: Detector,
        provenance: str,
        dtype: type[np.generic] | None,
        further: Mapping[str, np.dtype[Any]] = NONE_FURTHER,
    ) -> None:
        self._detector, self._further = detector, tuple(further)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._lines = csv.writer(self._file, lineterminator="\n")
        sums = [column for name in detector.channels for column in channel_columns(detector, name)]
        self._lines.writerow(
            [*detector.features, *PARTICLE_COLUMNS, *(["total", *sums] if dtype else []), *further]
        )

    def append(self, columns: Columns) -> None:
        """Writes some rows."""
        # the shortest text that reads back as the same number
        parts = [columns["conditions"].astype(str)]
        parts += [columns[name][:, None].astype(str) for name in PARTICLE_COLUMNS]
        if "responses" in columns:
            responses = columns["responses"]
            total = responses.reshape(len(responses), -1).sum(1, dtype=np.float64)[:, None]
            sums = [self._detector.readout(responses, name) for name in self._detector.channels]
            parts += [np.char.mod("%.10g", np.column_stack([total, *sums]))]
        parts += [columns[name][:, None].astype(str) for name in self._further]
        self._lines.writerows(np.column_stack(parts).tolist())

    def finish(self) -> None:
        """Completes the file."""
        self._file.close()

    def abandon(self) -> None:
        """Lets go of the file."""
        self._file.close()


def _open_parquet(path: Path) -> Any:
    parquet, arrow = require("pyarrow.parquet", "parquet"), require("pyarrow", "parquet")
    try:
        return parquet.ParquetFile(path, memory_map=True)
    except (arrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"truncated, or not a Parquet file ({error})") from error


def _metadata(file: Any) -> dict[str, Any]:
    return parse_provenance((file.schema_arrow.metadata or {}).get(METADATA))


def _cells(file: Any, layout: Layout) -> int | None:
    """Returns the cells of a response, None where the file has none."""
    name = layout.source("responses")
    if name not in file.schema_arrow.names:
        return None
    kind = file.schema_arrow.field(name).type
    if hasattr(kind, "list_size"):
        return int(kind.list_size)
    if not hasattr(kind, "value_type"):
        raise ValueError(f"{name} must be lists of cells, got {kind}")
    return len(next(file.iter_batches(1, columns=[name]))[name][0]) if file.metadata.num_rows else 0


def _numbers(table: Any, name: str) -> NDArray[np.generic]:
    """Returns a column of numbers, (N,)."""
    values = np.asarray(table[name].to_numpy(zero_copy_only=False))
    if values.dtype.kind not in "iufb":
        raise ValueError(f"{name} must be numbers, got {table[name].type}")
    return values


def _parquet_particles(file: Any, given: Detector | None, layout: Layout) -> ParticleRows:
    cells = _cells(file, layout)
    detector = detector_of(given, _metadata(file).get("detector"), None if cells is None else (cells,))
    names = file.schema_arrow.names
    columns = columns_needed(detector, layout, names)
    edges = _row_groups(file)
    check_lengths({"every column": int(edges[-1])})

    @lru_cache(1)  # a foreign file may be one row group, which can only be decompressed as a whole
    def groups(first: int, final: int) -> Any:
        return file.read_row_groups(range(first, final + 1), columns=columns)

    def read(start: int, stop: int) -> Primaries:
        first, final = np.searchsorted(edges, [start, stop - 1], side="right") - 1
        table = groups(int(first), int(final)).slice(start - edges[first], stop - start)
        return laid_out_primaries(detector, layout, names, lambda name: _numbers(table, name), stop - start)

    return ParticleRows(detector, int(edges[-1]), layout.source("group") in names, read)


def open_parquet_particles(
    path: Path, detector: Detector | None = None, layout: Layout = PLAIN
) -> ParticleRows:
    """Opens the particles of a Parquet file, with or without responses."""
    return _parquet_particles(_open_parquet(path), detector, layout)


def open_parquet_events(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FileSource:
    """Opens a Parquet file of events; reads its particles."""
    with _open_parquet(path) as file:
        cells = _cells(file, layout)
        if cells is None:
            raise no_responses(layout.source("responses"), file.schema_arrow.names, "column", detector)
        primaries = _parquet_particles(file, detector, layout).all
        check_shape(primaries.detector, (cells,), flat=True)
        edges = _row_groups(file)
    return FileSource(path, primaries, edges, partial(_parquet_reader, layout))


def _row_groups(file: Any) -> NDArray[np.intp]:
    metadata = file.metadata
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return np.cumsum([0, *sizes])


def _parquet_reader(layout: Layout, path: Path) -> RangeReader:
    name = layout.source("responses")
    file = _open_parquet(path)
    arrow = require("pyarrow", "parquet")
    edges = _row_groups(file)
    cells = _cells(file, layout)
    # neighbouring slices often lie in one row group, which can only be decompressed as a whole
    last: dict[int, NDArray[np.generic]] = {}

    def group(number: int) -> NDArray[np.generic]:
        if number not in last:
            column = file.read_row_group(number, columns=[name])[name].combine_chunks()
            rows = len(column)
            lengths = np.full(rows, cells) if hasattr(column.type, "list_size") else np.diff(column.offsets)
            bad = (lengths != cells) | ~column.is_valid().to_numpy(zero_copy_only=False)
            if bad.any():
                row = int(np.argmax(bad))
                got = lengths[row] if column.is_valid()[row].as_py() else "none"
                raise ValueError(f"responses must have {cells} cells, got {got} in row {edges[number] + row}")
            last.clear()
            last[number] = column.flatten().to_numpy(zero_copy_only=False).reshape(rows, cells)
        return last[number]

    def read(start: int, stop: int) -> NDArray[np.generic]:
        first, final = np.searchsorted(edges, [start, stop - 1], side="right") - 1
        try:
            parts = [
                group(number)[max(start - edges[number], 0) : stop - edges[number]]
                for number in range(first, final + 1)
            ]
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"rows {start} to {stop - 1} are damaged ({error})") from error
        return np.concatenate(parts)

    return read


def parquet_provenance(path: Path, layout: Layout = PLAIN) -> dict[str, Any]:
    """Returns what the writer was given; empty for foreign files."""
    with _open_parquet(path) as file:
        origin = _metadata(file).get("provenance")
        return dict(origin) if isinstance(origin, dict) else {}


def parquet_further(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FurtherColumns:
    """Opens the columns of a file that are neither of its particles nor its responses."""
    file = _open_parquet(path)
    detector = _parquet_particles(file, detector, layout).detector
    known = layout.sources_of((*detector.features, *PARTICLE_COLUMNS, "responses"))
    names = tuple(name for name in file.schema_arrow.names if name not in known)
    edges = _row_groups(file)

    def read(start: int, stop: int) -> Columns:
        first, final = np.searchsorted(edges, [start, stop - 1], side="right") - 1
        table = file.read_row_groups(range(first, final + 1), columns=names)
        table = table.slice(start - edges[first], stop - start)
        return {name: table[name].to_numpy(zero_copy_only=False) for name in names}

    return FurtherColumns(names, read)


class ParquetOutput:
    """Appends columns to a Parquet file, a row group each time."""

    def __init__(
        self,
        path: Path,
        detector: Detector,
        provenance: str,
        dtype: type[np.generic] | None,
        further: Mapping[str, np.dtype[Any]] = NONE_FURTHER,
    ) -> None:
        self._further = tuple(further)
        self._arrow = arrow = require("pyarrow", "parquet")
        self._detector, self._dtype = detector, dtype
        fields = [(name, arrow.float32()) for name in detector.features]
        fields += [("pdg", arrow.int32()), ("group", arrow.int32()), ("fold", arrow.int8())]
        if dtype is not None:
            fields += [("responses", arrow.list_(arrow.from_numpy_dtype(dtype), detector.cells))]
        fields += [(name, arrow.from_numpy_dtype(kind)) for name, kind in further.items()]
        text = json.dumps({"detector": detector.name, "provenance": json.loads(provenance)})
        self._schema = arrow.schema(fields, metadata={METADATA: text.encode()})
        self._writer = require("pyarrow.parquet", "parquet").ParquetWriter(
            path, self._schema, compression="zstd"
        )

    def append(self, columns: Columns) -> None:
        """Writes some rows."""
        arrow = self._arrow
        arrays = [arrow.array(np.ascontiguousarray(column)) for column in columns["conditions"].T]
        arrays += [arrow.array(columns[name]) for name in PARTICLE_COLUMNS]
        if "responses" in columns:
            cells = arrow.array(columns["responses"].astype(self._dtype, copy=False).reshape(-1))
            arrays += [arrow.FixedSizeListArray.from_arrays(cells, self._detector.cells)]
        arrays += [arrow.array(columns[name]) for name in self._further]
        self._writer.write_table(arrow.Table.from_arrays(arrays, schema=self._schema))

    def finish(self) -> None:
        """Completes the file."""
        self._writer.close()

    def abandon(self) -> None:
        """Lets go of the file."""
        self._writer.close()
