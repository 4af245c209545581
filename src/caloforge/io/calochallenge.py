"""HDF5 in the layout of the Fast Calorimeter Simulation Challenge: for detectors whose one condition is the energy.

| key | shape, type | meaning |
|---|---|---|
| `incident_energies` | (N, 1) float64 | energy of the primary [MeV] |
| `showers` | (N, voxels) float32 | energy of each voxel [MeV], radius fastest, then angle, then layer |

There is nothing else in the public files. Those written here have the attributes `detector` and `provenance`
besides, which other programs need not heed. Rows have no fold: their splits are `ordered`, `paper` or `grouped`.
The PDG id is the detector's. The detector goes by the number of voxels where it is DS2 or DS3; data set 1 needs
its binning file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from caloforge._lookup import nearest
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.columns import NoResponsesError
from caloforge.io.hdf5 import Table, dataset, further_of, open_file, response_shape, rows_of, texts
from caloforge.io.source import (
    NONE_FURTHER,
    Columns,
    FileSource,
    FurtherColumns,
    ParticleRows,
    block_edges,
    check_lengths,
    check_shape,
    detector_of,
    missing,
)

ENERGIES, SHOWERS = "incident_energies", "showers"


def is_challenge(detector: Detector) -> bool:
    """Says whether a detector's HDF5 files have this layout."""
    return detector.features == ("incident_energy",) and detector.pdg is not None


def holds_showers(path: Path) -> bool:
    """Says whether a file has this layout rather than that of `caloforge.io.hdf5`."""
    with open_file(path) as file:
        return "conditions" not in file and (ENERGIES in file or SHOWERS in file)


def _particles(file: h5py.File, given: Detector | None) -> ParticleRows:
    energies = dataset(file, ENERGIES)
    declared = texts(file.attrs.get("detector"))
    shape = response_shape(file, SHOWERS)
    detector = detector_of(given, declared[0] if declared else None, shape)
    if not is_challenge(detector):
        raise ValueError(f"the file holds {ENERGIES} and {SHOWERS}, which {detector.name} has not")
    if energies.ndim not in (1, 2) or energies.shape[1:] not in ((), (1,)):
        raise ValueError(f"{ENERGIES} must have shape (N, 1), got {energies.shape}")
    if energies.dtype.kind not in "iuf":
        raise ValueError(f"{ENERGIES} must be numbers, got {energies.dtype}")
    check_lengths({ENERGIES: len(energies)})

    def read(start: int, stop: int) -> Primaries:
        conditions = energies[start:stop].reshape(-1, 1)
        return Primaries(detector, conditions, np.full(len(conditions), detector.pdg, np.int32))

    return ParticleRows(detector, len(energies), False, read)


def open_particles(path: Path, detector: Detector | None = None) -> ParticleRows:
    """Opens the energies of a file, with or without showers."""
    return _particles(open_file(path), detector)


def open_events(path: Path, detector: Detector | None = None) -> FileSource:
    """Opens a file of showers; reads the energies."""
    with open_file(path) as file:
        if SHOWERS not in file and not nearest(SHOWERS, file):
            raise NoResponsesError(str(missing(SHOWERS, file)))
        showers = dataset(file, SHOWERS)
        if showers.dtype.kind not in "iuf":
            raise ValueError(f"{SHOWERS} must be numbers, got {showers.dtype}")
        check_lengths({ENERGIES: len(dataset(file, ENERGIES)), SHOWERS: len(showers)})
        primaries = _particles(file, detector).all
        check_shape(primaries.detector, showers.shape[1:], flat=True)
        edges = block_edges(len(showers), (showers.chunks or (1,))[0])
    return FileSource(path, primaries, edges, partial(rows_of, SHOWERS))


def further(path: Path) -> FurtherColumns:
    """Opens the columns of a file that are neither energies nor showers."""
    return further_of(path, (ENERGIES, SHOWERS))


class ShowersOutput:
    """Appends showers, or energies alone, to a new file; groups and folds have no place in it.

    Args:
        path: the file.
        detector: of the showers; a data set that needs its binning file is not named in the file.
        provenance: JSON text.
        dtype: None for energies alone.
        further: types of further columns, by name.
        level: of gzip, 1 to 9.
    """

    def __init__(
        self,
        path: Path,
        detector: Detector,
        provenance: str,
        dtype: type[np.generic] | None,
        further: Mapping[str, np.dtype[Any]] = NONE_FURTHER,
        level: int = 4,
    ) -> None:
        columns: dict[str, tuple[Any, tuple[int, ...]]] = {ENERGIES: (np.float64, (1,))}
        if dtype is not None:
            columns[SHOWERS] = (np.float32, (detector.cells,))
        columns |= {name: (kind, ()) for name, kind in further.items()}
        named = {} if ".xml" in detector.name else {"detector": detector.name}
        self._table = Table(path, columns, {**named, "provenance": provenance}, level)
        self._further = tuple(further)
        self.finish, self.abandon = self._table.finish, self._table.abandon

    def append(self, columns: Columns) -> None:
        """Writes some rows."""
        ours: Columns = {ENERGIES: columns["conditions"], **{name: columns[name] for name in self._further}}
        if "responses" in columns:
            ours[SHOWERS] = columns["responses"].reshape(len(columns["responses"]), -1)
        self._table.append(ours)
