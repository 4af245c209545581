r"""Columns of files as their makers named them, and what follows from them.

A `Layout` says under which names a file keeps what a detector needs: `energy=E,px=p_x,pdg=22`. A number stands for a
column that is the same in every row. `NAME.columns.toml` beside a file `NAME` is its remembered layout and is read by
whatever opens the file:

    detector = "zn"
    tree = "particles"
    [columns]
    energy = "E"
    pdg = 22

Some features need no column, since others tell them (natural units, GeV; `derived`):

- the PDG id tells mass and charge, and a detector of one kind of particle the PDG id;
- energy, mass and the angles `theta` and `phi` tell the momentum, $p = \sqrt{E^2 - m^2}$ along
  $(\sin\theta\cos\phi, \sin\theta\sin\phi, \cos\theta)$, and the momentum tells the angles;
- momentum and mass tell the energy, $E = \sqrt{p^2 + m^2}$, where there are no angles.
"""

from __future__ import annotations

import difflib
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
from numpy.typing import NDArray

from caloforge._lookup import nearest
from caloforge.detectors import DETECTORS, Detector
from caloforge.io.files import replacing
from caloforge.particles import mass_and_charge
from caloforge.recipe import DataConfig

PARTICLE_COLUMNS = ("pdg", "group", "fold")

Column = Callable[[str], NDArray[np.generic]]
"""Reads a column by its name."""

MOMENTUM, ANGLES = ("px", "py", "pz"), ("theta", "phi")

OTHER_NAMES = {
    "energy": ("e", "en", "etot", "ekin", "energies", "einc", "incidentenergy", "incidentenergies"),
    "incident_energy": ("e", "en", "energy", "energies", "einc", "incidentenergies"),
    **{f"v{axis}": (f"prod{axis}", axis, f"vtx{axis}", f"{axis}vtx", f"vertex{axis}") for axis in "xyz"},
    **{f"p{axis}": (f"mom{axis}", f"momentum{axis}", f"{axis}mom") for axis in "xyz"},
    "mass": ("m",),
    "charge": ("q", "ch"),
    "theta": ("th", "polar", "polarangle"),
    "phi": ("ph", "azimuth", "azimuthalangle"),
    "pdg": ("pid", "pdgid", "pdgcode", "particleid", "id"),
    "responses": ("response", "showers", "shower", "cells", "images", "image", "hits"),
}
"""What others call the columns, in small letters and without signs; used to propose `--columns`, never to read."""


@dataclass(frozen=True)
class Layout:
    """Says how a file names what it holds.

    Attributes:
        columns: name of each column in the file, or the number that stands in every row, by our name.
        tree: of a ROOT file.
        detector: name of the detector, one of `DETECTORS`.
    """

    columns: tuple[tuple[str, str | float], ...] = ()
    tree: str | None = None
    detector: str | None = None

    @property
    def mapping(self) -> dict[str, str | float]:
        """The columns as a dictionary."""
        return dict(self.columns)

    def source(self, name: str) -> str:
        """Returns the name in the file of a column that is no number for all rows.

        Raises:
            ValueError: it is a number.
        """
        source = self.mapping.get(name, name)
        if not isinstance(source, str):
            raise ValueError(f"{name} cannot be a number for all rows, got {name}={source:g}")
        return source

    def constant(self, name: str) -> float | None:
        """Returns the number that stands in every row of a column; None where it is not one."""
        value = self.mapping.get(name)
        return None if isinstance(value, str) else value

    def sources_of(self, names: Iterable[str]) -> set[str]:
        """Returns the names in the file of some columns."""
        mapping = self.mapping
        return {source for name in names if isinstance(source := mapping.get(name, name), str)}

    def renamed(self, names: Iterable[str], read: Column, rows: int) -> tuple[list[str], Column]:
        """Returns names and columns of a table under our names; those that were not renamed stay.

        Args:
            names: of the table's columns.
            read: reads a column by the table's name.
            rows: their number.

        Raises:
            ValueError: a column that the layout names is not there.
        """
        names, mapping = list(names), self.mapping
        for source in mapping.values():
            if isinstance(source, str) and source not in names:
                raise ValueError(
                    f"no column {source!r}; the file has {listed(names)}{nearest(source, names)}"
                )

        def column(name: str) -> NDArray[np.generic]:
            source = mapping.get(name, name)
            return read(source) if isinstance(source, str) else np.full(rows, source)

        taken = set(mapping.values()) - set(mapping)
        return [*(name for name in names if name not in taken and name not in mapping), *mapping], column


PLAIN = Layout()


class NoResponsesError(ValueError):
    """The file holds particles only."""


class ColumnsError(ValueError):
    """A file lacks columns; `options` of the command line would read it.

    Args:
        message: what it lacks.
        options: such as `--columns energy=E`.
    """

    def __init__(self, message: str, options: str) -> None:
        super().__init__(message)
        self.options = options


@contextmanager
def proposing(layout: Layout) -> Iterator[None]:
    """Adds to the options of a `ColumnsError` those that were given already."""
    try:
        yield
    except ColumnsError as error:
        mapping = ",".join(
            f"{name}={value if isinstance(value, str) else f'{value:g}'}" for name, value in layout.columns
        )
        options = (
            [f"--tree {shlex.quote(layout.tree)}"] if layout.tree and "--tree " not in error.options else []
        )
        options += [f"--columns {shlex.quote(mapping)}"] if mapping else []
        raise ColumnsError(str(error), " ".join([*options, error.options])) from None


def listed(names: Iterable[str]) -> str:
    """Returns names of a file in a text that a terminal can show."""
    # names of a broken file may be long and hold line breaks
    return ", ".join("".join(c if c.isprintable() else "?" for c in name[:80]) for name in names) or "none"


def parse_columns(text: str) -> dict[str, str | float]:
    """Reads `energy=E,px=p_x,pdg=22`.

    Raises:
        ValueError: not NAME=COLUMN or NAME=NUMBER, separated by commas.
    """
    columns: dict[str, str | float] = {}
    for piece in text.split(","):
        name, equals, source = (part.strip() for part in piece.partition("="))
        if not (name and equals and source):
            raise ValueError(f"columns are given as energy=E,px=p_x,pdg=22, got {piece.strip()!r}")
        if name in columns:
            raise ValueError(f"column {name} is given twice, the second time as {source!r}")
        columns[name] = _number(source)
    return columns


def _number(text: str) -> str | float:
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text) else text


def layout_of(
    columns: Mapping[str, str | float], tree: str | None = None, detector: str | None = None
) -> Layout:
    """Builds a layout.

    Args:
        columns: name in the file, or a number, by our name.
        tree: of a ROOT file.
        detector: a name of `DETECTORS`; others are not remembered.
    """
    values = tuple(
        (name, value if isinstance(value, str) else float(value)) for name, value in columns.items()
    )
    return Layout(values, tree, detector if detector in DETECTORS else None)


def layout_of_recipe(data: DataConfig) -> Layout | None:
    """Returns how the files of a recipe name what they hold; None where the recipe leaves that to them."""
    if data.columns is None and data.tree is None:
        return None
    return layout_of(data.columns or {}, data.tree)


def layout_path(path: Path) -> Path:
    """Returns where the layout of a file is remembered."""
    return path.with_name(f"{path.name}.columns.toml")


def remembered(path: Path) -> Layout:
    """Reads the layout beside a file; a plain one where there is none.

    Raises:
        ValueError: it cannot be read; the message names it.
    """
    file = layout_path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return PLAIN
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from error
    columns, tree, detector = values.get("columns", {}), values.get("tree"), values.get("detector")
    unknown = sorted(set(values) - {"columns", "tree", "detector"})
    if unknown:
        raise ValueError(f"{file}: no key {unknown[0]!r}; there are columns, tree, detector")
    plain = isinstance(columns, dict) and all(
        isinstance(value, str | int | float) and not isinstance(value, bool) for value in columns.values()
    )
    if not plain or not all(value is None or isinstance(value, str) for value in (tree, detector)):
        raise ValueError(f"{file}: columns are names or numbers, tree and detector names")
    if detector is not None and detector not in DETECTORS:
        raise ValueError(
            f"{file}: no detector {detector!r}{nearest(detector, DETECTORS)}: give it by --detector"
        )
    return layout_of(columns, tree, detector)


def remember(path: Path, layout: Layout) -> Path:
    """Writes a layout beside its file and returns where."""
    values: dict[str, object] = {
        name: value for name, value in (("detector", layout.detector), ("tree", layout.tree)) if value
    }
    values["columns"] = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in layout.columns
    }
    with replacing(layout_path(path)) as temporary:
        temporary.write_text(tomli_w.dumps(values), encoding="utf-8")
    return layout_path(path)


def check_names(layout: Layout, detector: Detector, *more: str) -> None:
    """Checks that a layout names what a detector's files can hold.

    Args:
        layout: the layout.
        detector: of the file.
        more: names besides those of features and particles.

    Raises:
        ValueError: an unknown name; the message gives the nearest known one.
    """
    known = (*detector.features, *ANGLES, *PARTICLE_COLUMNS, "responses", *more)
    for name, _ in layout.columns:
        if name not in known:
            raise ValueError(
                f"{detector.name} has no column {name!r}{nearest(name, known)} "
                f"(known: {', '.join(dict.fromkeys(known))})"
            )


def columns_needed(detector: Detector, layout: Layout, names: Sequence[str]) -> list[str]:
    """Returns those of a table's columns that its particles may be made of.

    Args:
        detector: the detector they enter.
        layout: which column is which.
        names: of the table's columns.
    """
    direct = (*detector.features, *PARTICLE_COLUMNS)
    needed = layout.sources_of(direct)
    if not layout.sources_of(detector.features) <= set(names):
        needed |= layout.sources_of((*ANGLES, *MOMENTUM))
    return [name for name in names if name in needed]


def missing_columns(
    lost: Sequence[str], detector: Detector, names: Sequence[str], known: Sequence[str] = ()
) -> ColumnsError:
    """Returns the error for columns that a table lacks, with the options that would read it.

    Args:
        lost: names of columns that nothing tells.
        detector: of the file.
        names: of the table's columns.
        known: columns that the file has under other names, such as those of `conditions`.
    """
    near = nearest(lost[0], names)
    columns = proposed(lost, detector, [*names, *known])
    return ColumnsError(
        f"no column {', '.join(map(repr, lost))}; the file has {listed(names)}{near}",
        f"--detector {shlex.quote(detector.name)} --columns {shlex.quote(columns)} --remember",
    )


def no_responses(name: str, names: Sequence[str], what: str, detector: Detector | None) -> ValueError:
    """Returns the error for a file without the column of the responses.

    Args:
        name: of that column in the file.
        names: of what the file has.
        what: the format's word for a column.
        detector: the detector that is wanted.

    Returns:
        `ColumnsError` where another column looks like it, else `NoResponsesError`: the file holds particles.
    """
    text = f"no {what} {name!r}; the file has {listed(names)}"
    guess = _guess("responses", names)
    if guess is None or name != "responses":
        near = nearest(name, names)
        return (ValueError if near else NoResponsesError)(f"{text}{near}")
    columns = f"responses={guess}" if detector is None else proposed([], detector, names)
    options = "" if detector is None else f"--detector {shlex.quote(detector.name)} "
    return ColumnsError(
        f"{text}, did you mean {guess!r}?", f"{options}--columns {shlex.quote(columns)} --remember"
    )


def proposed(lost: Sequence[str], detector: Detector, names: Sequence[str]) -> str:
    """Proposes which of a file's columns are meant: `energy=E,px=p_x`.

    What is not guessed is left to the reader: `NAME`, or a PDG id that stands for all rows, `ID`.
    """
    needed = (*detector.features, "pdg", "responses")
    free = [name for name in names if name not in needed]
    pairs: dict[str, str] = {}
    for name in needed:
        if name in names:
            continue
        guess = _guess(name, free)
        if guess is not None:
            free.remove(guess)
            pairs[name] = guess
    for name in lost:
        pairs.setdefault(name, "ID" if name == "pdg" else "NAME")
    return ",".join(f"{name}={source}" for name, source in pairs.items())


def _guess(name: str, free: Sequence[str]) -> str | None:
    def bare(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    names = [bare(name), *OTHER_NAMES.get(name, ())]
    alike = [source for other in names for source in free if bare(source) == other]
    return alike[0] if alike else next(iter(difflib.get_close_matches(name, free, n=1, cutoff=0.7)), None)


def derived(detector: Detector, names: Sequence[str], read: Column) -> dict[str, NDArray[np.generic]]:
    """Reads the columns of particles, and makes those that others tell.

    Args:
        detector: the detector they enter.
        names: of the table's columns.
        read: reads one.

    Returns:
        every feature of the detector and `pdg`, and `group` and `fold` where the table has them, (N,) each.

    Raises:
        ColumnsError: a column is missing and nothing tells it.
        ValueError: a PDG id without mass where the mass has to follow from it, or energies below the mass.
    """
    features = detector.features
    columns: dict[str, NDArray[np.generic]] = {
        name: read(name) for name in (*features, *PARTICLE_COLUMNS) if name in names
    }
    lost = [name for name in (*features, "pdg") if name not in columns]
    if lost and columns:
        rows = len(next(iter(columns.values())))
        for name in lost:
            # a misspelt column is a mistake, and not left out on purpose
            if not difflib.get_close_matches(
                name, [free for free in names if free not in columns], cutoff=0.75
            ):
                _derive(name, detector, names, read, columns, rows)
    lost = [name for name in (*features, "pdg") if name not in columns]
    if lost:
        raise missing_columns(lost, detector, names)
    return {name: columns[name] for name in (*features, *PARTICLE_COLUMNS) if name in columns}


def _derive(
    name: str,
    detector: Detector,
    names: Sequence[str],
    read: Column,
    columns: dict[str, NDArray[np.generic]],
    rows: int,
) -> None:
    """Adds a column where others tell it."""
    if name in columns:
        return
    if name == "pdg":
        if detector.pdg is not None:
            columns["pdg"] = np.full(rows, detector.pdg)
        return
    if name in ("mass", "charge"):
        if "pdg" not in columns:
            _derive("pdg", detector, names, read, columns, rows)
        if "pdg" in columns:
            columns[name] = _of_tables(columns["pdg"], 0 if name == "mass" else 1, name)
        return
    if name in MOMENTUM and {*ANGLES} <= set(names):
        if "mass" not in columns:
            _derive("mass", detector, names, read, columns, rows)
        if {"energy", "mass"} <= set(columns):
            theta, phi = (read(angle).astype(np.float64) for angle in ANGLES)
            energy, mass = (columns[column].astype(np.float64) for column in ("energy", "mass"))
            _check_above(energy, mass)
            p = np.sqrt(energy**2 - mass**2)
            across = p * np.sin(theta)
            columns.update(px=across * np.cos(phi), py=across * np.sin(phi), pz=p * np.cos(theta))
        return
    if name in ANGLES and {*MOMENTUM} <= set(names):
        px, py, pz = (read(column).astype(np.float64) for column in MOMENTUM)
        columns[name] = np.arctan2(np.hypot(px, py), pz) if name == "theta" else np.arctan2(py, px)
        return
    if name == "energy" and {*MOMENTUM} <= set(columns):
        if "mass" not in columns:
            _derive("mass", detector, names, read, columns, rows)
        if "mass" in columns:
            squares = [columns[column].astype(np.float64) ** 2 for column in (*MOMENTUM, "mass")]
            columns["energy"] = np.sqrt(np.sum(squares, 0))


def _of_tables(pdg: NDArray[np.generic], place: int, name: str) -> NDArray[np.float64]:
    ids, inverse = np.unique(np.asarray(pdg), return_inverse=True)
    values = np.array(
        [mass_and_charge(int(number))[place] if math.isfinite(number) else np.nan for number in ids]
    )
    unknown = np.isnan(values)[inverse]
    if unknown.any():
        row = int(np.argmax(unknown))
        raise ValueError(f"no column {name!r}, and the PDG tables do not know {pdg[row]:g} in row {row}")
    return values[inverse]


def _check_above(energy: NDArray[np.float64], mass: NDArray[np.float64]) -> None:
    # tables of energies are rounded, those of masses are not
    below = energy < mass * (1 - 1e-6)
    if below.any():
        row = int(np.argmax(below))
        raise ValueError(
            f"energy must be the total energy, at least the mass {mass[row]:g}, got {energy[row]:g} in row {row}"
        )
