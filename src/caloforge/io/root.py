"""ROOT: a TTree or RNTuple `events` with one branch a feature, `pdg`, `group`, `fold` and a branch `responses`.

`responses` has the detector's shape in every entry, or its cells flat: an array, or a vector that is as long in every
entry. A tree that is the only one of its file may have any name. The detector's name and the provenance are the JSON
text `caloforge` beside the tree. What is written is a TTree.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.columns import PARTICLE_COLUMNS, PLAIN, ColumnsError, Layout, no_responses
from caloforge.io.source import (
    NONE_FURTHER,
    Columns,
    FileSource,
    FurtherColumns,
    ParticleRows,
    RangeReader,
    block_edges,
    check_shape,
    detector_of,
    laid_out_primaries,
    missing,
    parse_provenance,
)

TREE = "events"
METADATA = "caloforge"

BLOCK = 1024
"""Rows of an RNTuple that are read at once; its own clusters may be of any size."""


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


def _tree(file: Any, layout: Layout) -> Any:
    """Returns the tree or RNTuple that holds the rows."""
    name = layout.tree or TREE
    if name not in file:
        with _damage("the list of what the file holds is damaged"):
            kinds = file.classnames(recursive=True, cycle=False)
        trees = [
            key for key, kind in kinds.items() if kind.startswith(("TTree", "TNtuple")) or "RNTuple" in kind
        ]
        if layout.tree is not None or len(trees) != 1:
            error = missing(name, trees or kinds, "tree")
            raise ColumnsError(str(error), f"--tree {shlex.quote(trees[0])}") if trees else error
        name = trees[0]
    with _damage(f"the tree {name!r} is truncated or damaged"):
        tree = file[name]
    if not hasattr(tree, "branches") and not hasattr(tree, "field_records"):
        kind = str(getattr(tree, "classname", type(tree).__name__)).rpartition("::")[2]
        raise ValueError(f"{name!r} must be a TTree or an RNTuple, got {kind}")
    return tree


def _names(tree: Any) -> list[str]:
    """Returns the names of branches, or of an RNTuple's fields and not of what vectors are made of."""
    return list(tree.keys(recursive=False) if hasattr(tree, "field_records") else tree.keys())


def _metadata(file: Any) -> dict[str, Any]:
    return parse_provenance(str(file[METADATA])) if METADATA in file else {}


def _shape(tree: Any, layout: Layout) -> tuple[int, ...] | None:
    """Returns the shape of a response, None where the tree has none; of vectors that of the first entry."""
    name = layout.source("responses")
    if name not in _names(tree):
        return None
    branch = tree[name]
    shape = getattr(getattr(getattr(branch, "interpretation", None), "to_dtype", None), "shape", None)
    if shape is not None:
        return tuple(shape)
    try:
        return _array(branch, 0, BLOCK).shape[1:]
    except ValueError as error:
        raise ValueError(f"{name} must be arrays of one shape, or vectors of one length: {error}") from None


def _array(branch: Any, start: int | None = None, stop: int | None = None) -> NDArray[np.generic]:
    with _damage(f"branch {branch.name!r} is truncated or damaged"):
        values = branch.array(library="ak", entry_start=start, entry_stop=stop)
    awkward = require("awkward", "root")
    try:
        numbers = np.asarray(awkward.to_numpy(values, allow_missing=False))
    except (ValueError, TypeError):
        lengths = np.asarray(awkward.num(values, axis=1)) if values.ndim > 1 else np.zeros(0)
        uneven = np.flatnonzero(lengths != lengths[:1])
        got = (
            f", got {lengths[0]} and {lengths[uneven[0]]} (row {(start or 0) + uneven[0]})"
            if len(uneven)
            else ""
        )
        raise ValueError(
            f"branch {branch.name!r} must hold one number, or an array of one shape, an entry{got}"
        ) from None
    if numbers.dtype.kind not in "iufb":
        raise ValueError(f"branch {branch.name!r} must hold one number, or an array of one shape, an entry")
    return numbers


def _particles(file: Any, given: Detector | None, layout: Layout) -> ParticleRows:
    tree = _tree(file, layout)
    detector = detector_of(given, _metadata(file).get("detector"), _shape(tree, layout))
    names = _names(tree)

    def read(start: int, stop: int) -> Primaries:
        return laid_out_primaries(
            detector, layout, names, lambda name: _array(tree[name], start, stop), stop - start
        )

    return ParticleRows(detector, int(tree.num_entries), layout.source("group") in names, read)


def open_particles(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> ParticleRows:
    """Opens the particles of a file, with or without responses."""
    return _particles(_open(path), detector, layout)


def open_events(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FileSource:
    """Opens a file of events; reads its particles."""
    with _open(path) as file:
        tree = _tree(file, layout)
        shape = _shape(tree, layout)
        if shape is None:
            raise no_responses(layout.source("responses"), _names(tree), "branch", detector)
        primaries = _particles(file, detector, layout).all
        check_shape(primaries.detector, shape, flat=True)
        edges = getattr(tree[layout.source("responses")], "entry_offsets", None)
        if edges is None:  # an RNTuple
            edges = block_edges(len(primaries), BLOCK)
    return FileSource(path, primaries, np.asarray(edges, np.intp), partial(_reader, layout))


def _reader(layout: Layout, path: Path) -> RangeReader:
    branch = _tree(_open(path), layout)[layout.source("responses")]
    cells = int(np.prod(_array(branch, 0, 1).shape))

    def read(start: int, stop: int) -> NDArray[np.generic]:
        responses = _array(branch, start, stop)
        if responses.size != (stop - start) * cells:  # vectors of another length in this block
            raise ValueError(f"responses must have {cells} cells, got {responses[0].size} in row {start}")
        return responses

    return read


def provenance(path: Path, layout: Layout = PLAIN) -> dict[str, Any]:
    """Returns what the writer was given; empty for foreign files."""
    with _open(path) as file:
        origin = _metadata(file).get("provenance")
        return dict(origin) if isinstance(origin, dict) else {}


def further(path: Path, detector: Detector | None = None, layout: Layout = PLAIN) -> FurtherColumns:
    """Opens the branches of a file that are neither of its particles nor its responses."""
    file = _open(path)
    tree = _tree(file, layout)
    detector = _particles(file, detector, layout).detector
    known = layout.sources_of((*detector.features, *PARTICLE_COLUMNS, "responses"))
    names = tuple(name for name in _names(tree) if name not in known)
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
