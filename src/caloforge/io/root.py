"""ROOT: a TTree `events` with one branch a feature, `pdg`, `group`, `fold` and an array branch `responses`.

`responses` has the detector's shape in every entry, or its cells flat. The detector's name and the provenance
are the JSON text `caloforge` beside the tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.source import (
    NONE_FURTHER,
    PARTICLE_COLUMNS,
    Columns,
    FileSource,
    FurtherColumns,
    ParticleRows,
    RangeReader,
    check_shape,
    detector_of,
    missing,
    named_primaries,
    parse_provenance,
)

TREE = "events"
METADATA = "caloforge"


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turns whatever uproot raises on the bytes of a damaged file into a ValueError."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"{what} ({' '.join(str(error).split())})") from error


def _open(path: Path) -> Any:
    with _damage("truncated, or not a ROOT file"):
        return require("uproot", "root").open({str(path): None}, array_cache=None)


def _tree(file: Any) -> Any:
    if TREE not in file:
        raise missing(TREE, file.keys(cycle=False), "tree")
    with _damage(f"the tree {TREE!r} is truncated or damaged"):
        tree = file[TREE]
    if not hasattr(tree, "branches"):
        kind = str(getattr(tree, "classname", type(tree).__name__)).rpartition("::")[2]
        raise ValueError(f"{TREE!r} must be a TTree, got {kind}: write it as a TTree")
    return tree


def _metadata(file: Any) -> dict[str, Any]:
    return parse_provenance(str(file[METADATA])) if METADATA in file else {}


def _shape(tree: Any) -> tuple[int, ...] | None:
    """Returns the shape of a response, None where the tree has none."""
    if "responses" not in tree.keys():  # noqa: SIM118 (a tree is no mapping)
        return None
    kind = getattr(tree["responses"].interpretation, "to_dtype", None)
    if kind is None:
        raise ValueError(f"responses must be arrays of one shape, got {tree['responses'].typename}")
    shape = getattr(kind, "shape", None)
    if shape is None:
        raise ValueError(f"responses must be arrays of one shape, got {tree['responses'].typename}")
    return tuple(shape)


def _array(branch: Any, start: int | None = None, stop: int | None = None) -> NDArray[np.generic]:
    with _damage(f"branch {branch.name!r} is truncated or damaged"):
        values = np.asarray(branch.array(library="np", entry_start=start, entry_stop=stop))
    if values.dtype.kind not in "iufb":
        raise ValueError(f"branch {branch.name!r} must hold one number, or an array of one shape, an entry")
    return values


def _particles(file: Any, given: Detector | None) -> ParticleRows:
    tree = _tree(file)
    detector = detector_of(given, _metadata(file).get("detector"), _shape(tree))
    names = tree.keys()

    def read(start: int, stop: int) -> Primaries:
        return named_primaries(detector, names, lambda name: _array(tree[name], start, stop))

    return ParticleRows(detector, int(tree.num_entries), "group" in names, read)


def open_particles(path: Path, detector: Detector | None = None) -> ParticleRows:
    """Opens the particles of a file, with or without responses."""
    return _particles(_open(path), detector)


def open_events(path: Path, detector: Detector | None = None) -> FileSource:
    """Opens a file of events; reads its particles."""
    with _open(path) as file:
        tree = _tree(file)
        shape = _shape(tree)
        if shape is None:
            raise missing("responses", tree.keys(), "branch")
        primaries = _particles(file, detector).all
        check_shape(primaries.detector, shape, flat=True)
        edges = np.asarray(tree["responses"].entry_offsets, np.intp)
    return FileSource(path, primaries, edges, _reader)


def _reader(path: Path) -> RangeReader:
    branch = _open(path)[TREE]["responses"]
    return lambda start, stop: _array(branch, start, stop)


def provenance(path: Path) -> dict[str, Any]:
    """Returns what the writer was given; empty for foreign files."""
    with _open(path) as file:
        found = _metadata(file).get("provenance")
        return dict(found) if isinstance(found, dict) else {}


def further(path: Path) -> FurtherColumns:
    """Opens the branches of a file that are neither of its particles nor its responses."""
    file = _open(path)
    tree = _tree(file)
    known = {*_particles(file, None).detector.features, *PARTICLE_COLUMNS, "responses"}
    names = tuple(name for name in tree.keys() if name not in known)  # noqa: SIM118 (a tree is no mapping)
    return FurtherColumns(
        names, lambda start, stop: {name: _array(tree[name], start, stop) for name in names}
    )


class RootOutput:
    """Appends columns to a ROOT file, a basket each time."""

    def __init__(
        self,
        path: Path,
        detector: Detector,
        provenance: str,
        dtype: type[np.generic] | None,
        further: Mapping[str, np.dtype[Any]] = NONE_FURTHER,
    ) -> None:
        self._features, self._dtype, self._further = detector.features, dtype, tuple(further)
        self._file = require("uproot", "root").recreate(path)
        self._file[METADATA] = json.dumps({"detector": detector.name, "provenance": json.loads(provenance)})
        branches: dict[str, Any] = dict.fromkeys(detector.features, np.float32)
        branches |= {"pdg": np.int32, "group": np.int32, "fold": np.int8}
        if dtype is not None:
            branches["responses"] = np.dtype((dtype, detector.shape))
        self._tree = self._file.mktree(TREE, {**branches, **further})

    def append(self, columns: Columns) -> None:
        """Writes some rows."""
        branches: dict[str, Any] = dict(zip(self._features, columns["conditions"].T, strict=True))
        branches |= {name: columns[name] for name in (*PARTICLE_COLUMNS, *self._further)}
        if "responses" in columns:
            branches["responses"] = columns["responses"].astype(self._dtype, copy=False)
        self._tree.extend({name: np.ascontiguousarray(column) for name, column in branches.items()})

    def finish(self) -> None:
        """Completes the file."""
        self._file.close()

    def abandon(self) -> None:
        """Lets go of the file."""
        self._file.close()
