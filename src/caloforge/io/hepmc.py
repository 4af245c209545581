"""HepMC3: what event generators write. Its final particles are the primaries.

Every particle of status 1 is a row: energy and momentum in GeV, the production vertex in cm whatever the file's
units, mass as generated, or of the PDG tables where the file has none, charge of the PDG tables. Beams, decayed and
intermediate particles are left out. The file is read from the front: rows in order, or with what lies before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from caloforge._lookup import require
from caloforge.detectors import Detector
from caloforge.events import Primaries
from caloforge.io.source import ParticleRows, detector_of, primaries_of
from caloforge.particles import mass_and_charge

FINAL = 1
"""Status of a particle that nothing happens to in the generator."""


class _Reader:
    """Reads rows of a file; those that follow each other without starting over."""

    def __init__(self, path: Path, detector: Detector) -> None:
        self._path, self._detector = path, detector
        self._lines, self._next = self._rows(), 0
        self.rows = sum(1 for _ in self._lines)

    def _rows(self) -> Iterator[tuple[dict[str, float], int]]:
        """Gives features by name, and the PDG id, of each final particle."""
        hepmc = require("pyhepmc", "hepmc")
        try:
            with hepmc.open(str(self._path)) as file:
                for event in file:
                    event.set_units(hepmc.Units.GEV, hepmc.Units.CM)
                    for particle in event.particles:
                        if particle.status == FINAL:
                            yield _features(particle), int(particle.pid)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"truncated, or not a HepMC3 file ({error})") from error

    def read(self, start: int, stop: int) -> Primaries:
        if start != self._next or start == 0:
            self._lines = islice(self._rows(), start, None)
        found = list(islice(self._lines, stop - start))
        self._next = stop
        names = self._detector.features
        conditions = np.array([[features[name] for name in names] for features, _ in found])
        return primaries_of(
            self._detector, conditions.reshape(len(found), len(names)), np.array([pdg for _, pdg in found])
        )


def _features(particle: Any) -> dict[str, float]:
    momentum, pdg = particle.momentum, int(particle.pid)
    vertex = particle.production_vertex
    place = vertex.position if vertex is not None else None
    mass, charge = mass_and_charge(pdg)
    if particle.is_generated_mass_set():
        mass = particle.generated_mass
    return {
        "energy": momentum.e,
        "incident_energy": 1e3 * momentum.e,
        "vx": place.x if place is not None else 0.0,
        "vy": place.y if place is not None else 0.0,
        "vz": place.z if place is not None else 0.0,
        "px": momentum.px,
        "py": momentum.py,
        "pz": momentum.pz,
        "mass": mass,
        "charge": charge,
    }


def open_particles(path: Path, detector: Detector | None = None) -> ParticleRows:
    """Opens the final particles of a file, in the order in which they stand there.

    Raises:
        ValueError: no HepMC3 file, or a detector with features that it does not hold.
    """
    detector = detector_of(detector, None, None)
    known = {"energy", "incident_energy", "vx", "vy", "vz", "px", "py", "pz", "mass", "charge"}
    lacking = [name for name in detector.features if name not in known]
    if lacking:
        raise ValueError(f"{detector.name} needs {', '.join(lacking)}, which a HepMC3 file does not hold")
    reader = _Reader(path, detector)
    return ParticleRows(detector, reader.rows, False, reader.read)


def no_provenance(path: Path) -> dict[str, Any]:
    """Returns an empty mapping: they have none."""
    return {}
