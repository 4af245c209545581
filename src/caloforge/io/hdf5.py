"""HDF5, the format of choice: chunked, compressed, read by rows.

| key | shape, type | meaning |
|---|---|---|
| `conditions` | (N, F) float32 | features; attributes `names` and `units` |
| `pdg` | (N,) int32 | PDG id |
| `group`, `fold` | (N,) int32, int8 | number of the unique particle, fold 0..9; both may be absent |
| `responses` | (N, *shape) uint16 or float32 | cell contents; absent in files of particles alone |
| others | (N,) | such as `in_domain`: particle like those of the training, in files that a bundle generated |

A file of others may have a data set a feature in place of `conditions`; axes of length 1 at the end do not count.

Attributes of the file: `detector`, and `provenance` as JSON. Others are ignored, and kept where files are merged.
"""

from __future__ import annotations

import io
import math
import mmap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import nearest
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.columns import (
    PARTICLE_COLUMNS,
    PLAIN,
    Layout,
    check_names,
    columns_needed,
    missing_columns,
    no_responses,
)
from caloforge.io.source import (
    NONE_FURTHER,
    Columns,
    FileSource,
    FurtherColumns,
    ParticleRows,
    RangeReader,
    block_edges,
    check_features,
    check_lengths,
    check_shape,
    check_stored,
    detector_of,
    laid_out_primaries,
    missing,
    parse_provenance,
    primaries_of,
    without_trailing_ones,
)

CONDITIONS = "conditions"

CHUNK_BYTES = 2**20
CACHE_BYTES = 16 * 2**20
"""A chunk has to fit the cache, or it is decompressed again for every read within it."""

LARGEST_CACHE = 2**28
"""Bytes of the cache of responses whose chunks hold some columns only: all chunks of a row have to fit it."""


HEAP = b"GCOL\x01\x00\x00\x00"
"""How a global heap begins, in which HDF5 keeps texts."""

HEAP_RANGE = 2**26
"""Bytes at either end of a large file in which heaps are looked for."""

ATTRIBUTES = (b"detector\x00", b"provenance\x00", b"names\x00", b"units\x00")
"""Attributes that are read, as an object's header has their names."""

ATTRIBUTE_HEAD = 96
"""Bytes behind its name in which an attribute has its type and shape, and then its texts."""


def _check_heaps(path: Path) -> None:
    """Looks at the texts of attributes before the HDF5 library does, which walks or allocates for ever where they lie.

    Raises:
        ValueError: a heap declares more than it holds, or an attribute a text that no heap has.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        ranges = [(0, len(content))]
        if len(content) > 4 * HEAP_RANGE:
            ranges = [(0, HEAP_RANGE), (len(content) - HEAP_RANGE, len(content))]
        heaps: dict[int, dict[int, int]] = {}
        for first, last in ranges:
            start = content.find(HEAP, first, last)
            while start >= 0:
                heaps[start] = _sizes(content, start)
                start = content.find(HEAP, start + 8, last)
        for first, last in ranges:
            for name in ATTRIBUTES:
                start = content.find(name, first, last)
                while start >= 0:
                    _check_texts(content, start + len(name), heaps)
                    start = content.find(name, start + 1, last)


def _sizes(content: mmap.mmap, start: int) -> dict[int, int]:
    """Returns the sizes of a heap's objects by their index."""
    stop = min(start + _number(content, start + 8, 8), len(content))
    position, sizes = start + 16, {}
    while stop - position >= 16:
        index, declared = _number(content, position, 2), _number(content, position + 8, 8)
        step = 16 + -(-declared // 8) * 8 if index else declared
        if step < 16 or position + step > stop:
            raise ValueError("damaged: a text declares more than is stored")
        sizes[index] = declared
        position += step
    return sizes


def _check_texts(content: mmap.mmap, start: int, heaps: Mapping[int, Mapping[int, int]]) -> None:
    """Checks the references that follow an attribute's name: length (4 bytes), address of a heap (8), index (4)."""
    places = (start + k for k in range(4, ATTRIBUTE_HEAD) if _number(content, start + k, 8) in heaps)
    position = next(places, None)
    while position is not None and (sizes := heaps.get(_number(content, position, 8))) is not None:
        if _number(content, position - 4, 4) > sizes.get(_number(content, position + 8, 4), 0):
            raise ValueError("damaged: an attribute declares a text that is not stored")
        position += 16


def _number(content: mmap.mmap, start: int, size: int) -> int:
    return int.from_bytes(content[start : start + size], "little")


def open_file(path: Path) -> h5py.File:
    """Opens a file to read."""
    _check_heaps(path)
    try:
        return h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except BlockingIOError as error:
        raise ValueError("a writer holds the file: wait until it is done") from error
    except OSError as error:
        if "unable to lock file" in str(error):
            raise ValueError("a writer holds the file: wait until it is done") from error
        raise ValueError(f"truncated, or not an HDF5 file ({error})") from error


CHUNK_LIMIT = 2**28
"""Bytes of a chunk, which is decompressed as a whole."""


def dataset(file: h5py.File, key: str) -> h5py.Dataset:
    """Returns a data set of numbers by its key; nothing of it is read yet.

    Raises:
        ValueError: none of that name (the message gives the nearest), one whose values lie in other files or are no
            real numbers, or one that declares more than is stored.
    """
    if isinstance(file.get(key, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{key} is a link to another file, which is not followed")
    try:
        values = file.get(key)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{key} cannot be opened ({error})") from error
    if not isinstance(values, h5py.Dataset):
        raise missing(key, file)
    plan = values.id.get_create_plist()
    if values.is_virtual:
        raise ValueError(
            f"{key} is a virtual data set, whose values lie in other files: copy it into one file"
        )
    if plan.get_layout() == h5py.h5d.CONTIGUOUS and plan.get_external_count():
        raise ValueError(f"{key} keeps its values outside the file: copy them into it")
    if values.dtype.kind not in "iufb":
        raise ValueError(f"{key} must be numbers, got {values.dtype}")
    if not values.shape:
        raise ValueError(
            f"{key} must have one entry a row, got {'none' if values.shape is None else 'a single value'}"
        )
    check_stored(key, values.size * values.dtype.itemsize, values.id.get_storage_size())
    if values.chunks and math.prod(values.chunks) * values.dtype.itemsize > CHUNK_LIMIT:
        raise ValueError(f"{key} has chunks of shape {values.chunks}, more than {CHUNK_LIMIT:,} bytes each")
    return values


def response_shape(file: h5py.File, key: str) -> tuple[int, ...] | None:
    """Returns the shape of one response, None where the file has none."""
    return dataset(file, key).shape[1:] if key in file or file.get(key, getlink=True) is not None else None


def texts(values: Any) -> list[str] | None:
    """Returns an attribute as a list of texts; None where there is none."""
    if values is None:
        return None
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.atleast_1d(values)]


def _particles(file: h5py.File, given: Detector | None, layout: Layout) -> ParticleRows:
    if CONDITIONS not in file and not nearest(CONDITIONS, file):
        return _table(file, given, layout)
    conditions = dataset(file, CONDITIONS)
    detector = _detector(file, given, layout)
    check_names(layout, detector)
    keys = {key: layout.source(key) for key in ("group", "fold") if layout.source(key) in file}
    pdg = layout.constant("pdg")
    if pdg is None and layout.source("pdg") in file:
        keys = {"pdg": layout.source("pdg"), **keys}
    elif pdg is None:
        if detector.pdg is None or nearest("pdg", file):
            raise missing_columns(["pdg"], detector, list(file), detector.features)
        pdg = detector.pdg
    columns = {key: dataset(file, source) for key, source in keys.items()}
    names = texts(conditions.attrs.get("names"))
    if names is not None:
        check_features(detector, names, texts(conditions.attrs.get("units")))
    check_lengths({CONDITIONS: len(conditions), **{key: len(column) for key, column in columns.items()}})

    def read(start: int, stop: int) -> Primaries:
        parts = {key: column[start:stop] for key, column in columns.items()}
        if "pdg" not in parts:
            parts["pdg"] = np.full(stop - start, pdg)
        return primaries_of(detector, conditions[start:stop], **parts)

    return ParticleRows(detector, len(conditions), "group" in columns, read)


def _detector(file: h5py.File, given: Detector | None, layout: Layout) -> Detector:
    declared = texts(file.attrs.get("detector"))
    shape = response_shape(file, layout.source("responses"))
    return detector_of(given, declared[0] if declared else None, shape)


def _table(file: h5py.File, given: Detector | None, layout: Layout) -> ParticleRows:
    """Opens the particles of a file with a data set a feature."""
    columns = {name: dataset(file, name) for name, values in file.items() if _is_column(values)}
    if not columns:
        raise missing(CONDITIONS, file)
    detector = _detector(file, given, layout)
    names = [*columns, *(name for name in file if name not in columns)]
    needed = columns_needed(detector, layout, names)
    lengths = {name: len(columns[name]) for name in needed if name in columns} or {
        name: len(values) for name, values in columns.items()
    }
    check_lengths(lengths)

    def read(start: int, stop: int) -> Primaries:
        def column(name: str) -> NDArray[np.generic]:
            return np.asarray(dataset(file, name)[start:stop])

        return laid_out_primaries(detector, layout, names, column, stop - start)

    return ParticleRows(detector, next(iter(lengths.values())), layout.source("group") in names, read)


def _is_column(values: Any) -> bool:
    """Tells whether a data set has one number a row."""
    return (
        isinstance(values, h5py.Dataset)
        and values.dtype.kind in "iufb"
        and len(without_trailing_ones(values.shape or (), 1)) == 1
    )


def open_particles(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> ParticleRows:
    """Opens the particles of a file, with or without responses."""
    return _particles(open_file(path), detector, layout)


def open_columns(
    path: Path, names: Sequence[str], detector: Detector | None = None
) -> tuple[Primaries, dict[str, NDArray[np.generic]]]:
    """Reads the particles of a file and further columns of it, all of which must be there."""
    with open_file(path) as file:
        return _particles(file, detector, PLAIN).all, {name: dataset(file, name)[()] for name in names}


def open_events(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FileSource:
    """Opens a file of events; reads its particles."""
    name = layout.source("responses")
    with open_file(path) as file:
        if file.get(name, getlink=True) is None:
            raise no_responses(name, list(file), "key", detector)
        responses = dataset(file, name)
        primaries = _particles(file, detector, layout).all
        check_shape(primaries.detector, responses.shape[1:], flat=True)
        check_lengths({"conditions": len(primaries), name: len(responses)})
        edges = block_edges(len(responses), (responses.chunks or (1,))[0])
    return FileSource(path, primaries, edges, partial(rows_of, name))


def rows_of(key: str, path: Path) -> RangeReader:
    """Opens a file and returns what reads a range of rows of one of its data sets."""
    values = _with_cache(open_file(path), key)

    def read(start: int, stop: int) -> Any:
        try:
            return values[start:stop]
        except OSError as error:
            raise ValueError(f"rows {start} to {stop - 1} are damaged ({error})") from error

    return read


def _with_cache(file: h5py.File, key: str) -> h5py.Dataset:
    """Opens a data set with a cache for all chunks that a row is cut into, as HDF5 cuts rows by itself."""
    values = file[key]
    if values.chunks is None:
        return values
    across = math.prod(
        -(-size // edge) for size, edge in zip(values.shape[1:], values.chunks[1:], strict=True)
    )
    size = across * math.prod(values.chunks) * values.dtype.itemsize
    if not CACHE_BYTES < size <= LARGEST_CACHE:
        return values
    del values  # a data set that is open keeps its cache
    plan = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    plan.set_chunk_cache(2 * across + 1, size, 0.75)
    return h5py.Dataset(h5py.h5d.open(file.id, key.encode(), plan))


def further(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FurtherColumns:
    """Opens the columns of a file that are neither of its particles nor its responses."""
    with open_file(path) as file:
        names = [CONDITIONS]
        if CONDITIONS not in file:
            opened = _particles(file, detector, layout)
            names = [
                name for name in columns_needed(opened.detector, layout, list(file)) if _is_column(file[name])
            ]
    more = layout.sources_of((*PARTICLE_COLUMNS, "responses"))
    return further_of(path, (*names, *(name for name in more if name not in names)))


def further_of(path: Path, known: Sequence[str]) -> FurtherColumns:
    """Opens the columns of a file that are not among the known ones; the first of those tells the rows."""
    file = open_file(path)
    rows = len(dataset(file, known[0]))
    names = tuple(
        name
        for name, column in file.items()
        if name not in known and isinstance(column, h5py.Dataset) and column.shape == (rows,)
    )
    for name in names:
        dataset(file, name)
    return FurtherColumns(names, lambda start, stop: {name: file[name][start:stop] for name in names})


def provenance(path: Path, layout: Layout = PLAIN) -> dict[str, Any]:
    """Returns what the writer was given; empty for foreign files."""
    with open_file(path) as file:
        return parse_provenance(file.attrs.get("provenance"))


class _Disk(io.FileIO):
    """A file that remembers its first error instead of raising it.

    The HDF5 library cannot close a file after a failed write and crashes later on, at the latest on leaving
    the program. So it never hears of a full disk; `check` tells us.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Writes all of the data, or nothing more after an error."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._error is None and len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Sets the length, unless there was an error."""
        try:
            if self._error is None:
                return super().truncate(size)
        except OSError as error:
            self._error = error
        return size or 0

    def check(self) -> None:
        """Raises the first error."""
        if self._error is not None:
            raise self._error


class Table:
    """Appends columns to a new HDF5 file.

    Args:
        path: the file.
        columns: type and shape of one row of each column, by name.
        attributes: of the file.
        level: of gzip, 1 to 9.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, tuple[Any, tuple[int, ...]]],
        attributes: Mapping[str, str],
        level: int,
    ) -> None:
        self._disk = _Disk(path)
        self._file = h5py.File(self._disk, "w", rdcc_nbytes=CACHE_BYTES)
        self._file.attrs.update(attributes)
        for name, (dtype, shape) in columns.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._file.create_dataset(
                name,
                (0, *shape),
                dtype,
                chunks=(min(max(CHUNK_BYTES // size, 1), 4096), *shape),
                maxshape=(None, *shape),
                compression="gzip",
                compression_opts=level,
                shuffle=True,
            )

    def describe(self, name: str, **attributes: Any) -> None:
        """Sets attributes of a column."""
        self._file[name].attrs.update(attributes)

    def append(self, columns: Columns) -> None:
        """Writes some rows."""
        try:
            for name, values in columns.items():
                column = self._file[name]
                rows = len(column)
                column.resize(rows + len(values), axis=0)
                column[rows:] = values
        finally:
            self._disk.check()  # it explains what HDF5 may raise

    def column(self, name: str, values: NDArray[np.generic]) -> None:
        """Writes a further column for all rows."""
        try:
            self._file.create_dataset(name, data=values, compression="gzip")
        finally:
            self._disk.check()

    def finish(self) -> None:
        """Completes the file."""
        try:
            self.abandon()
        finally:
            self._disk.check()

    def abandon(self) -> None:
        """Lets go of the file."""
        self._file.close()
        self._disk.close()


def output(
    path: Path,
    detector: Detector,
    provenance: str,
    dtype: type[np.generic] | None,
    further: Mapping[str, np.dtype[Any]] = NONE_FURTHER,
    level: int = 4,
) -> Table:
    """Starts a file in the layout above.

    Args:
        path: the file.
        detector: of the events.
        provenance: JSON text.
        dtype: type of the responses; None for particles alone.
        further: types of further columns, by name.
        level: of gzip, 1 to 9.
    """
    columns: dict[str, tuple[Any, tuple[int, ...]]] = {
        "conditions": (np.float32, (len(detector.features),)),
        "pdg": (np.int32, ()),
        "group": (np.int32, ()),
        "fold": (np.int8, ()),
    }
    if dtype is not None:
        columns["responses"] = (dtype, detector.shape)
    columns |= {name: (kind, ()) for name, kind in further.items()}
    table = Table(path, columns, {"detector": detector.name, "provenance": provenance}, level)
    table.describe(
        "conditions", names=list(detector.features), units=[feature.unit for feature in detector.conditions]
    )
    if dtype is not None:
        table.describe("responses", axes=list(detector.axes), unit=detector.unit)
    return table
