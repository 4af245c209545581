"""HepMC3: what event generators write. Its final particles are the primaries.

Every particle of status 1 is a row: energy and momentum in GeV, the production vertex in cm whatever the file's
units, mass as generated, charge of the PDG tables. Beams, decayed and intermediate particles are left out. Beside
them stand `event`, the number in the file (counted from 0 where the numbers do not rise), and `weight`, the first
weight of the event where the file has weights.

The text is read event by event and every line is checked: an event is read whole or refused, with its number and
the line. Files compressed by gzip, bzip2, xz or (where the standard library has it) zstd are read too. Rows come in
order, or with what lies before them.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.source import Columns, FurtherColumns, ParticleRows, detector_of, primaries_of
from caloforge.particles import mass_and_charge

FINAL = 1
"""Status of a particle that nothing happens to in the generator."""

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes that may follow .hepmc or .hepmc3."""

START, END = b"HepMC::Asciiv3-START_EVENT_LISTING", b"HepMC::Asciiv3-END_EVENT_LISTING"
LONGEST_LINE = 1 << 24
GEV = {b"GEV": 1.0, b"MEV": 1e-3}
CM = {b"CM": 1.0, b"MM": 0.1}


def _uncompressed(path: Path) -> IO[bytes]:
    """Opens a file; what compresses it is told by its first bytes, not by its name."""
    with path.open("rb") as file:
        head = file.read(6)
    openers: tuple[tuple[bytes, Callable[[], Any]], ...] = (
        (b"\x1f\x8b", lambda: gzip.open(path)),  # noqa: SIM115 (the caller closes it)
        (b"BZh", lambda: bz2.open(path)),  # noqa: SIM115 (the caller closes it)
        (b"\xfd7zXZ\x00", lambda: lzma.open(path)),  # noqa: SIM115 (the caller closes it)
        (b"\x28\xb5\x2f\xfd", lambda: _zstd(path)),
    )
    for magic, opener in openers:
        if head.startswith(magic):
            stream: IO[bytes] = opener()
            return stream
    return path.open("rb")


def _zstd(path: Path) -> IO[bytes]:
    try:
        zstd = importlib.import_module("compression.zstd")
    except ModuleNotFoundError:
        raise ValueError("zstd needs Python 3.14 or later; unpack the file first") from None
    stream: IO[bytes] = zstd.open(path)
    return stream


@dataclass
class _Event:
    """Holds the lines of one event while they are read.

    Attributes:
        number: as on the line E.
        line: of the line E.
        vertices, particles: declared numbers.
        position: of the event, in the file's unit.
        units: factors to GeV and cm.
        weights: of the event; None before its line W.
        parents: vertex (negative) or particle (positive) of each particle, by id.
        final: id, PDG id, and px, py, pz, E and mass of each final particle.
        incoming: ids of the particles that enter each vertex.
        places: of vertices that have one.
    """

    number: int
    line: int
    vertices: int
    particles: int
    position: tuple[float, ...] = (0.0, 0.0, 0.0)
    units: tuple[float, float] | None = None
    weights: list[float] | None = None
    parents: dict[int, int] = field(default_factory=dict)
    final: list[tuple[int, int, list[float]]] = field(default_factory=list)
    incoming: dict[int, list[int]] = field(default_factory=dict)
    places: dict[int, tuple[float, ...]] = field(default_factory=dict)


def _floats(words: list[bytes]) -> list[float]:
    values = [float(word) for word in words]
    if not all(map(math.isfinite, values)) or b"_" in b"".join(words):
        raise ValueError("a number is not finite")
    return values


def _place(words: list[bytes]) -> tuple[float, ...] | None:
    """Reads what may follow a vertex or event: `@ x y z t`."""
    if not words:
        return None
    if words[0] != b"@" or len(words) != 5:
        raise ValueError("wanted @ x y z t")
    return tuple(_floats(words[1:])[:3])


def _begin(words: list[bytes], line: int) -> _Event:
    number, vertices, particles = map(int, words[1:4])
    if vertices < 0 or particles < 0:
        raise ValueError("negative numbers of vertices or particles")
    if not -(2**31) <= number < 2**31:
        raise ValueError("the number of an event must fit 32 bits")
    event = _Event(number, line, vertices, particles)
    event.position = _place(words[4:]) or event.position
    return event


def _add(event: _Event, words: list[bytes]) -> None:
    """Adds one line of an event.

    Raises:
        ValueError: the line is none of HepMC3.
    """
    kind = words[0]
    if kind == b"P":
        if len(words) != 10:
            raise ValueError(f"a particle has 10 entries, got {len(words)}")
        label, parent, pdg, status = (int(words[place]) for place in (1, 2, 3, 9))
        numbers = _floats(words[4:9])
        if label in event.parents or not 1 <= label <= event.particles:
            raise ValueError(
                f"particle {label} stands there twice, or is none of the {event.particles} declared"
            )
        event.parents[label] = parent
        if status == FINAL:
            event.final.append((label, pdg, numbers))
    elif kind == b"V":
        label, _ = int(words[1]), int(words[2])
        if label >= 0 or label in event.incoming or words[3][:1] + words[3][-1:] != b"[]":
            raise ValueError("wanted V, a new negative number, a status and [particles]")
        inside = words[3][1:-1]
        event.incoming[label] = [int(word) for word in inside.split(b",")] if inside else []
        place = _place(words[4:])
        if place is not None and any(place):
            event.places[label] = place
        if len(event.incoming) > event.vertices:
            raise ValueError(f"more vertices than the {event.vertices} declared")
    elif kind == b"U":
        if len(words) != 3 or words[1] not in GEV or words[2] not in CM:
            raise ValueError("units must be GEV or MEV, and MM or CM")
        event.units = GEV[words[1]], CM[words[2]]
    elif kind == b"W":
        event.weights = _floats(words[1:])
    elif kind == b"A":
        if len(words) < 3:
            raise ValueError("an attribute has an id and a name")
        int(words[1])
    else:
        raise ValueError("wanted a line E, U, W, A, V or P")


def _complete(event: _Event) -> None:
    """Checks an event that has all its lines.

    Raises:
        ValueError: lines are missing, refer to nothing, or form a loop.
    """
    if len(event.parents) != event.particles:
        raise ValueError(f"{event.particles} particles declared, {len(event.parents)} found")
    if event.units is None:
        raise ValueError("the line U with the units is missing")
    implied = {parent for parent in event.parents.values() if parent > 0}
    if len(event.incoming) + len(implied) > event.vertices:
        raise ValueError(f"{event.vertices} vertices declared, {len(event.incoming) + len(implied)} found")
    for label, parent in event.parents.items():
        if parent and parent not in (event.parents if parent > 0 else event.incoming):
            raise ValueError(f"particle {label} comes from {parent}, which is missing")
    for vertex, labels in event.incoming.items():
        if any(label not in event.parents for label in labels):
            raise ValueError(f"a particle that enters vertex {vertex} is missing")
    _check_loops(event)


def _check_loops(event: _Event) -> None:
    # vertices are -1, -2, ...: each node's children, then all that hang on nothing are taken away in turn
    children: dict[int, list[int]] = {}
    missing = {label: 1 for label, parent in event.parents.items() if parent}
    for label, parent in event.parents.items():
        if parent:
            children.setdefault(parent, []).append(label)
    for vertex, labels in event.incoming.items():
        missing[vertex] = len(labels)
        for label in labels:
            children.setdefault(label, []).append(vertex)
    free = [label for label, parent in event.parents.items() if not parent]
    free += [vertex for vertex, labels in event.incoming.items() if not labels]
    done = 0
    while free:
        done += 1
        for child in children.get(free.pop(), ()):
            missing[child] -= 1
            if not missing[child]:
                free.append(child)
    if done != len(event.parents) + len(event.incoming):
        raise ValueError("its vertices form a loop")


def _place_of(event: _Event, label: int) -> tuple[float, ...]:
    """Returns where a particle begins: a vertex without a place is where its first particle came from."""
    parent = event.parents[label]
    while parent:
        if parent in event.places:
            return event.places[parent]
        if parent < 0 and not event.incoming[parent]:
            break
        parent = event.parents[event.incoming[parent][0] if parent < 0 else parent]
    return event.position


def _events(path: Path) -> Iterator[_Event]:
    """Gives every event of a file, checked.

    Raises:
        ValueError: the file is cut, a line is broken, or an event is not what it declares.
    """
    event: _Event | None = None
    started, ended, line = False, False, 0
    try:
        with _uncompressed(path) as file:
            while text := file.readline(LONGEST_LINE):
                line += 1
                if len(text) == LONGEST_LINE or b"\0" in text or b"\r" in text:
                    raise ValueError("holds NUL or CR bytes, or is too long")
                if text[-1:] != b"\n" and text != END:
                    raise ValueError("is cut")
                words = text.split()
                if ended and words:
                    raise ValueError("stands after the end of the events")
                if not words:
                    continue
                if not started:
                    if line > 2 or not text.startswith(b"HepMC::"):
                        raise ValueError(
                            "the header of HepMC3, HepMC::Version and START_EVENT_LISTING, is missing"
                        )
                    started = words == [START]
                elif words[0] == b"E" or words == [END]:
                    if event is not None:
                        _complete(event)
                        yield event
                    event, ended = (None, True) if words == [END] else (_begin(words, line), False)
                elif event is not None:
                    _add(event, words)
                elif words[0] not in (b"W", b"N", b"T", b"A"):
                    raise ValueError("wanted a line W, N, T, A or E")
        if not ended:
            raise ValueError(f"the end of the file is missing: it is cut, wanted {END.decode()}")
    except (ValueError, IndexError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        where = f"event {event.number} (from line {event.line}), " if event is not None else ""
        problem = " ".join(str(error).split()) if not isinstance(error, IndexError) else "entries are missing"
        raise ValueError(f"truncated, or not a HepMC3 file: {where}line {line}: {problem[:200]}") from error


def _rows(path: Path) -> Iterator[tuple[dict[str, float], int, int, float]]:
    """Gives features by name, PDG id, event and weight of each final particle."""
    for event in _events(path):
        assert event.units is not None
        weight = event.weights[0] if event.weights else math.nan
        for label, pdg, numbers in event.final:
            px, py, pz, energy, mass = (event.units[0] * number for number in numbers)
            vx, vy, vz = (event.units[1] * number for number in _place_of(event, label))
            features = {
                "energy": energy,
                "incident_energy": 1e3 * energy,
                "vx": vx,
                "vy": vy,
                "vz": vz,
                "px": px,
                "py": py,
                "pz": pz,
                "mass": mass,
                "charge": mass_and_charge(pdg)[1],
                "theta": math.atan2(math.hypot(px, py), pz),
                "phi": math.atan2(py, px),
            }
            yield features, pdg, event.number, weight


class _Reader:
    """Reads rows of a file; those that follow each other without starting over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines, self._next = _rows(path), 0

    def read(self, start: int, stop: int) -> list[tuple[dict[str, float], int, int, float]]:
        if start != self._next or start == 0:
            self._lines = islice(_rows(self._path), start, None)
        self._next = stop
        return list(islice(self._lines, stop - start))


def open_particles(path: Path, detector: Detector | None = None) -> ParticleRows:
    """Opens the final particles of a file, in the order in which they stand there.

    Raises:
        ValueError: no HepMC3 file, a broken line or event of it (the message names both), or a detector with
            features that it does not hold.
    """
    detector = detector_of(detector, None, None)
    known = {
        "energy",
        "incident_energy",
        "vx",
        "vy",
        "vz",
        "px",
        "py",
        "pz",
        "mass",
        "charge",
        "theta",
        "phi",
    }
    lacking = [name for name in detector.features if name not in known]
    if lacking:
        raise ValueError(f"{detector.name} needs {', '.join(lacking)}, which a HepMC3 file does not hold")
    rows = sum(len(event.final) for event in _events(path))
    reader, names = _Reader(path), detector.features

    def read(start: int, stop: int) -> Primaries:
        lines = reader.read(start, stop)
        conditions = np.array([[features[name] for name in names] for features, *_ in lines])
        pdg = np.array([line[1] for line in lines])
        return primaries_of(detector, conditions.reshape(len(lines), len(names)), pdg)

    return ParticleRows(detector, rows, False, read)


def further(path: Path) -> FurtherColumns:
    """Opens the columns `event` and, where every event has weights, `weight`.

    Raises:
        ValueError: a broken line or event.
    """
    rising, weighted, last = True, True, -math.inf
    for event in _events(path):
        rising, weighted, last = (
            rising and event.number > last,
            weighted and bool(event.weights),
            event.number,
        )
    names = ("event", "weight") if weighted else ("event",)

    def rows() -> Iterator[tuple[int, float]]:
        for place, event in enumerate(_events(path)):
            weight = event.weights[0] if event.weights else math.nan
            yield from [(event.number if rising else place, weight)] * len(event.final)

    lines: Iterator[tuple[int, float]] = iter(())
    following = 0

    def read(start: int, stop: int) -> Columns:
        nonlocal lines, following
        if start != following or start == 0:
            lines = islice(rows(), start, None)
        following = stop
        pairs = list(islice(lines, stop - start))
        columns: Columns = {
            "event": np.array([number for number, _ in pairs], np.int32),
            "weight": np.array([weight for _, weight in pairs], np.float64),
        }
        return {name: columns[name] for name in names}

    return FurtherColumns(names, read)


def no_provenance(path: Path) -> dict[str, Any]:
    """Returns an empty mapping: they have none."""
    return {}
