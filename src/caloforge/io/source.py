"""Events of a file: particles in memory, responses read by rows; and the checks that every format shares.

A format opens its file, checks what can be checked without reading the responses, and gives a `FileSource` a
function that reads a range of rows. Cell values are checked when rows are read, by their number in the file.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import nearest
from caloforge.detectors import DETECTORS, Detector, detector_named
from caloforge.events import SLICE, Events, Primaries, Rows, with_responses
from caloforge.io.columns import (
    PARTICLE_COLUMNS,
    ColumnsError,
    Layout,
    NoResponsesError,
    check_names,
    derived,
    listed,
)

Columns: TypeAlias = dict[str, NDArray[np.generic]]
"""Arrays of one length by name: conditions, pdg, group, fold and, for events, responses."""

RangeReader: TypeAlias = Callable[[int, int], NDArray[np.generic]]
"""Reads the responses of the rows from a first to before a last, (rows, *shape) or (rows, cells)."""

LEAST_DECLARED, MOST_COMPRESSED = 2**26, 1100
"""Bytes that may be declared whatever is stored, and how far compression may go beyond: deflate reaches 1 in 1032."""

MOST_NAMES = 1000
"""Names of a folder among which the nearest is looked for."""

NONE_FURTHER: Mapping[str, np.dtype[Any]] = MappingProxyType({})


@dataclass(frozen=True)
class ParticleRows:
    """The particles of an open file by rows.

    Attributes:
        detector: the detector they enter.
        rows: their number.
        grouped: the file numbers its unique particles.
        read: reads and checks the rows from a first to before a last.
    """

    detector: Detector
    rows: int
    grouped: bool
    read: Callable[[int, int], Primaries]

    @property
    def all(self) -> Primaries:
        """Every particle."""
        return self.read(0, self.rows)


@dataclass(frozen=True)
class FurtherColumns:
    """What an open file holds besides particles and responses, one number a row: `in_domain`, channel sums.

    Attributes:
        names: of the columns.
        read: reads them from a first to before a last row.
    """

    names: tuple[str, ...]
    read: Callable[[int, int], Columns]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it, in one line.

    The libraries of the formats raise whatever the bytes of a broken file lead them to, so every exception is one of
    the file's here, but for a package that is missing.

    Raises:
        ValueError: in place of any exception inside.
    """
    try:
        yield
    except ImportError:
        raise
    except NoResponsesError as error:
        raise NoResponsesError(f"{path}: {one_line(error)}") from error
    except ColumnsError as error:
        command = f"caloforge data inspect {shlex.quote(str(path))} {error.options}"
        text = one_line(error)
        raise ValueError(
            f"{path}: {text}{'' if text.endswith('?') else ';'} try: {one_line(command)}"
        ) from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    except MemoryError as error:
        raise ValueError(f"{path}: what it declares does not fit into memory") from error
    except Exception as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {one_line(error)})") from error


def one_line(error: BaseException | str) -> str:
    """Returns the message of an error in one line of at most 500 characters that a terminal can show."""
    text = " ".join(str(error).split())[:500]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def check_stored(name: str, declared: int, stored: int) -> None:
    """Checks the size that a file declares against what is stored, before anything is allocated.

    Args:
        name: of the column.
        declared: bytes of its values.
        stored: bytes in the file.

    Raises:
        ValueError: no compression could make so much of so little.
    """
    if declared > LEAST_DECLARED + MOST_COMPRESSED * stored:
        raise ValueError(
            f"{name} declares {declared:,} bytes, and {stored:,} are stored: the file is cut or made up"
        )


def check_file(path: Path) -> None:
    """Raises FileNotFoundError or ValueError where `path` is no file with something in it."""
    if not path.exists():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"no file {path}{nearest(path.name, names[:MOST_NAMES])}")
    if not path.is_file():
        raise ValueError(f"{path} is a folder, wanted a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")


def missing(name: str, known: Iterable[str], what: str = "key") -> ValueError:
    """Returns the error for a name that a file lacks; it gives the nearest the file has."""
    known = list(known)
    return ValueError(f"no {what} {name!r}; the file has {listed(known)}{nearest(name, known)}")


def detector_of(given: Detector | None, declared: str | None, shape: Sequence[int] | None) -> Detector:
    """Decides which detector a file belongs to.

    Args:
        given: the detector the caller wants.
        declared: the name in the file.
        shape: shape of one response, or its number of cells alone.

    Raises:
        ValueError: the two disagree, or nothing tells the detector.
    """
    if declared is not None and not isinstance(declared, str):
        raise ValueError(f"the file names its detector by {type(declared).__name__}, wanted a text")
    if given is not None:
        if (
            declared is not None and PurePath(declared).name != PurePath(given.name).name
        ):  # binning files move
            raise ValueError(f"the file is of detector {declared}, wanted {given.name}")
        return given
    if declared is not None and ".xml" in declared:
        raise ValueError(f"the file names the binning {declared!r}, which is not read: give it by --detector")
    if declared is not None:
        return detector_named(declared, trust=False)
    if shape is None:
        raise ColumnsError(
            f"the file does not say its detector: give one of {', '.join(DETECTORS)}",
            "--detector NAME --remember",
        )
    for detector in DETECTORS.values():
        bare = without_trailing_ones(shape, len(detector.shape))
        if bare in (detector.shape, (detector.cells,)):
            return detector
    known = ", ".join(f"{detector.name} {detector.shape}" for detector in DETECTORS.values())
    raise ValueError(
        f"no detector has responses of shape {tuple(shape)}; there are {known}; others are named by --detector, "
        "a binning file .xml for one"
    )


def check_shape(detector: Detector, shape: Sequence[int], flat: bool = False) -> None:
    """Raises ValueError where `shape` is not that of one response (with `flat`, nor its number of cells).

    Further axes of length 1 at the end, such as that of the colours of an image, do not count.
    """
    bare = without_trailing_ones(shape, len(detector.shape))
    if bare != detector.shape and not (flat and without_trailing_ones(shape, 1) == (detector.cells,)):
        expected, got = (", ".join(map(str, ("N", *numbers))) for numbers in (detector.shape, shape))
        raise ValueError(f"{detector.name} responses must have shape ({expected}), got ({got})")


def without_trailing_ones(shape: Sequence[int], axes: int) -> tuple[int, ...]:
    """Returns a shape without axes of length 1 at the end beyond the first `axes`."""
    shape = tuple(shape)
    while len(shape) > axes and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_lengths(lengths: Mapping[str, int]) -> None:
    """Raises ValueError where columns differ in length, or have none."""
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"every column must have one value a row, got columns of different length: {listed}")
    if not all(lengths.values()):
        raise ValueError("the file is empty: it has no rows")


def check_features(detector: Detector, names: Sequence[str], units: Sequence[str] | None = None) -> None:
    """Raises ValueError where the names or units of a file's condition columns are not the detector's."""
    expected = detector.features
    lost = [name for name in expected if name not in names]
    if lost:
        raise ValueError(
            f"the conditions lack {', '.join(lost)}: wanted {', '.join(expected)}; "
            f"got {', '.join(names)}{nearest(lost[0], names)}"
        )
    if tuple(names) != expected:
        raise ValueError(
            f"the conditions are swapped or too many: wanted {', '.join(expected)}; got {', '.join(names)}"
        )
    for feature, unit in zip(detector.conditions, units or (), strict=False):
        if unit != feature.unit:
            raise ValueError(f"{feature.name} must be in {feature.unit}, the file has it in {unit}")


def whole_numbers(values: NDArray[np.generic], name: str, dtype: type[np.signedinteger[Any]]) -> NDArray[Any]:
    """Turns a column into integers.

    Raises:
        ValueError: a value is fractional, not finite or too large; the message names the row.
    """
    column = np.asarray(values)
    column = column.reshape(without_trailing_ones(column.shape, 1))
    limits = np.iinfo(dtype)
    if column.dtype.kind not in "iufb":
        raise ValueError(f"{name} must be numbers, got {column.dtype}")
    with np.errstate(invalid="ignore"):
        bad = ~((column == np.rint(column)) & (column >= limits.min) & (column <= limits.max))
    if bad.any():
        row = int(np.argmax(bad.reshape(len(bad), -1).any(1)))
        raise ValueError(f"{name} must be whole {limits.bits}-bit numbers, got {column[row]} in row {row}")
    return column.astype(dtype)


def primaries_of(
    detector: Detector,
    conditions: NDArray[np.generic],
    pdg: NDArray[np.generic],
    group: NDArray[np.generic] | None = None,
    fold: NDArray[np.generic] | None = None,
) -> Primaries:
    """Builds particles from the columns of a file, every one checked."""
    columns = {"conditions": conditions, "pdg": pdg, "group": group, "fold": fold}
    check_lengths({name: len(column) for name, column in columns.items() if column is not None})
    values: Any = np.asarray(conditions)
    return Primaries(
        detector,
        values.reshape(without_trailing_ones(values.shape, 2)),
        whole_numbers(pdg, "pdg", np.int32),
        None if group is None else whole_numbers(group, "group", np.int32),  # type: ignore[arg-type]
        None if fold is None else whole_numbers(fold, "fold", np.int8),  # type: ignore[arg-type]
    )


def named_primaries(
    detector: Detector, names: Sequence[str], read: Callable[[str], NDArray[np.generic]]
) -> Primaries:
    """Builds particles from a table with a column a feature, `pdg` and perhaps `group` and `fold`.

    Args:
        detector: the detector they enter.
        names: names of the table's columns; others are ignored, and what others tell may be missing (`columns`).
        read: reads one column.
    """

    def column(name: str) -> NDArray[np.generic]:
        values = np.asarray(read(name))
        return values.reshape(without_trailing_ones(values.shape, 1))

    columns = derived(detector, names, column)
    check_lengths({name: len(column) for name, column in columns.items()})
    conditions = np.column_stack([columns[name].astype(np.float64) for name in detector.features])
    return primaries_of(detector, conditions, columns["pdg"], columns.get("group"), columns.get("fold"))


def laid_out_primaries(
    detector: Detector,
    layout: Layout,
    names: Sequence[str],
    read: Callable[[str], NDArray[np.generic]],
    rows: int,
) -> Primaries:
    """Builds particles from a table whose columns have names of their own.

    Args:
        detector: the detector they enter.
        layout: which column is which.
        names: names of the table's columns.
        read: reads one column, by the table's name.
        rows: their number.
    """
    check_names(layout, detector)
    return named_primaries(detector, *layout.renamed(names, read, rows))


def check_cells(responses: NDArray[Any], rows: NDArray[np.intp]) -> None:
    """Raises ValueError where a cell is not finite or negative; `rows` are their numbers in the file."""
    if responses.dtype.kind == "u":
        return
    if responses.dtype.kind not in "if":
        raise ValueError(f"responses must be numbers, got {responses.dtype}")
    good = np.isfinite(responses) & (responses >= 0)
    if not good.all():
        row = int(np.argmin(good.reshape(len(good), -1).all(1)))
        value = responses[row][~good[row]][0]
        raise ValueError(f"responses must be finite and not negative, got {value} in row {rows[row]}")


def without_negatives(responses: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Returns finite responses, (n, *shape), with negative cells at 0, and how many each row had, (n,)."""
    negative = np.isfinite(responses) & (responses < 0) if responses.dtype.kind == "f" else responses < 0
    counts = np.count_nonzero(negative.reshape(len(responses), -1), axis=1)
    return (np.where(negative, responses.dtype.type(0), responses) if counts.any() else responses), counts


def gather(
    index: NDArray[np.intp], edges: NDArray[np.intp], read: RangeReader, shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Reads rows in any order: neighbours in one go, scattered ones block by block.

    Args:
        index: row numbers, (n,).
        edges: first row of each block that the file compresses as one, and the number of rows.
        read: reads a range of rows.
        shape: shape of one response.

    Returns:
        responses in the order of `index`, (n, *shape).
    """
    if len(index) == 0:
        return np.empty((0, *shape), np.uint16)
    if (np.diff(index) == 1).all():
        return read(int(index[0]), int(index[-1]) + 1).reshape(-1, *shape)
    order = np.argsort(index, kind="stable")
    ranked = index[order]
    block = np.searchsorted(edges, ranked, side="right") - 1
    responses: NDArray[np.generic] | None = None
    for first, last in zip(
        *(np.searchsorted(block, np.unique(block), side) for side in ("left", "right")), strict=True
    ):
        start = int(ranked[first])
        part = read(start, int(ranked[last - 1]) + 1).reshape(-1, *shape)
        if responses is None:
            responses = np.empty((len(index), *shape), part.dtype)
        responses[order[first:last]] = part[ranked[first:last] - start]
    assert responses is not None
    return responses


def check_fits(responses: NDArray[np.generic], index: NDArray[np.intp]) -> None:
    """Raises ValueError where a finite cell is more than float32, in which it is kept, can hold."""
    if responses.dtype.kind == "f" and responses.dtype.itemsize > 4:
        bad = np.abs(responses) > np.finfo(np.float32).max
        if bad.any():
            row = int(np.argmax(bad.reshape(len(bad), -1).any(1)))
            raise ValueError(
                f"responses must fit float32, got {responses[row][bad[row]].flat[0]} in row {index[row]}"
            )


class FileSource:
    """Events whose responses stay in their file until they are asked for. Can be pickled.

    Args:
        path: the file.
        primaries: its particles.
        edges: first row of each block of the file, and the number of rows.
        open_reader: opens the file (at the first read, and again after unpickling) and returns what reads it.

    Attributes:
        negative: negative cells of each row that was read, (N,), where they are read as 0; None where they are refused.
    """

    def __init__(
        self,
        path: Path,
        primaries: Primaries,
        edges: NDArray[np.intp],
        open_reader: Callable[[Path], RangeReader],
    ) -> None:
        self.negative: NDArray[np.intp] | None = None
        self.path = path.absolute()
        self.primaries = primaries
        self._edges = edges
        self._open_reader = open_reader
        self._read: RangeReader | None = None

    def __len__(self) -> int:
        return len(self.primaries)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_read": None}

    def slices(self, rows: Rows) -> Events:
        """Reads some rows, in the order asked for."""
        index = np.arange(len(self))[rows]
        with reading(self.path):
            if self._read is None:
                self._read = self._open_reader(self.path)
            responses = gather(index, self._edges, self._read, self.primaries.detector.shape)
            if self.negative is not None:
                responses, self.negative[index] = without_negatives(responses)
            check_cells(responses, index)
            check_fits(responses, index)
            return with_responses(self.primaries.select(index), responses)


class FileParticles:
    """Particles that stay in their file until they are asked for: a `ParticleSource`.

    Every row is read and checked once, slice by slice, when it is opened. Of a file that does not number its unique
    particles the numbers are kept, four bytes a row.

    Args:
        path: the file.
        opened: what reads it.

    Raises:
        ValueError: a row is broken; the message names it.
    """

    def __init__(self, path: Path, opened: ParticleRows) -> None:
        self.path, self.detector, self._opened = path, opened.detector, opened
        self._group: NDArray[np.int32] | None = None
        hashes = []
        for start in range(0, len(self), SLICE):
            try:
                part = opened.read(start, min(start + SLICE, len(self)))
            except ValueError:
                opened.all  # noqa: B018 (its message counts the rows from the first)
                raise
            if not opened.grouped:
                hashes.append(_hashes(part))
        if hashes:
            self._group = np.unique(np.concatenate(hashes), return_inverse=True)[1].astype(np.int32)

    def __len__(self) -> int:
        return self._opened.rows

    def select(self, rows: Rows) -> Primaries:
        """Reads some rows, in the order asked for; scattered ones with all between them."""
        index = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        if len(index) == 0:
            return self._opened.read(0, 1).select(slice(0))
        first, last = int(index.min()), int(index.max()) + 1
        with reading(self.path):
            part = self._opened.read(first, last)
        if self._group is not None:
            part = replace(part, group=self._group[first:last])
        return (
            part if len(index) == last - first and (np.diff(index) == 1).all() else part.select(index - first)
        )


def _hashes(primaries: Primaries) -> NDArray[np.uint64]:
    """Returns 64 bits of each unique particle, (N,): the finalizer of SplitMix64 over features and PDG id."""
    columns = [*(primaries.conditions + np.float32(0)).T.view(np.uint32), primaries.pdg.view(np.uint32)]
    hashes = np.zeros(len(primaries), np.uint64)
    for column in columns:
        hashes = (hashes + np.uint64(0x9E3779B97F4A7C15)) ^ column.astype(np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
        hashes ^= hashes >> np.uint64(31)
    return hashes


def channel_columns(detector: Detector, channels: str) -> tuple[str, ...]:
    """Returns the names of the columns of a channel map's sums: `paper_quadrant_1` and so on."""
    labels = detector.channel_map(channels).labels
    return tuple(f"{channels}_{label.replace(' ', '_')}" for label in labels)


def block_edges(rows: int, block: int) -> NDArray[np.intp]:
    """Returns the edges of equal blocks; small ones are taken together."""
    step = block * math.ceil(256 / block)
    return np.append(np.arange(0, rows, step), rows)


def columns_of(events: Primaries) -> Columns:
    """Returns the arrays of events, or of particles alone."""
    columns: Columns = {name: getattr(events, name) for name in ("conditions", *PARTICLE_COLUMNS)}
    return {**columns, "responses": events.responses} if isinstance(events, Events) else columns


def narrowest(responses: NDArray[Any], detector: Detector) -> type[np.uint16] | type[np.float32]:
    """Returns uint16 where every cell is a count that fits, else float32; energies are no counts."""
    if not detector.counts:
        return np.float32
    for start in range(0, len(responses), 1024):  # in parts, for the sake of memory
        part = responses[start : start + 1024]
        if not ((part >= 0) & (part <= 65_535) & (part == np.rint(part))).all():
            return np.float32
    return np.uint16


def parse_provenance(text: object) -> dict[str, Any]:
    """Returns the mapping a provenance text holds; empty where it is none of ours."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    if not isinstance(text, str):
        return {}
    try:
        origin = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return {}
    return origin if isinstance(origin, dict) else {}
