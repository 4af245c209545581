"""The numbers of the Fast Calorimeter Simulation Challenge about one set of showers, under the challenge's names.

Data sets differ in their voxels, in the energy below which a voxel is empty and in their histograms:

| data set | voxels | threshold [MeV] | features |
|---|---|---|---|
| 1, photons | 368 | 1 | 30 |
| 1, pions | 533 | 1 | 46 |
| 2 | 6,480 | 0.5e-3 / 0.033 | 362 |
| 3 | 40,500 | 0.5e-3 / 0.033 | 362 |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from caloforge.detectors import Detector
from caloforge.metrics.observables import Result
from caloforge.metrics.scores import finite
from caloforge.metrics.showers.features import Showers
from caloforge.metrics.showers.separation import separations

DATA_SETS = {368: "ds1-photons", 533: "ds1-pions", 6_480: "ds2", 40_500: "ds3"}
"""Data sets by their number of voxels."""

PUBLISHED_ROWS = {"ds1-photons": 121_000, "ds1-pions": 120_800, "ds2": 100_000, "ds3": 50_000}
"""Rows of each set behind published numbers. For want of another file data set 1's are those of its classifiers."""

ESTIMATES = ("fpd", "kpd", "precision", "recall", "density", "coverage")
"""Metrics of `SHOWER_METRICS` that the challenge has under the same name."""

GEV_ENERGY = 200.0
"""Incident energies of the challenge are above it in MeV, and nearly all of them below 5 times it in GeV."""

RATIOS = (0.02, 20.0)
"""E_tot / E_inc beyond which one of the two is in another unit."""


def data_set(detector: Detector) -> str | None:
    """Returns the name of the challenge's data set that has a detector's voxels; None where none has."""
    name = DATA_SETS.get(detector.cells)
    ragged = len(detector.shape) == 1
    if detector.features != ("incident_energy",):
        return None
    return name if name is not None and ragged == name.startswith("ds1") else None


def challenge_numbers(
    reference: Showers, generated: Showers, results: Mapping[str, Result]
) -> dict[str, Any]:
    """Collects what the challenge's evaluation prints, but for the classifiers.

    Args:
        reference: simulated showers.
        generated: generated ones.
        results: of `compare` of the two.

    Returns:
        `data_set`, `threshold` [MeV], and for both sets `rows` and `below`, the voxels that were set to 0;
        `separations` by name, and value and error by the name of a distance.
    """
    sets = {"reference": reference, "generated": generated}
    detector = reference.primaries.detector
    return {
        "data_set": data_set(detector),
        "threshold": detector.threshold,
        "rows": {name: len(showers) for name, showers in sets.items()},
        "below": {name: int(showers.below.sum()) for name, showers in sets.items()},
        "separations": {name: finite(value) for name, value in separations(reference, generated).items()},
        **{
            name: {"value": finite(results[name].value), "error": results[name].error}
            for name in ESTIMATES
            if name in results
        },
    }


def unit_doubt(showers: Showers) -> str:
    """Says where showers look as if they, or their energies, were not in MeV; empty where they do not."""
    energy, ratio = float(np.median(showers.incident)), float(np.median(showers.ratio))
    if energy < GEV_ENERGY:
        return f"a median incident energy of {energy:.3g} MeV: is the file in GeV?"
    if not RATIOS[0] <= ratio <= RATIOS[1]:
        return f"a median E_tot / E_inc of {ratio:.3g}: are energies and voxels both in MeV?"
    return ""
