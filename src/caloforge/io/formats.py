"""Opens and writes events by the suffix of the file; the table of formats is `FORMATS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import nearest
from caloforge.detectors import DETECTORS, Detector
from caloforge.events import SLICE, Events, EventSource, Primaries, in_slices, rows_at_once
from caloforge.io import calochallenge, hdf5, hepmc, npz, root, table
from caloforge.io.columns import PLAIN, Layout, NoResponsesError, proposing, remembered
from caloforge.io.files import replacing, sha256
from caloforge.io.source import (
    Columns,
    FileParticles,
    FileSource,
    FurtherColumns,
    ParticleRows,
    check_file,
    check_lengths,
    columns_of,
    narrowest,
    reading,
)

_NO_COLUMNS: Mapping[str, NDArray[np.generic]] = MappingProxyType({})

WEIGHT = "weight"
"""Name of the column that says how much a row counts."""

BUFFERED_ROWS = 1024
"""Rows collected before they are written: one row group, one basket, about one chunk."""


class Output(Protocol):
    """Appends columns to a new file."""

    def append(self, columns: Columns) -> None:
        """Writes some rows."""

    def finish(self) -> None:
        """Completes the file."""

    def abandon(self) -> None:
        """Lets go of the file, which will be removed."""


@dataclass(frozen=True)
class Format:
    """What a format can do.

    Attributes:
        title: name for messages and tables.
        open_particles: opens the particles of a file.
        output: starts a file for responses of a type, or for particles alone where the type is None; None where
            the format is read only.
        provenance: reads what the writer was given.
        open_events: opens a file of events; None where the format holds particles only.
        further: opens the columns besides particles and responses; None where nothing tells them from others.
    """

    title: str
    open_particles: Callable[[Path, Detector | None, Layout], ParticleRows]
    output: (
        Callable[[Path, Detector, str, type[np.generic] | None, Mapping[str, np.dtype[Any]]], Output] | None
    )
    provenance: Callable[[Path, Layout], dict[str, Any]]
    open_events: Callable[[Path, Detector | None, Layout], EventSource] | None
    further: Callable[[Path, Detector | None, Layout], FurtherColumns] | None


def _is_challenge(path: Path, detector: Detector | None, layout: Layout) -> bool:
    """Tells whether a file is one of the challenge, and not one of other showers with some of its names."""
    other = layout.columns or (detector is not None and not calochallenge.is_challenge(detector))
    return not other and calochallenge.holds_showers(path)


def _hdf5_particles(path: Path, detector: Detector | None, layout: Layout) -> ParticleRows:
    if _is_challenge(path, detector, layout):
        return calochallenge.open_particles(path, detector)
    return hdf5.open_particles(path, detector, layout)


def _hdf5_events(path: Path, detector: Detector | None, layout: Layout) -> EventSource:
    if _is_challenge(path, detector, layout):
        return calochallenge.open_events(path, detector)
    return hdf5.open_events(path, detector, layout)


def _hdf5_output(
    path: Path,
    detector: Detector,
    provenance: str,
    dtype: type[np.generic] | None,
    further: Mapping[str, np.dtype[Any]],
) -> calochallenge.ShowersOutput | hdf5.Table:
    if calochallenge.is_challenge(detector):
        return calochallenge.ShowersOutput(path, detector, provenance, dtype, further)
    return hdf5.output(path, detector, provenance, dtype, further)


def _hdf5_further(path: Path, detector: Detector | None, layout: Layout) -> FurtherColumns:
    if _is_challenge(path, detector, layout):
        return calochallenge.further(path)
    return hdf5.further(path, detector, layout)


def _hepmc_particles(path: Path, detector: Detector | None, layout: Layout) -> ParticleRows:
    if layout.columns:
        raise ValueError("particles of a HepMC3 file have no columns to name")
    return hepmc.open_particles(path, detector)


_HDF5 = Format("HDF5", _hdf5_particles, _hdf5_output, hdf5.provenance, _hdf5_events, _hdf5_further)

_HEPMC = Format(
    "HepMC3",
    _hepmc_particles,
    None,
    lambda path, layout: hepmc.no_provenance(path),
    None,
    lambda path, detector, layout: hepmc.further(path),
)

FORMATS: dict[str, Format] = {
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".npz": Format(
        "NumPy archive", npz.open_particles, npz.NpzOutput, npz.provenance, npz.open_events, npz.further
    ),
    ".parquet": Format(
        "Parquet",
        table.open_parquet_particles,
        table.ParquetOutput,
        table.parquet_provenance,
        table.open_parquet_events,
        table.parquet_further,
    ),
    ".root": Format(
        "ROOT", root.open_particles, root.RootOutput, root.provenance, root.open_events, root.further
    ),
    ".hepmc": _HEPMC,
    ".hepmc3": _HEPMC,
    ".csv": Format("CSV", table.open_csv_particles, table.CsvOutput, table.no_provenance, None, None),
}


def format_of(path: Path) -> Format:
    """Returns the format of a file by its suffix.

    Raises:
        ValueError: an unknown suffix; the message lists the known ones.
    """
    suffix = path.suffix.lower()
    if suffix in hepmc.COMPRESSIONS and FORMATS.get(Path(path.stem).suffix.lower()) is _HEPMC:
        return _HEPMC
    if suffix not in FORMATS:
        raise ValueError(
            f"{path}: no format {suffix!r}; there are {', '.join(FORMATS)}{nearest(suffix, FORMATS)}"
        )
    return FORMATS[suffix]


@contextmanager
def _format(path: Path) -> Iterator[Format]:
    """Checks that there is a file, gives its format and puts its name before what is wrong with it."""
    kind = format_of(path)
    check_file(path)
    with reading(path):
        yield kind


def _laid_out(path: Path, detector: Detector | None, layout: Layout | None) -> tuple[Detector | None, Layout]:
    """Returns the detector and the layout to read a file with: what is given, or else what is remembered."""
    layout = remembered(path) if layout is None else layout
    if detector is None and layout.detector is not None:
        detector = DETECTORS[layout.detector]
    return detector, layout


def open_events(
    path: str | Path, detector: Detector | None = None, layout: Layout | None = None
) -> EventSource:
    """Opens a file of events: reads its particles, and its responses by rows when they are asked for.

    Args:
        path: an .h5, .hdf5, .npz, .parquet or .root file; of one of the papers' pairs the responses file.
        detector: the detector wanted; where not given the file tells it, by name or by its shape.
        layout: how the file names what it holds; that beside it where not given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken, of another detector, or holds particles only; later, when rows are
            read, a broken cell. The message names the file and the row.
    """
    path = Path(path)
    kind = format_of(path)
    check_file(path)
    if kind.open_events is None:
        known = ", ".join(suffix for suffix, other in FORMATS.items() if other.open_events)
        raise NoResponsesError(
            f"{path}: a {kind.title} file holds particles, no responses; wanted one of {known}"
        )
    with reading(path):
        detector, layout = _laid_out(path, detector, layout)
        with proposing(layout):
            source = kind.open_events(path, detector, layout)
        weight = _weight(kind, path, source.primaries, layout)
        if weight is None:
            return source
        if isinstance(source, FileSource):
            source.primaries = replace(source.primaries, weight=weight)
            return source
        return replace(source.slices(slice(None)), weight=weight)


def _weight(kind: Format, path: Path, primaries: Primaries, layout: Layout) -> NDArray[np.float64] | None:
    """Reads the column `weight` of a file; None where it has none, or its format cannot tell columns apart."""
    if kind.further is None:
        return None
    further = kind.further(path, primaries.detector, layout)
    if WEIGHT not in further.names:
        return None
    weight = further.read(0, len(primaries))[WEIGHT]
    if weight.shape != (len(primaries),):
        raise ValueError(f"{WEIGHT} must be one number a row, got shape {weight.shape}")
    if weight.dtype.kind not in "iufb":
        raise ValueError(f"{WEIGHT} must be numbers, got {weight.dtype}")
    return weight.astype(np.float64)


def open_to_judge(path: str | Path, detector: Detector | None = None) -> EventSource:
    """Opens a file of events as `open_events` does, but reads negative energies of voxels as 0 and counts them.

    Some generators give them, and what is below a detector's threshold is 0 in any case when showers are judged.

    Args:
        path: as of `open_events`.
        detector: as of `open_events`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as of `open_events`.
    """
    source = open_events(path, detector)
    if isinstance(source, FileSource) and source.primaries.detector.threshold > 0:
        source.negative = np.zeros(len(source), np.intp)
    return source


def negative_cells(source: EventSource) -> int:
    """Returns how many negative cells were read as 0 of a source that `open_to_judge` opened."""
    counts = source.negative if isinstance(source, FileSource) else None
    return 0 if counts is None else int(counts.sum())


def open_primaries(
    path: str | Path, detector: Detector | None = None, layout: Layout | None = None
) -> Primaries:
    """Reads the particles of a file, of events or of particles alone.

    Args:
        path: a file of any format in `FORMATS`.
        detector: the detector they enter; needed where the file does not tell it.
        layout: how the file names what it holds; that beside it where not given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken or of another detector; the message names the file and the row.
    """
    path = Path(path)
    with _format(path) as kind:
        detector, layout = _laid_out(path, detector, layout)
        with proposing(layout):
            primaries = kind.open_particles(path, detector, layout).all
        weight = _weight(kind, path, primaries, layout)
        return primaries if weight is None else replace(primaries, weight=weight)


def open_particles(
    path: str | Path, detector: Detector | None = None, layout: Layout | None = None
) -> FileParticles:
    """Opens the particles of a file to read them by rows, for more than fit into memory.

    Args:
        path: a file of any format in `FORMATS`; a NumPy archive is read as a whole.
        detector: the detector they enter; needed where the file does not tell it.
        layout: how the file names what it holds; that beside it where not given.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is broken or of another detector; the message names the file and the row.
    """
    path = Path(path)
    with _format(path) as kind:
        detector, layout = _laid_out(path, detector, layout)
        with proposing(layout):
            return FileParticles(path, kind.open_particles(path, detector, layout))


def open_data(
    path: str | Path, detector: Detector | None = None, layout: Layout | None = None
) -> EventSource | Primaries:
    """Opens a file of events, or reads one of particles alone, whichever it is."""
    try:
        return open_events(path, detector, layout)
    except NoResponsesError:
        return open_primaries(path, detector, layout)


def provenance(path: str | Path, layout: Layout | None = None) -> dict[str, Any]:
    """Returns the provenance that `create` was given; empty for foreign files and for CSV."""
    path = Path(path)
    with _format(path) as kind:
        return kind.provenance(path, _laid_out(path, None, layout)[1])


def further_columns(
    path: str | Path, detector: Detector | None = None, layout: Layout | None = None
) -> FurtherColumns:
    """Opens the columns of a file besides its particles and responses; none of formats that cannot tell them.

    Raises:
        ValueError: the file is broken; the message names it.
    """
    path = Path(path)
    with _format(path) as kind:
        if kind.further is None:
            return FurtherColumns((), lambda start, stop: {})
        return kind.further(path, *_laid_out(path, detector, layout))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Puts the file's name before an error of the disk."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}, nothing is left of it: {error}") from error


class EventWriter:
    """Appends events to a new file, which appears when the `with` block ends well and not otherwise.

    Counts that fit are stored as uint16, everything else, energies always, as float32. A file of
    particles alone is written by appending `Primaries`.
    """

    def __init__(self, path: Path, kind: Format, detector: Detector, provenance: str) -> None:
        self._path, self._kind, self._detector, self._provenance = path, kind, detector, provenance
        self._stack = ExitStack()
        self._temporary: Path | None = None
        self._output: Output | None = None
        self._dtype: type[np.generic] | None = None
        self._pending: list[Columns] = []
        self._further: dict[str, np.dtype[Any]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._temporary = stack.enter_context(replacing(self._path))
            try:
                self._temporary.touch()  # now, not after an hour's work
            except OSError as error:
                raise ValueError(f"cannot write {self._path}: {error}") from error
            self._stack = stack.pop_all()
        return self

    def append(self, events: Primaries, further: Mapping[str, NDArray[np.generic]] = _NO_COLUMNS) -> None:
        """Adds some events, or particles alone.

        Args:
            events: they, and their weights where they have any.
            further: columns of one number a row besides, (N,), by name; the same ones every time. A `weight` here
                counts in place of that of the events.

        Raises:
            ValueError: they are of another detector, or have other columns than those before.
            OSError: the disk is full.
        """
        if self._temporary is None:
            raise ValueError("events are appended within the block `with create(...) as writer:`")
        if events.detector.name != self._detector.name:
            raise ValueError(
                f"{self._path} is for {self._detector.name}, got events of {events.detector.name}"
            )
        columns = {name: column.copy() for name, column in columns_of(events).items()}
        if events.weight is not None:
            further = {WEIGHT: events.weight, **further}
        if self._output is None and not self._pending:
            self._further = {name: column.dtype for name, column in further.items()}
        elif further.keys() != self._further.keys():
            expected, got = (", ".join(names) or "none" for names in (self._further, further))
            raise ValueError(f"further columns must be those of the rows before, {expected}, got {got}")
        columns |= {name: column.astype(self._further[name]) for name, column in further.items()}
        if self._pending and columns.keys() != self._pending[0].keys():
            raise ValueError("a file holds either events or particles alone, got both")
        if further:
            check_lengths({name: len(column) for name, column in columns.items()})
        self._pending.append(columns)
        rows = min(BUFFERED_ROWS, rows_at_once(self._detector))
        if sum(len(part["pdg"]) for part in self._pending) >= rows:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        columns = {name: np.concatenate([part[name] for part in self._pending]) for name in self._pending[0]}
        self._pending = []
        dtype = None
        if "responses" in columns:
            dtype = narrowest(columns["responses"], self._detector)
        with _writing(self._path):
            if self._output is None:
                self._dtype = dtype
                self._output = self._start(dtype)
            elif (dtype is None) != (self._dtype is None):
                raise ValueError("a file holds either events or particles alone, got both")
            elif dtype is np.float32 and self._dtype is np.uint16:
                self._widen()
            self._output.append(columns)

    def _start(self, dtype: type[np.generic] | None) -> Output:
        assert self._temporary is not None
        assert self._kind.output is not None
        return self._kind.output(self._temporary, self._detector, self._provenance, dtype, self._further)

    def _widen(self) -> None:
        """Writes what is there again as float32: the first cells were counts that fit, later ones are not."""
        assert self._output is not None
        assert self._temporary is not None
        self._dtype = np.float32
        if self._kind.open_events is None:
            return  # a table of sums has no type to widen
        self._output.finish()
        narrow = self._temporary.with_stem(f"{self._temporary.stem}-narrow")
        self._stack.callback(narrow.unlink, missing_ok=True)
        self._temporary.rename(narrow)
        self._output = self._start(np.float32)
        assert self._kind.further is not None
        further, start = self._kind.further(narrow, self._detector, PLAIN), 0
        for events in in_slices(self._kind.open_events(narrow, self._detector, PLAIN), BUFFERED_ROWS):
            stop = start + len(events)
            self._output.append({**columns_of(events), **further.read(start, stop)})
            start = stop
        narrow.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            self._stack.__exit__(kind, error, trace)
            return
        with _writing(self._path), self._stack:
            try:
                self._flush()
                if self._output is None:
                    raise ValueError(f"nothing to write to {self._path}: no events")
                self._output.finish()
            except BaseException:
                self._abandon()
                raise
        self._temporary = None

    def _abandon(self) -> None:
        self._temporary = None
        if self._output is not None:
            with suppress(Exception):  # the first error counts, and the file is removed
                self._output.abandon()


def create(path: str | Path, detector: Detector, provenance: Mapping[str, Any] | None = None) -> EventWriter:
    """Starts a file of events.

        with create(path, detector) as writer:
            writer.append(events)

    It is written under a temporary name beside `path`, in constant memory (a NumPy archive: in memory), and
    renamed when the block ends; on any error nothing is left.

    Args:
        path: the format goes by the suffix. An existing file is replaced.
        detector: of the events.
        provenance: where the events come from; anything JSON can hold.

    Raises:
        ValueError: unknown suffix, a format that is only read, or (on entering the block) a folder that cannot be
            written.
        TypeError: a provenance that JSON cannot hold.
    """
    path = Path(path)
    kind = format_of(path)
    if kind.output is None:
        known = ", ".join(suffix for suffix, other in FORMATS.items() if other.output)
        raise ValueError(f"cannot write {path}: {kind.title} files are only read; wanted one of {known}")
    return EventWriter(path, kind, detector, json.dumps(dict(provenance or {})))


def convert(
    source_path: str | Path,
    out_path: str | Path,
    detector: Detector | None = None,
    particles_path: str | Path | None = None,
    progress: Callable[[int], object] = lambda rows: None,
    layout: Layout | None = None,
) -> int:
    """Copies events, or particles alone, from one format to another in slices.

    Args:
        source_path: the file to read.
        out_path: the file to write.
        detector: where the file does not tell it.
        particles_path: the particles of one of the papers' pairs, where their file is not the neighbour.
        progress: called after each slice with the number of rows copied so far.
        layout: how the file names what it holds; that beside it where not given.

    Returns:
        number of rows.
    """
    source_path = Path(source_path)
    source: EventSource | Primaries
    if particles_path is None:
        source = open_data(source_path, detector, layout)
    elif source_path.suffix.lower() != ".npz":
        raise ValueError(f"only a pair of .npz files has a file of particles beside it, got {source_path}")
    else:
        check_file(source_path)
        with reading(source_path):
            source = npz.open_pair(source_path, Path(particles_path), detector)
    particles = source if isinstance(source, Primaries) else source.primaries
    before = provenance(source_path, layout)
    origin = {"name": source_path.name, "sha256": sha256(source_path), "provenance": before}
    with create(out_path, particles.detector, {"converted_from": origin}) as writer:
        columns = carried(source_path, particles.detector, layout)
        for rows, part in in_parts(source):
            writer.append(part, columns.read(rows.start, rows.stop))
            progress(rows.stop)
    return len(source)


CARRIED = ("event", WEIGHT, "in_domain")
"""Columns of a file that go with its rows into every other file."""


def carried(path: Path, detector: Detector | None = None, layout: Layout | None = None) -> FurtherColumns:
    """Opens those of `CARRIED` that a file has: the number of a collision, its weight, marks of the domain.

    Args:
        path: the file.
        detector: the detector its particles enter, where the file does not tell it.
        layout: how the file names what it holds; that beside it where not given.

    Raises:
        ValueError: the file is broken; the message names it.
    """
    try:
        columns = further_columns(path, detector, layout)
    except ValueError as error:
        # a foreign file, of a detector that only the caller knows
        if "does not say its detector" not in str(error) and "no detector has" not in str(error):
            raise
        columns = FurtherColumns((), lambda start, stop: {})
    names = tuple(name for name in CARRIED if name in columns.names)

    def read(start: int, stop: int) -> Columns:
        if not names:
            return {}
        with reading(path):
            values = columns.read(start, stop)
            for name in names:
                if values[name].dtype.kind not in "biuf" or values[name].shape != (stop - start,):
                    raise ValueError(f"{name} must be one number a row, got {values[name].dtype}")
            return {name: values[name] for name in names}

    return FurtherColumns(names, read)


def in_parts(source: EventSource | Primaries) -> Iterator[tuple[slice, Primaries]]:
    """Walks through events, or particles alone, in order: gives the rows and what is in them."""
    detector = (source if isinstance(source, Primaries) else source.primaries).detector
    step = rows_at_once(detector, SLICE)
    for start in range(0, len(source), step):
        rows = slice(start, min(start + step, len(source)))
        if isinstance(source, Primaries) and not isinstance(source, Events):
            yield rows, source.select(rows)
        else:
            yield rows, source.slices(rows)
