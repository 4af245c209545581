"""Geant4's fast simulation: what an exported graph has to look like, and which detectors can give one.

The Par04 example (ONNX inference) takes one input (1, N) and reads output 0 as a flat array of cells in the order
r, phi, z of a cylinder around the particle. An image of fibres is no such mesh: it has no depth, and its cells lie
fixed in the cavern, not around the particle. So only a detector with the axes r, phi and z can be exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from caloforge.detectors import detector_named
from caloforge.io.run import Run

AXES = ("r", "phi", "z")


def export_geant4(run: Path) -> NoReturn:
    """Refuses a run whose detector is no mesh of voxels.

    Raises:
        ValueError: always, with the reason.
    """
    recipe = Run(run).recipe()
    detector = detector_named(recipe.detector)
    axes = ", ".join(detector.axes)
    raise ValueError(
        f"--target geant4 needs a voxel detector, with the axes {', '.join(AXES)} around the particle; "
        f"{recipe.name} is for {detector.name}, with the axes {axes}"
    )
