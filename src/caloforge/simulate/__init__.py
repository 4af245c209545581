"""Simulates events with Geant4 from Python (extra `geant4`): the first link of the chain.

Geant4 runs in processes of its own; importing this package imports no Geant4.
"""

from caloforge.simulate.geometry import (
    SETUPS,
    Box,
    Scorer,
    Setup,
    Tube,
    Volume,
    crystal_box,
    sampling_calorimeter,
    setup_named,
)
from caloforge.simulate.physics import DATA_SETS, PARTICLES, PHYSICS, download, find_data
from caloforge.simulate.produce import Job, make_plan, simulate

__all__ = [
    "DATA_SETS",
    "PARTICLES",
    "PHYSICS",
    "SETUPS",
    "Box",
    "Job",
    "Scorer",
    "Setup",
    "Tube",
    "Volume",
    "crystal_box",
    "download",
    "find_data",
    "make_plan",
    "sampling_calorimeter",
    "setup_named",
    "simulate",
]
