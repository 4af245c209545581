"""Geant4's fast simulation: which detectors a bundle can stand in for there.

Geant4's Par04 example reads output 0 of a graph as a flat array of cells in the order r, phi, z of a cylinder around
the particle. A bundle gives that where the axes of its detector are these, in this order. An image of fibres is no
such mesh: it has no depth, and its cells lie fixed in the cavern, not around the particle.
"""

from __future__ import annotations

from caloforge.detectors import Detector

AXES = ("r", "phi", "z")


def check_voxels(detector: Detector, name: str) -> None:
    """Raises ValueError where a detector is no mesh of voxels.

    Args:
        detector: the detector of a run.
        name: of the run, for the message.
    """
    axes = tuple(detector.axes or ())
    if axes != AXES:
        raise ValueError(
            f"--target geant4 needs a voxel detector, with the axes {', '.join(AXES)} around the particle; "
            f"{name} is for {detector.name}, with the axes {', '.join(axes) or 'none'}"
        )
