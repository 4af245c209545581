"""A box of crystals, the example of the tutorials: 20 x 20 cells of 2 cm that measure energy in MeV.

Particles hit the middle of the front at a polar angle theta and an azimuth phi. `caloforge simulate crystals` makes
its events.
"""

from __future__ import annotations

import numpy as np

from caloforge.detectors.base import ChannelMap, Detector, Feature

SIDE = 20

CRYSTALS = Detector(
    name="crystals",
    axes={"x": SIDE, "y": SIDE},
    unit="MeV",
    conditions=(
        Feature("energy", "MeV", "kinetic energy of the primary"),
        Feature("theta", "rad", "angle to the axis"),
        Feature("phi", "rad", "azimuth of the direction"),
    ),
    channels={
        "sum": ChannelMap(("sum",), np.ones((1, SIDE * SIDE), np.float32), "sum of all crystals"),
    },
    title="box of crystals",
    pitch=2.0,
)
