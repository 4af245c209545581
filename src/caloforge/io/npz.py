"""NumPy archives: the papers' pairs of files, and one file of our own.

- The papers' pairs hold one array each, `arr_0`: responses (N, *shape), and particles (N, F + 1) with the PDG
  id as the last column. A pair is opened by its responses file; the particles are in the neighbour whose name
  has "particles" in place of "responses".
- Our file has the keys `conditions`, `responses`, `pdg`, `group`, `fold`, `detector` and `provenance`,
  and further columns of one number a row, such as `in_domain` where a bundle generated it.

An archive is read and written as a whole; for more than fits into memory take HDF5. Pickles are never read.
"""

from __future__ import annotations

import lzma
import math
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import nearest
from caloforge.detectors import Detector
from caloforge.events import Events, Primaries, with_responses
from caloforge.io.columns import PARTICLE_COLUMNS, PLAIN, Layout, check_names, missing_columns, no_responses
from caloforge.io.source import (
    NONE_FURTHER,
    Columns,
    FurtherColumns,
    ParticleRows,
    check_cells,
    check_file,
    check_lengths,
    check_shape,
    detector_of,
    laid_out_primaries,
    missing,
    narrowest,
    parse_provenance,
    primaries_of,
    reading,
    without_trailing_ones,
)

PAIR_KEY, CONDITIONS = "arr_0", "conditions"


LARGE, EXPANSION = 1 << 28, 1000
"""Bytes beyond which an array may not be this many times as large as what is stored of it."""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compares the size that an array declares with what is stored, before memory is taken for it.

    Raises:
        ValueError: the array is a pickle, or declares another size than the archive holds.
    """
    if member.file_size > LARGE and member.file_size > EXPANSION * member.compress_size:
        raise ValueError(f"{member.filename} declares {member.file_size} bytes in {member.compress_size}")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"{member.filename} is of an unknown version {version}")
        shape, _, dtype = readers[version](stream)
        if dtype.hasobject:
            return  # numpy refuses it
        size = math.prod(shape) * dtype.itemsize
        if any(length < 0 for length in shape) or size != member.file_size - stream.tell():
            raise ValueError(
                f"{member.filename} declares {shape} of {dtype}, {size} bytes, "
                f"but {member.file_size - stream.tell()} are stored"
            )


def _check_column(name: str, column: NDArray[np.generic]) -> None:
    if name not in ("conditions", "responses", *PARTICLE_COLUMNS, PAIR_KEY):
        return
    if column.ndim == 0:
        raise ValueError(f"{name} must have one entry a row, got a single value")
    if column.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, got {column.dtype}")
    if name == "responses" and column.dtype.kind == "f" and column.dtype.itemsize > 4:
        largest = np.abs(column).max(initial=0)
        if np.isfinite(largest) and largest > np.finfo(np.float32).max:
            raise ValueError(f"{name} must fit 32-bit floats, got {largest:g}")


def _load(path: Path, keys: Collection[str]) -> Columns:
    """Reads those of the keys that an archive has; all its other names come as empty arrays."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(2)
        if head[:1] == pickle.PROTO:
            raise ValueError(
                "this is a pickle, wanted an npz archive; pickles can run any code and are not read"
            )
        raise ValueError("truncated, or not an npz archive")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.removesuffix(".npy") in keys:
                    _check_member(archive, member)
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] if name in keys else np.empty(0) for name in file.files}
        for name, column in columns.items():
            _check_column(name, column)
        return columns
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"truncated or damaged npz archive ({_one_line(error)})") from error
    except UnicodeDecodeError as error:
        raise ValueError("damaged npz archive: a text in it cannot be read") from error
    except (
        NotImplementedError,
        RuntimeError,
        LookupError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,
        struct.error,
        ArithmeticError,
        MemoryError,
    ) as error:
        # unknown compression, encryption, headers that are no Python literal
        raise ValueError(f"this npz archive cannot be read ({_one_line(error)})") from error
    except ValueError as error:
        if len(str(error).splitlines()) > 1 and "allow_pickle" not in str(error):
            raise ValueError(_one_line(error)) from error
        if "allow_pickle" in str(error):
            raise ValueError(
                "an array in it is a pickle; pickles can run any code and are not read"
            ) from error
        raise


def _particles_beside(path: Path) -> Path:
    if "responses" not in path.name:
        raise ValueError(
            "of a pair, wanted the file with 'responses' in its name "
            "(the other has 'particles' in its place); or give both"
        )
    return path.with_name(path.name.replace("responses", "particles"))


def _pair_primaries(path: Path, detector: Detector) -> Primaries:
    check_file(path)
    with reading(path):
        file = _load(path, [PAIR_KEY])
        if PAIR_KEY not in file:
            raise missing(PAIR_KEY, file)
        return _split_table(file[PAIR_KEY], detector)


def _split_table(table: NDArray[np.generic], detector: Detector) -> Primaries:
    columns = len(detector.features) + 1
    if table.ndim != 2 or table.shape[1] != columns:
        raise ValueError(
            f"particles must have shape (N, {columns}): {', '.join(detector.features)}, PDG id; "
            f"got {table.shape}"
        )
    return primaries_of(detector, table[:, :-1], table[:, -1])


def open_pair(responses_path: Path, particles_path: Path, detector: Detector | None = None) -> Events:
    """Reads one of the papers' pairs of files."""
    file = _load(responses_path, [PAIR_KEY])
    if PAIR_KEY not in file:
        raise missing(PAIR_KEY, file)
    responses = file[PAIR_KEY]
    detector = detector_of(detector, None, responses.shape[1:])
    return _events(_pair_primaries(particles_path, detector), responses)


def _events(primaries: Primaries, responses: NDArray[np.generic]) -> Events:
    shape = primaries.detector.shape
    check_shape(primaries.detector, responses.shape[1:], flat=True)
    responses = responses.reshape(-1, *shape)
    check_lengths({"particles": len(primaries), "responses": len(responses)})
    check_cells(responses, np.arange(len(responses)))
    return with_responses(primaries, responses.astype(narrowest(responses, primaries.detector), copy=False))


def _own_primaries(file: Columns, given: Detector | None, layout: Layout) -> Primaries:
    declared = str(file["detector"]) if "detector" in file else None
    responses = layout.source("responses")
    shape = file[responses].shape[1:] if responses in file else None
    if CONDITIONS not in file:
        columns = {name: values for name, values in file.items() if _is_column(values)}
        if not columns or nearest(CONDITIONS, file):
            raise missing(CONDITIONS, file)
        detector = detector_of(given, declared, shape)
        rows = len(next(iter(columns.values())))
        return laid_out_primaries(detector, layout, list(file), lambda name: file[name], rows)
    detector = detector_of(given, declared, shape)
    check_names(layout, detector)
    keys = {key: layout.source(key) for key in ("group", "fold")}
    parts = {key: file[source] for key, source in keys.items() if source in file}
    return primaries_of(detector, file[CONDITIONS], _pdg(file, detector, layout), **parts)


def _pdg(file: Columns, detector: Detector, layout: Layout) -> NDArray[np.generic]:
    rows = len(file[CONDITIONS])
    constant = layout.constant("pdg")
    if constant is not None:
        return np.full(rows, constant)
    source = layout.source("pdg")
    if source in file:
        return file[source]
    if detector.pdg is None or nearest(source, file):
        raise missing_columns(["pdg"], detector, list(file), detector.features)
    return np.full(rows, detector.pdg)


def _is_column(values: NDArray[np.generic]) -> bool:
    """Tells whether an array has one number a row."""
    return values.dtype.kind in "iufb" and len(without_trailing_ones(values.shape, 1)) == 1


def _load_own(path: Path, layout: Layout, *more: str) -> Columns:
    """Reads what the particles of an archive are made of: of one with an array a feature, all its arrays."""
    names = _load(path, ())
    if CONDITIONS in names or PAIR_KEY in names:
        more += (CONDITIONS, PAIR_KEY, *layout.sources_of(PARTICLE_COLUMNS))
        return _load(path, [*more, "detector"])
    return _load(path, [name for name in names if name != "provenance"])


def open_particles(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> ParticleRows:
    """Reads the particles of an archive: our own, a pair, or the particles file of a pair alone."""
    primaries = _primaries(path, detector, layout)
    return ParticleRows(
        primaries.detector,
        len(primaries),
        grouped=True,  # all of them are at hand
        read=lambda start, stop: primaries.select(slice(start, stop)),
    )


def _primaries(path: Path, detector: Detector | None, layout: Layout) -> Primaries:
    file = _load_own(path, layout)
    if PAIR_KEY not in file:
        return _own_primaries(file, detector, layout)
    if file[PAIR_KEY].ndim == 2:
        return _split_table(file[PAIR_KEY], detector_of(detector, None, None))
    detector = detector_of(detector, None, file[PAIR_KEY].shape[1:])
    return _pair_primaries(_particles_beside(path), detector)


def open_events(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> Events:
    """Reads the events of an archive, our own or the responses file of a pair."""
    responses = layout.source("responses")
    file = _load_own(path, layout, responses)
    if PAIR_KEY in file:
        return open_pair(path, _particles_beside(path), detector)
    if responses not in file:
        raise no_responses(responses, list(file), "key", detector)
    return _events(_own_primaries(file, detector, layout), file[responses])


def provenance(path: Path, layout: Layout = PLAIN) -> dict[str, Any]:
    """Returns what the writer was given; empty for foreign files."""
    file = _load(path, ["provenance"])
    return parse_provenance(str(file["provenance"])) if "provenance" in file else {}


def further(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FurtherColumns:
    """Reads the columns of an archive that are neither of its particles nor its responses."""
    names = set(_load(path, ()))
    known = layout.sources_of((CONDITIONS, *PARTICLE_COLUMNS, "responses", PAIR_KEY))
    if not names & {CONDITIONS, PAIR_KEY}:
        known |= layout.sources_of(_primaries(path, detector, layout).detector.features)
    names -= known
    columns = {name: column for name, column in _load(path, names).items() if name in names and column.ndim}
    return FurtherColumns(
        tuple(columns), lambda start, stop: {name: column[start:stop] for name, column in columns.items()}
    )


class NpzOutput:
    """Collects columns in memory and writes them at the end."""

    def __init__(
        self,
        path: Path,
        detector: Detector,
        provenance: str,
        dtype: type[np.generic] | None,
        further: Mapping[str, np.dtype[Any]] = NONE_FURTHER,
    ) -> None:
        self._path, self._dtype = path, dtype
        self._more: Columns = {"detector": np.array(detector.name), "provenance": np.array(provenance)}
        self._parts: list[Columns] = []

    def append(self, columns: Columns) -> None:
        """Keeps some rows."""
        if "responses" in columns:
            columns = {**columns, "responses": columns["responses"].astype(self._dtype, copy=False)}
        self._parts.append(columns)

    def finish(self) -> None:
        """Writes the archive."""
        columns = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        with self._path.open("wb") as file:
            np.savez_compressed(file, **columns, **self._more)  # type: ignore[arg-type]

    def abandon(self) -> None:
        """Forgets what was kept."""
        self._parts = []
