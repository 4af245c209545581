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

from caloforge.detectors.base import ChannelMap, Detector, Face, Feature, Grooves, Transport

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


ZN_WINDOW = ((-2.5, 2.5), (-2.5, 2.5))
"""Where photons have nothing in their way to the ZN. In the training folds they give 0.50 to 0.53 photons of light a
GeV, mean by half a centimetre, in this window, and 0.44 beside it. Hadrons have wider showers and lose light before."""

ZP_WINDOW = ((-4.6, 10.2), (-5.0, 5.0))
"""The same of the ZP: 0.39 to 0.51 by centimetre, where a particle or two is the rule; at X < -5 cm, behind the beam
pipe, 0.11 to 0.17, and 0.12 from X = 11 cm on."""

ZP_STRIP = ((-11.0, -3.2), (-2.5, 2.5))
"""Where protons that come through the magnets give the ZP light that depends on x alone: 0.08 photons a GeV at
X = -10.9 cm, 0.30 at -9 and 0.35 from -6 cm on. Near X = -3 cm some are lost before, and beyond nearly all."""

ZN_GROOVES = Grooves(side=0.06, length=100.0)
"""14 % of a cell of the ZN. In the training folds photons whose straight line stays in one over the whole metre give
0.24 photons of light a GeV, where those beside have 0.53, and neutrons that leave it after 60 to 80 cm 0.21 for 0.35;
of primaries in the middle of the face that stay in one a quarter of the photons and a tenth of the neutrons are seen,
of others more than 99 %."""

TRANSPORT = Transport(
    maps=(
        (
            (
                (17.0034, 19.2487, 2.3952, -4.7844, 5.3889),
                (-4.8544, -18.1904, -16.9945, -2.8446, 6.3496),
                (0.0003, 0.0103, -0.0164, 0.1426, -0.7624),
            ),
            (
                (0.4203, -3.5344, -23.7821, -34.1508, 4.2092),
                (0.0025, 0.0372, -1.2760, -5.2453, 6.6482),
                (-0.2020, 2.2950, 10.4960, 7.0422, -6.9952),
            ),
        ),
        (
            (
                (16.9910, 18.7644, 6.6037, 9.1365, -80.0674),
                (-4.7492, -19.5391, -27.6871, 19.4408, 124.5346),
                (-0.0039, -0.2064, 0.9441, 4.4300, -9.5437),
            ),
            (
                (0.4563, -3.0563, -29.4272, -50.8772, 103.0461),
                (0.0259, 0.3814, -3.1880, -11.5177, 42.1153),
                (-0.2096, 2.2601, 11.9386, 8.0696, -29.9605),
            ),
        ),
    ),
    kick=(-10282.0, -9655.0),
)
"""Fitted to the training folds of `zp` and `zp_wide` by `tools/transfer_map.py`; a proton of the validation fold is
off by 0.11 cm in x and 0.06 cm in y in the median, a quarter and an eighth of a fibre's pitch."""


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
    face=Face(FACE, window=ZN_WINDOW, turns=True),
    transport=TRANSPORT,
    grooves=ZN_GROOVES,
)

ZP = Detector(
    name="zp",
    axes={"x": 56, "y": 30},
    unit="photons",
    conditions=CONDITIONS,
    channels={"paper": _paper((56, 30)), "o2": _o2((56, 30), _zp_towers((56, 30)))},
    title="ALICE ZP",
    pitch=0.4,
    face=Face(FACE, x=ZP_CENTRE, window=ZP_WINDOW, strip=ZP_STRIP),
    transport=TRANSPORT,
)
