"""Fits where the magnets of the beam line bring charged particles, the constants of `caloforge.detectors.zdc`.

    python tools/transfer_map.py zp.h5 zp_wide.h5

Positive particles near the beam pass the magnets: from training events of the ZP with at least a fifth of a photon
for each GeV, whose shower is thus nearly whole, the centre of light (X, Y) is fitted by the linear map of
`caloforge.detectors.Transport`, each side and axis by itself, a particle shot n times with weight 1 / sqrt(n), outliers
weighed down (Cauchy, 1, 0.5 and 0.25 cm). Particles farther out pass beside the magnets: the kick in y is a median.
Printed are the constants, and how far the validation fold is from them.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import ZP
from caloforge.detectors.base import Transport
from caloforge.events import Events, Joined, load, split
from caloforge.io import open_events

LIGHT = 0.2
"""Photons for each GeV of a shower that is nearly whole."""

SCALES = (1.0, 0.5, 0.25)


def centres(events: Events) -> NDArray[np.float64]:
    """Returns centres of light in cm from the beam axis, (N, 2)."""
    assert ZP.face is not None
    assert ZP.pitch is not None
    light = events.responses.astype(np.float64)
    along = [(light.sum(3 - axis) @ np.arange(ZP.shape[axis - 1])) / light.sum((1, 2)) for axis in (1, 2)]
    middles = [(size - 1) / 2 for size in ZP.shape]
    places = zip(along, middles, (ZP.face.x, ZP.face.y), strict=True)
    return np.stack([(cell - middle) * ZP.pitch + place for cell, middle, place in places], 1)


def robust(
    terms: NDArray[np.float64], target: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns coefficients of least squares with outliers weighed down, (terms,)."""
    current = weights
    for scale in SCALES:
        for _ in range(15):
            root = np.sqrt(current)
            fit: NDArray[np.float64] = np.linalg.lstsq(terms * root[:, None], target * root, rcond=None)[0]
            current = weights / (1 + ((target - terms @ fit) / scale) ** 2)
    return fit


def main() -> None:
    """Fits, and prints constants and residuals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    source = Joined([open_events(path) for path in arguments.files])
    parts = split(source, "canonical")
    events = load(source)
    columns = [events.conditions[:, ZP.features.index(name)].astype(np.float64) for name in ZP.features]
    energy, vx, vy, vz, px, py, pz, _, charge = columns
    assert ZP.face is not None
    side, p = np.sign(pz), np.sqrt(px**2 + py**2 + pz**2)
    length = ZP.face.z - side * vz
    straight = np.stack([vx + px / abs(pz) * length, vy + py / abs(pz) * length], 1)
    found, light = centres(events), events.responses.sum((1, 2)).astype(np.float64)
    near = np.hypot(*straight.T) < Transport.NEAR
    training = np.isin(np.arange(len(events)), parts["train"])
    held_out = np.isin(np.arange(len(events)), parts["validation"])
    whole = (charge > 0) & (light > LIGHT * energy) & near
    terms = Transport.terms(charge / p, straight[:, 0], straight[:, 1])
    for sign in (1, -1):
        rows = whole & (side == sign)
        train, validation = rows & training, rows & held_out
        _, group, counts = np.unique(events.group[train], return_inverse=True, return_counts=True)
        fits = [robust(terms[train], found[train, axis], counts[group] ** -0.5) for axis in (0, 1)]
        distance = np.abs(found[validation] - np.stack([terms[validation] @ fit for fit in fits], 1))
        print(f"side {sign:+d}: {train.sum()} events of {len(counts)} particles")
        for fit in fits:
            for coefficients in fit.reshape(3, 5):
                print("    (" + ", ".join(f"{value:.4f}" for value in coefficients) + "),")
        print(
            "    |x|, |y| off, median and 75 %, cm:",
            np.percentile(distance, [50, 75], axis=0).round(3).tolist(),
        )
        beside = training & (side == sign) & (charge != 0) & ~near & (light > 30)
        kick = (found[beside, 1] - straight[beside, 1]) * p[beside] / charge[beside]
        print(f"    kick {np.median(kick):.0f} GeV cm of {beside.sum()} events")


if __name__ == "__main__":
    main()
