"""Photons in the modules of the ZDC: Geant4's light against another simulation's, by energy.

    python benchmarks/geant4_zdc.py zn.h5 --reference zn_wide.h5

`zn.h5` is what `caloforge simulate zn zn.h5 --particle gamma ...` wrote. Of both, photons that meet the face at least
1 cm (ZN) or 1.5 cm (ZP) within its border are compared: light per energy and its spread, lit cells, radius (mean
distance of the light from its centre), and the centre of light against the impact of the straight line.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from caloforge.io import open_events
from caloforge.runtime.domain import coordinates

EDGES = (20, 60, 200, 600)


def numbers(path: Path) -> dict[str, np.ndarray]:
    """Returns what is compared of each photon."""
    events = open_events(path).slices(slice(None))
    detector = events.detector
    face, pitch = detector.face, detector.pitch
    assert face is not None
    assert pitch is not None
    names, values = coordinates(events.primaries)
    impact = values[:, [names.index("impact x"), names.index("impact y")]] - np.array([face.x, face.y])
    half = np.array(detector.shape) * pitch / 2
    margin = 1.0 if detector.name == "zn" else 1.5
    rows = (events.pdg == 22) & (np.abs(impact) < half - margin).all(1) & (events.responses.sum((1, 2)) >= 10)
    light = events.responses[rows].astype(float)
    sums = light.sum((1, 2))
    axes = [(np.arange(size) - (size - 1) / 2) * pitch for size in detector.shape]
    centre = np.stack([(light.sum(2) * axes[0]).sum(1) / sums, (light.sum(1) * axes[1]).sum(1) / sums], 1)
    distance = np.hypot(
        axes[0][None, :, None] - centre[:, 0, None, None], axes[1][None, None, :] - centre[:, 1, None, None]
    )
    energy = events.feature("energy")[rows].astype(float)
    return {
        "energy": energy,
        "light": sums / energy,
        "lit": (light > 0).sum((1, 2)),
        "radius": (light * distance).sum((1, 2)) / sums,
        "off": np.abs(centre - impact[rows]).max(1),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    options = parser.parse_args()
    print(
        "| energy [GeV] | | photons | light a GeV | its spread [%] | lit cells | radius [cm] | off the line [cm] |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for low, high in pairwise(EDGES):
        for name, path in (("Geant4", options.events), ("reference", options.reference)):
            found = numbers(path)
            rows = (found["energy"] >= low) & (found["energy"] < high)
            count, light = np.count_nonzero(rows), found["light"][rows]
            cells = [f"{low} to {high}", name, f"{count}"]
            cells += [
                f"{light.mean():.3f} ± {light.std() / np.sqrt(count):.3f}",
                f"{100 * light.std() / light.mean():.0f}",
            ]
            cells += [
                f"{found[key][rows].mean():.{digits}f} ± {found[key][rows].std() / np.sqrt(count):.{digits}f}"
                for key, digits in (("lit", 1), ("radius", 3))
            ]
            print(f"| {' | '.join(cells)} | {np.median(found['off'][rows]):.3f} |")


if __name__ == "__main__":
    main()
