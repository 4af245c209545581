"""Events: particles that enter a detector and the responses they leave, checked at construction.

`Primaries` is what a generator is asked for, `Events` adds the responses. An `EventSource` is a set of events
that may lie in a file: its particles are at hand, its responses are read by rows.

Rows are not independent: a data set holds few unique particles, each simulated many times. So every row has a
`group` (the same particle has the same group), and a split either shares particles between its parts or not:

- `canonical`: by the file's folds 0..9, which are by particle: test 0 and 1, validation 2, training 3 to 9.
- `grouped`: by particle, 70/10/20, from a hash of its features: the same particle falls in the same part in
  every file.
- `paper`: by row, 70/10/20, as the publications do; particles are shared between training and test. From a
  hash of the row's content, so that a row keeps its part when the file is cut, joined or sorted.
- `ordered`: by the place in each file, 70/10/20: the last 20 % of its rows are the test part. For files whose
  rows are independent showers without folds; cutting or sorting a file changes it.
- `files`: every row trains but for a small share, evenly spaced, that chooses the weights; every row of other
  files judges (`judged`). As in published challenges, which bring a file for either.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.particles import pdg_ids

Split = Literal["canonical", "grouped", "paper", "ordered", "files"]
Part = Literal["train", "validation", "test"]
Rows = NDArray[np.intp] | slice

RAY = ("vx", "vy", "vz", "px", "py", "pz")
"""Features that say where a particle's straight line goes."""

VALIDATION = 0.02
"""Share of the rows that the split `files` keeps from the training, to choose the weights by."""

SLICE = 4096
"""Rows read at once when a whole source is walked through."""

SLICE_CELLS = 2**25
"""Cells read at once at most: large responses come in fewer rows."""


def _column(values: object, rows: int, dtype: type, name: str) -> NDArray[np.generic]:
    column = np.asarray(values)
    if column.shape != (rows,):
        raise ValueError(f"{name} must have shape ({rows},), one value a row, got {column.shape}")
    return column.astype(dtype, copy=False)


def _weights(values: object, rows: int) -> NDArray[np.float64]:
    weight = np.asarray(values)
    if weight.dtype.kind not in "iufb":
        raise ValueError(f"weight must be numbers, got {weight.dtype}")
    weight = np.asarray(_column(weight, rows, np.float64, "weight"), np.float64)
    bad = ~np.isfinite(weight)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"weight must be finite, got {weight[row]} in row {row}")
    return weight


def groups_of(conditions: NDArray[np.generic], pdg: NDArray[np.generic]) -> NDArray[np.int32]:
    """Numbers unique particles: rows with equal features and PDG id get the same group, (N,)."""
    rows = np.column_stack([np.asarray(conditions, np.float64), np.asarray(pdg, np.float64)])
    _, group = np.unique(rows + 0.0, axis=0, return_inverse=True)
    return group.reshape(-1).astype(np.int32)


SHOWN_ROWS = 8
"""Rows that a notebook shows."""


@dataclass(frozen=True, eq=False)
class Primaries:
    """Particles that enter a detector.

    Attributes:
        detector: the detector they enter.
        conditions: features in the detector's order and units, (N, F) float32.
        pdg: PDG ids, (N,) int32.
        group: number of the unique particle, (N,) int32; derived from the features where not given.
        fold: fold 0..9 of the file, or -1 where it has none, (N,) int8.
        weight: how much each row counts, (N,) float64; None where all count alike.

    Raises:
        ValueError: wrong shapes, a value that is not finite, or an energy below |p|; the message names the row.
    """

    detector: Detector
    conditions: NDArray[np.float32]
    pdg: NDArray[np.int32]
    group: NDArray[np.int32] = None  # type: ignore[assignment]
    fold: NDArray[np.int8] = None  # type: ignore[assignment]
    weight: NDArray[np.float64] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        conditions = np.asarray(self.conditions)
        features = self.detector.features
        if conditions.ndim != 2 or conditions.shape[1] != len(features):
            raise ValueError(
                f"{self.detector.name} conditions must have shape (N, {len(features)}): "
                f"{', '.join(features)}; got {conditions.shape}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            conditions = conditions.astype(np.float32, copy=False)
        rows = len(conditions)
        bad = ~np.isfinite(conditions)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(
                f"conditions must be finite, got {conditions[row, column]} in row {row}, {features[column]}"
            )
        pdg = _column(self.pdg, rows, np.int32, "pdg")
        group = groups_of(conditions, pdg) if self.group is None else self.group
        fold = np.full(rows, -1) if self.fold is None else self.fold
        for name, value in (
            ("conditions", conditions),
            ("pdg", pdg),
            ("group", _column(group, rows, np.int32, "group")),
            ("fold", _column(fold, rows, np.int8, "fold")),
        ):
            object.__setattr__(self, name, value)
        if self.weight is not None:
            object.__setattr__(self, "weight", _weights(self.weight, rows))
        self._check_energies()

    def _check_energies(self) -> None:
        if "incident_energy" in self.detector.features:
            incident = self.feature("incident_energy")
            if (incident <= 0).any():
                row = int(np.argmax(incident <= 0))
                raise ValueError(f"incident_energy must be positive, got {incident[row]} in row {row}")
        if not {"energy", "px", "py", "pz"} <= set(self.detector.features):
            return
        energy = self.feature("energy").astype(np.float64)
        momentum = np.sqrt(sum(self.feature(name).astype(np.float64) ** 2 for name in ("px", "py", "pz")))
        bad = (energy <= 0) | (energy < momentum * (1 - 1e-5))
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"energy must be positive and at least |p|, got E = {energy[row]:g} GeV and |p| = "
                f"{momentum[row]:g} GeV in row {row}: are the columns missing or swapped? "
                f"The order is {', '.join(self.detector.features)}"
            )

    def __len__(self) -> int:
        return len(self.conditions)

    def __repr__(self) -> str:
        return f"<{len(self):,} particles before {self.detector.title}>"

    def to_dict(self) -> dict[str, NDArray[np.generic]]:
        """Returns a column a feature, `pdg`, `group`, `fold` and any `weight`, (N,) each, for a data frame."""
        columns = {name: self.feature(name) for name in self.detector.features}
        weight = {} if self.weight is None else {"weight": self.weight}
        return {**columns, "pdg": self.pdg, "group": self.group, "fold": self.fold, **weight}

    def to_dataframe(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Returns the columns of `to_dict` as a data frame.

        Args:
            library: whose data frame.

        Raises:
            ValueError: another library.
            ImportError: it is not installed; `pip install 'caloforge[frames]'`.
        """
        if library not in ("pandas", "polars"):
            raise ValueError(f"library must be pandas or polars, got {library!r}")
        return require(library, "frames").DataFrame(self.to_dict())

    def to_hdf5(self, path: str | Path) -> None:
        """Writes an HDF5 file, whole or not at all; its suffix must be .h5 or .hdf5."""
        self._write(path, ".h5", ".hdf5")

    def to_root(self, path: str | Path) -> None:
        """Writes a ROOT file, whole or not at all; its suffix must be .root."""
        self._write(path, ".root")

    def to_parquet(self, path: str | Path) -> None:
        """Writes a Parquet file, whole or not at all; its suffix must be .parquet."""
        self._write(path, ".parquet")

    def _write(self, path: str | Path, *suffixes: str) -> None:
        from caloforge.io import create

        if Path(path).suffix.lower() not in suffixes:
            raise ValueError(f"{path} must end with {' or '.join(suffixes)}")
        with create(path, self.detector) as writer:
            writer.append(self)

    def _repr_html_(self) -> str:
        """Shows the first rows in a notebook."""
        columns = self.to_dict()
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{values[row]:.6g}</td>' for values in columns.values())}</tr>"
            for row in range(min(len(self), SHOWN_ROWS))
        )
        more = f"<p>{len(self) - SHOWN_ROWS:,} more rows</p>" if len(self) > SHOWN_ROWS else ""
        return f"<p>{escape(repr(self))}</p><table><tr>{head}</tr>{body}</table>{more}"

    def feature(self, name: str) -> NDArray[np.float32]:
        """Returns one column of the conditions by name, (N,)."""
        return self.conditions[:, self.detector.features.index(name)]

    def select(self, rows: Rows) -> Primaries:
        """Returns some of the particles."""
        return Primaries(
            self.detector,
            self.conditions[rows],
            self.pdg[rows],
            self.group[rows],
            self.fold[rows],
            weight=None if self.weight is None else self.weight[rows],
        )


@dataclass(frozen=True, eq=False)
class Events(Primaries):
    """Particles and their responses; itself an `EventSource` in memory.

    Attributes:
        responses: cell contents in the detector's unit, (N, *shape), finite and not negative.

    Raises:
        ValueError: wrong shape, or a cell that is not finite or negative; the message names the row.
    """

    responses: NDArray[np.generic] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        responses = np.asarray(self.responses)
        shape = (len(self.conditions), *self.detector.shape)
        if responses.shape != shape:
            raise ValueError(
                f"{self.detector.name} responses must have shape {shape}, one response for each of the "
                f"{shape[0]} conditions, got {responses.shape}"
            )
        if responses.dtype.kind not in "uif":
            raise ValueError(f"responses must be numbers, got dtype {responses.dtype}")
        for problem, bad in (
            ("finite", ~np.isfinite(responses) if responses.dtype.kind == "f" else None),
            ("zero or positive", responses < 0 if responses.dtype.kind in "if" else None),
        ):
            if bad is not None and bad.any():
                row = int(np.argmax(bad.reshape(len(bad), -1).any(1)))
                raise ValueError(
                    f"responses must be {problem}, got {responses[row][bad[row]][0]} in row {row}"
                )
        object.__setattr__(self, "responses", responses)

    def __repr__(self) -> str:
        return f"<{len(self):,} events of {self.detector.title}, in {self.detector.unit}>"

    def channels(self, name: str | None = None) -> dict[str, NDArray[np.float64]]:
        """Returns the sums of each channel by its label, (N,) each.

        Args:
            name: of the channel map; the default one where not given.
        """
        labels = self.detector.channel_map(name).labels
        return dict(zip(labels, self.detector.readout(self.responses, name).T, strict=True))

    def to_dict(self) -> dict[str, NDArray[np.generic]]:
        """Returns the columns of the particles and the sums of the default channels, (N,) each, for a data frame."""
        return {**super().to_dict(), **self.channels()}

    def to_awkward(self) -> Any:
        """Returns the columns of `to_dict` and, as lists of any length, the lit cells of each event.

        The field `cells` has one record a cell that is not zero: its number, in C order of the detector's axes, and its
        `value` in the detector's unit.

        Raises:
            ImportError: awkward is not installed; `pip install 'caloforge[root]'`.
        """
        awkward = require("awkward", "root")
        flat = self.responses.reshape(len(self), -1)
        rows, cells = np.nonzero(flat)
        counts = np.bincount(rows, minlength=len(self))
        lit = awkward.zip({"number": cells, "value": flat[rows, cells]})
        return awkward.Array({**self.to_dict(), "cells": awkward.unflatten(lit, counts)})

    def plot(self, rows: Sequence[int] | None = None) -> Any:
        """Draws responses as `caloforge.plot.event` does; the first four where no rows are given."""
        from caloforge import plot

        return plot.event(self, rows)

    @property
    def primaries(self) -> Primaries:
        """The particles alone."""
        return Primaries(self.detector, self.conditions, self.pdg, self.group, self.fold, weight=self.weight)

    def slices(self, rows: Rows) -> Events:
        """Returns some of the events."""
        return with_responses(self.primaries.select(rows), self.responses[rows])


class ParticleSource(Protocol):
    """Particles that are read by rows, from memory or a file; `Primaries` is one."""

    @property
    def detector(self) -> Detector:
        """The detector they enter."""

    def __len__(self) -> int: ...

    def select(self, rows: Rows) -> Primaries:
        """Reads some of the particles."""


class EventSource(Protocol):
    """Events whose particles are at hand and whose responses are read by rows, from memory or a file."""

    @property
    def primaries(self) -> Primaries:
        """Every particle, in the order of the rows."""

    def __len__(self) -> int: ...

    def slices(self, rows: Rows) -> Events:
        """Reads some rows, in the order asked for."""


@dataclass(frozen=True, eq=False)
class Selected:
    """Some rows of a source, as a source."""

    source: EventSource
    rows: NDArray[np.intp]

    @property
    def primaries(self) -> Primaries:
        """The particles of these rows."""
        return self.source.primaries.select(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def slices(self, rows: Rows) -> Events:
        """Reads some rows, counted within this selection."""
        return self.source.slices(self.rows[rows])


def _joined_weights(parts: Sequence[Primaries]) -> NDArray[np.float64] | None:
    """Joins weights, 1 for the rows of sources without any; None where no source has any."""
    if all(part.weight is None for part in parts):
        return None
    return np.concatenate([np.ones(len(part)) if part.weight is None else part.weight for part in parts])


class Joined:
    """Several sources of one detector end to end, as a source.

    Groups are derived again from the features, so that a particle has one group over all sources.

    Raises:
        ValueError: no source, or sources of different detectors.
    """

    def __init__(self, sources: Sequence[EventSource]) -> None:
        names = {source.primaries.detector.name for source in sources}
        if len(names) != 1:
            raise ValueError(
                f"the data must be of one detector, got {', '.join(sorted(names)) or 'no data at all'}"
            )
        self.sources = tuple(sources)
        self._starts = np.cumsum([0, *(len(source) for source in sources)])
        parts = [source.primaries for source in sources]
        self.primaries = Primaries(
            parts[0].detector,
            np.concatenate([part.conditions for part in parts]),
            np.concatenate([part.pdg for part in parts]),
            fold=np.concatenate([part.fold for part in parts]),
            weight=_joined_weights(parts),
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def slices(self, rows: Rows) -> Events:
        """Reads some rows, counted from the first source's first."""
        index = np.arange(len(self))[rows]
        owner = np.searchsorted(self._starts, index, side="right") - 1
        responses: NDArray[np.generic] | None = None
        for number in np.unique(owner):
            own = owner == number
            part = self.sources[number].slices(index[own] - self._starts[number]).responses
            if responses is None:
                responses = np.empty((len(index), *part.shape[1:]), part.dtype)
            elif responses.dtype != part.dtype:
                responses = responses.astype(np.promote_types(responses.dtype, part.dtype))
            responses[own] = part
        particles = self.primaries.select(index)
        if responses is None:
            responses = np.empty((0, *particles.detector.shape), np.uint16)
        return with_responses(particles, responses)


LARGEST_COUNT = 2**24
"""Largest count that float32, in which files keep what uint16 cannot hold, has with all numbers below it."""


def as_counts(
    responses: NDArray[np.generic], events: NDArray[np.integer] | None = None, whole: bool = False
) -> NDArray[np.generic]:
    """Returns whole counts as uint16 where they fit, else the values as they are; no count wraps or is cut.

    Args:
        responses: cell contents as a graph or a model gives them, (N, *shape).
        events: numbers of the events, for the message, (N,); the rows' where not given.
        whole: nothing but whole counts is allowed.

    Raises:
        ValueError: a value that is not finite, negative, a count above 2^24, or (`whole`) not a whole number; the
            message names the event.
    """
    values = np.asarray(responses)
    if not values.size:
        return values.astype(np.uint16)
    integer = values.dtype.kind in "ui"
    if integer or whole:
        _refuse(values, values > LARGEST_COUNT, f"a count of at most {LARGEST_COUNT}", events)
    if values.dtype.kind != "u":
        _refuse(values, ~np.isfinite(values), "a finite number", events)
        _refuse(values, values < 0, "a number of zero or more", events)
    fraction = None if integer else values != np.rint(values)
    if fraction is not None and whole:
        _refuse(values, fraction, "a whole count", events)
    if (fraction is not None and fraction.any()) or values.max() > np.iinfo(np.uint16).max:
        return values
    return values.astype(np.uint16)


def _refuse(
    values: NDArray[np.generic], bad: NDArray[np.bool_], wanted: str, events: NDArray[np.integer] | None
) -> None:
    """Raises ValueError where any value is bad; it names the event of the first."""
    if bad.any():
        row = int(np.argmax(bad.reshape(len(bad), -1).any(1)))
        number = row if events is None else int(events[row])
        raise ValueError(
            f"a response must hold {wanted} in every cell, the model gave {values[row][bad[row]].flat[0]} "
            f"for event {number}"
        )


class Displaced:
    """A source whose vertices are displaced at random, while each straight line meets the face where it did.

    In a collider vertices scatter over the beam spot. What a prompt particle does hangs on where it meets the
    detector, so each displaced ray is turned to the same point of the face; energy and momentum stay. A network that
    sees such rays does not take a displaced prompt vertex for a decay.

    Args:
        source: events, or trials, of a detector with a face.
        spot: standard deviations of the displacement in x, y and z, in cm.
        seed: row k is displaced by a function of the seed and k.

    Raises:
        ValueError: the detector has no face, or its conditions lack vertex or momentum.
    """

    def __init__(self, source: EventSource, spot: Sequence[float], seed: int) -> None:
        self.source = source
        particles = source.primaries
        shifts = np.random.Generator(np.random.Philox(key=seed)).standard_normal((len(source), 3)) * spot
        self._conditions = displaced(particles, shifts)
        self.primaries = dataclasses.replace(particles, conditions=self._conditions)

    def __len__(self) -> int:
        return len(self.source)

    def slices(self, rows: Rows) -> Events:
        """Reads some rows, with displaced vertices."""
        return dataclasses.replace(self.source.slices(rows), conditions=self._conditions[rows])


def can_displace(detector: Detector) -> bool:
    """Returns whether vertices before the detector can be displaced: it has a face, a vertex and a momentum."""
    return detector.face is not None and set(RAY) <= set(detector.features)


def displaced(primaries: Primaries, shifts: NDArray[np.floating]) -> NDArray[np.float32]:
    """Moves vertices, and turns each ray so that its straight line meets the detector's face where it did.

    Args:
        primaries: N particles.
        shifts: of the vertices in x, y and z, in cm, (N, 3).

    Returns:
        conditions, (N, F); particles with pz = 0, whose line meets no face, stay as they are.

    Raises:
        ValueError: the detector has no face, or its conditions lack vertex or momentum.
    """
    detector = primaries.detector
    if detector.face is None or not can_displace(detector):
        raise ValueError(
            f"displaced vertices need a face and the conditions {', '.join(RAY)}; {detector.name} has face "
            f"{detector.face} and {', '.join(detector.features)}"
        )
    columns = [detector.features.index(name) for name in RAY]
    rays = primaries.conditions[:, columns].astype(np.float64)
    vertex, ahead = rays[:, :3], np.abs(rays[:, 5])
    with np.errstate(divide="ignore", invalid="ignore"):
        turned = aimed(rays, vertex + shifts, straight_impact(rays, detector.face.z), detector.face.z)
    conditions = primaries.conditions.copy()
    reaches = (ahead > 0) & np.isfinite(turned).all(axis=1)
    conditions[np.ix_(reaches, np.array(columns))] = turned[reaches]
    return conditions


def straight_impact(rays: NDArray[np.float64], face: float) -> NDArray[np.float64]:
    """Returns where rays (N, 6), as `RAY` says, meet the plane |z| = face, x and y in cm, (N, 2)."""
    vertex, momentum = rays[:, :3], rays[:, 3:]
    length, ahead = face - np.sign(momentum[:, 2]) * vertex[:, 2], np.abs(momentum[:, 2])
    return np.asarray(vertex[:, :2] + momentum[:, :2] / ahead[:, None] * length[:, None])


def aimed(
    rays: NDArray[np.float64], vertex: NDArray[np.float64], impact: NDArray[np.float64], face: float
) -> NDArray[np.float64]:
    """Turns rays to a point of the face from another vertex; side and size of the momentum stay.

    Args:
        rays: as `RAY` says, (N, 6).
        vertex: new vertices in cm, (N, 3).
        impact: where they shall meet the plane |z| = face, in cm, (N, 2).
        face: in cm.

    Returns:
        rays, (N, 6).
    """
    momentum, side = rays[:, 3:], np.sign(rays[:, 5])
    slopes = (impact - vertex[:, :2]) / (face - side * vertex[:, 2])[:, None]
    forward = np.linalg.norm(momentum, axis=1) / np.sqrt(1 + (slopes**2).sum(1))
    return np.column_stack([vertex, slopes * forward[:, None], side * forward])


def with_responses(primaries: Primaries, responses: NDArray[np.generic]) -> Events:
    """Joins particles and the responses they left, (N, *shape)."""
    return Events(
        primaries.detector,
        primaries.conditions,
        primaries.pdg,
        primaries.group,
        primaries.fold,
        responses,
        weight=primaries.weight,
    )


def rows_at_once(detector: Detector, size: int = SLICE) -> int:
    """Returns how many rows to read at once: `size`, or as many as `SLICE_CELLS` allow."""
    return min(size, max(SLICE_CELLS // detector.cells, 1))


def in_slices(source: EventSource, size: int = SLICE) -> Iterable[Events]:
    """Walks through a source in order, `size` rows at a time, fewer where responses are large."""
    size = rows_at_once(source.primaries.detector, size)
    for start in range(0, len(source), size):
        yield source.slices(slice(start, start + size))


def load(source: EventSource) -> Events:
    """Reads a whole source into memory."""
    return source.slices(slice(None))


def _uniform_of(content: bytes, salt: bytes) -> float:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=salt).digest(), "little") / 2**64


def split(
    source: EventSource, kind: Split, seed: int = 0, validation: float | None = None
) -> dict[Part, NDArray[np.intp]]:
    """Splits the rows of a source into training, validation and test rows.

    Args:
        source: the events; `paper` reads every response, the others only the particles.
        kind: `canonical`, `grouped`, `paper`, `ordered` or `files`, as in the module's docstring.
        seed: another seed, another split; `canonical`, `ordered` and `files` ignore it.
        validation: of `files`, the share of the rows that choose the weights; `VALIDATION` where not given.

    Returns:
        row numbers of each part, ascending.

    Raises:
        ValueError: unknown kind, or `canonical` for data without folds.
    """
    particles = source.primaries
    if kind == "canonical":
        if (particles.fold < 0).any():
            raise ValueError(
                "a canonical split needs folds 0..9, and these data have none: use split = 'grouped'"
            )
        fold = particles.fold
        return {
            "train": np.flatnonzero(fold >= 3),
            "validation": np.flatnonzero(fold == 2),
            "test": np.flatnonzero(fold < 2),
        }
    if kind == "ordered":
        return _ordered(source)
    if kind == "files":
        return _all_but(len(source), VALIDATION if validation is None else validation)
    salt = seed.to_bytes(8, "little", signed=True)
    if kind == "grouped":
        rows = np.column_stack(
            [particles.conditions.astype(np.float64) + 0.0, particles.pdg.astype(np.float64)]
        )
        u = np.array([_uniform_of(row.tobytes(), salt) for row in rows])
    elif kind == "paper":
        u = np.array(
            [
                _uniform_of(conditions.tobytes() + response.tobytes(), salt)
                for events in in_slices(source)
                for conditions, response in zip(
                    events.conditions, events.responses.astype(np.float32), strict=True
                )
            ]
        )
    else:
        raise ValueError(f"no split {kind!r}; there are {', '.join(get_args(Split))}")
    u = u.reshape(len(particles))
    return {
        "train": np.flatnonzero(u < 0.7),
        "validation": np.flatnonzero((u >= 0.7) & (u < 0.8)),
        "test": np.flatnonzero(u >= 0.8),
    }


def judged(source: EventSource, kind: Split, seed: int = 0) -> NDArray[np.intp]:
    """Returns the rows of a reference that may judge a model of that split: the test part, and of `files` all."""
    return np.arange(len(source)) if kind == "files" else split(source, kind, seed)["test"]


def _all_but(rows: int, share: float) -> dict[Part, NDArray[np.intp]]:
    """Keeps an evenly spaced share of the rows from the training."""
    chosen = np.diff(np.floor(np.arange(rows + 1) * share + 0.5)) > 0
    return {
        "train": np.flatnonzero(~chosen),
        "validation": np.flatnonzero(chosen),
        "test": np.empty(0, np.intp),
    }


def _ordered(source: EventSource) -> dict[Part, NDArray[np.intp]]:
    """Splits each file of a source by place: the first 70 %, the next 10 %, the last 20 % of its rows."""
    parts: dict[Part, list[NDArray[np.intp]]] = {"train": [], "validation": [], "test": []}
    start = 0
    for file in source.sources if isinstance(source, Joined) else [source]:
        rows = start + np.arange(len(file))
        test, validation = -(-len(file) // 5), -(-len(file) // 10)
        cuts = [len(file) - test - validation, len(file) - test] if len(file) else [0, 0]
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            parts[part].append(piece)
        start += len(file)
    return {part: np.concatenate(pieces) for part, pieces in parts.items()}


def of_particles(source: EventSource, names: Sequence[str]) -> EventSource:
    """Keeps the rows of the particles named as in the PDG tables ("n", "Lambda", "K(S)0", or "2112")."""
    if not names:
        return source
    return Selected(source, np.flatnonzero(np.isin(source.primaries.pdg, pdg_ids(names))))
