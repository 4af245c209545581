"""ALICE Zero Degree Calorimeters: ZN (neutrons, 44 x 44 fibres) and ZP (protons, 56 x 30 fibres).

Two channel maps exist and they disagree; both are here by name, pinned cell by cell in the tests.

- `paper`: of the published surrogates (Wojnar 2025). With i, j the first and second axis and halves at
  size // 2: cells with i + j even feed the four quadrants, cells with i + j odd the fifth channel.
- `o2`: of the ALICE O2 detector code. Cells with x + y even feed the common photomultiplier; the odd ones feed
  four towers, quadrants in ZN and strips along x in ZP. Order: common, tower 1, 2, 3, 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors.base import ChannelMap, Detector, Face, Feature

CONDITIONS = (
    Feature("energy", "GeV", "total energy of the primary"),
    Feature("vx", "cm", "production vertex, x"),
    Feature("vy", "cm", "production vertex, y"),
    Feature("vz", "cm", "production vertex, z"),
    Feature("px", "GeV", "momentum, x"),
    Feature("py", "GeV", "momentum, y"),
    Feature("pz", "GeV", "momentum, z"),
    Feature("mass", "GeV", "rest mass"),
    Feature("charge", "e", "electric charge"),
)

FACE = 11_260.0
"""Distance |z| of the front faces from the interaction point, in cm."""

ZP_CENTRE = 24.34
"""Centre of the ZP's face in x, in cm from the beam axis, on both sides: photons fly straight to it."""


def _one_hot(index: NDArray[np.intp], labels: tuple[str, ...], source: str) -> ChannelMap:
    matrix = (index.reshape(1, -1) == np.arange(len(labels))[:, None]).astype(np.float32)
    return ChannelMap(labels, matrix, source)


def _paper(shape: tuple[int, int]) -> ChannelMap:
    i, j = np.indices(shape)
    upper, right = i >= shape[0] // 2, j >= shape[1] // 2
    index = np.where((i + j) % 2 == 0, 2 * upper + right, 4)
    labels = ("quadrant 1", "quadrant 2", "quadrant 3", "quadrant 4", "common")
    return _one_hot(index, labels, "Wojnar (2025), five channels")


def _o2(shape: tuple[int, int], tower: NDArray[np.intp]) -> ChannelMap:
    x, y = np.indices(shape)
    index = np.where((x + y) % 2 == 0, 0, tower)
    return _one_hot(
        index, ("common", "tower 1", "tower 2", "tower 3", "tower 4"), "ALICE O2 ZDC detector code"
    )


def _zn_towers(shape: tuple[int, int]) -> NDArray[np.intp]:
    x, y = np.indices(shape)
    return 1 + (x >= shape[0] // 2) + 2 * (y >= shape[1] // 2)


def _zp_towers(shape: tuple[int, int]) -> NDArray[np.intp]:
    x, _ = np.indices(shape)
    return 1 + 4 * x // shape[0]


ZN = Detector(
    name="zn",
    axes={"x": 44, "y": 44},
    unit="photons",
    conditions=CONDITIONS,
    channels={"paper": _paper((44, 44)), "o2": _o2((44, 44), _zn_towers((44, 44)))},
    title="ALICE ZN",
    pitch=0.16,
    face=Face(FACE),
)

ZP = Detector(
    name="zp",
    axes={"x": 56, "y": 30},
    unit="photons",
    conditions=CONDITIONS,
    channels={"paper": _paper((56, 30)), "o2": _o2((56, 30), _zp_towers((56, 30)))},
    title="ALICE ZP",
    pitch=0.4,
    face=Face(FACE, x=ZP_CENTRE),
)
