"""A bundle in place of the full shower, within Geant4: the primary ends where it enters, its shower is drawn.

A stepping action stops the primary at the front of the calorimeter and hands its state over; the bundle draws the
voxels of a cylinder around the particle, and each voxel deposits its energy at its middle. The shower's frame has its
axis along the particle: layer k lies at a depth of (k + 1/2) layers, angles are counted from the x axis as far as it is
across. So a particle along z fills the voxels that the bundle has drawn, and one that is inclined or displaced takes
its shower along.

What the bundle was not trained on is simulated in full: particles outside of its domain, and particles inclined by more
than `LARGEST_ANGLE`, since sheets that are crossed at an angle are thicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import Detector
from caloforge.detectors.base import MEV
from caloforge.events import Primaries
from caloforge.runtime.bundle import Surrogate
from caloforge.simulate.geometry import Setup, layer_of

LARGEST_ANGLE = 0.1
"""Angle to the axis up to which a shower is turned, in rad; a sheet is then 0.5 % thicker."""

Values = NDArray[np.float64]


class FastShowers:
    """Draws showers of primaries that enter a stack of sheets.

    Args:
        bundle: its folder.
        setup: the stack; its first detector must be the bundle's.
        seed: of the bundle's noise.

    Raises:
        ValueError: a bundle of another detector, or a detector without layers.
    """

    def __init__(self, bundle: Path, setup: Setup, seed: int) -> None:
        self.surrogate = Surrogate.load(bundle)
        self.seed = seed
        detector = self.surrogate.detector
        if detector.name not in {other.name for other in setup.detectors} or not detector.layers:
            raise ValueError(
                f"the bundle draws showers of {detector.name}, and {setup.name} is simulated"
                if detector.layers
                else f"a bundle for Geant4 draws voxels in layers, {detector.name} has none"
            )
        if setup.scorer.kind != "steps":
            raise ValueError(
                f"a bundle deposits at points, which are scored by steps, not by {setup.scorer.kind}"
            )
        if detector.features != ("incident_energy",):
            raise ValueError(
                f"showers within Geant4 need the condition incident_energy alone, got {', '.join(detector.features)}"
            )
        depths, layers = layer_of(setup)
        middles = np.array([depths[layers == k].mean() for k in np.unique(layers)]) - setup.front[2]
        self.points = voxel_points(detector, middles)
        self._scale = setup.scorer.scale
        self._unit = MEV[detector.conditions[0].unit]

    def deposits(
        self, energy: float, pdg: int, entry: Sequence[float], direction: Sequence[float], event: int
    ) -> tuple[Values, Values] | None:
        """Draws the shower of one primary.

        Args:
            energy: kinetic energy [MeV].
            pdg: the particle.
            entry: where it enters [mm].
            direction: a unit vector.
            event: its number, which addresses the noise.

        Returns:
            points (K, 3) [mm] and what is deposited there (K,) [MeV]; None where it must be simulated in full.
        """
        detector = self.surrogate.detector
        if direction[2] < np.cos(LARGEST_ANGLE):
            return None
        # showers of electrons and positrons differ at rest only
        same = abs(pdg) == 11 and detector.pdg is not None and abs(detector.pdg) == 11
        primaries = Primaries(
            detector,
            np.array([[energy / self._unit]], np.float32),
            np.array([detector.pdg if same else pdg], np.int32),
        )
        if not self.surrogate.domain.inside(primaries)[0]:
            return None
        shower = self.surrogate.sample(
            primaries, seed=self.seed, first_event=event, batch_size=1, on_outside="flag"
        )
        voxels = np.asarray(shower.responses, np.float64).reshape(-1)
        lit = np.flatnonzero(voxels)
        points = np.asarray(entry, np.float64) + self.points[lit] @ frame(direction)
        return points, voxels[lit] / self._scale


def frame(direction: Sequence[float]) -> Values:
    """Returns the axes of the shower's frame as rows, (3, 3); those of the world for a direction along z."""
    along = np.asarray(direction, np.float64)
    across = np.array([1.0, 0.0, 0.0]) - along[0] * along
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(along, across), along])


def voxel_points(detector: Detector, depths: Values) -> Values:
    """Returns the middles of all voxels in the shower's frame [mm], (cells, 3), in storage order.

    Args:
        detector: of layers.
        depths: of the layers [mm], (layers,).
    """
    points = []
    for layer, depth in zip(detector.layers, depths, strict=True):
        x, y, _ = layer.centres
        points.append(np.stack([x, y, np.full(layer.cells, depth)], 1))
    return np.concatenate(points)
