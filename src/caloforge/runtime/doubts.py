"""Mistakes that leave a file readable and wrong: another unit, logarithms in place of counts, particles that are none.

Nothing here is refused, since a detector may be like that; it is said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors.base import MEV
from caloforge.events import Events, EventSource, Primaries
from caloforge.runtime.domain import inconsistencies

ROWS = 1024
"""Rows that are looked at, from the whole file."""

LEAST, MOST = 0.02, 20.0
"""Medians of the sum of a response over the energy of its particle outside of which the units are doubted."""

INCONSISTENT = 0.05
"""Part of the particles that may be none before it is said."""


def doubts(source: EventSource | Primaries) -> list[str]:
    """Looks for such mistakes in some rows of a file.

    Args:
        source: events, or particles alone.

    Returns:
        a sentence for each mistake that the file may have.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, ROWS).astype(np.intp)) if len(source) else np.arange(0)
    if not len(rows):
        return []
    if isinstance(source, Primaries) and not isinstance(source, Events):
        return _of_particles(source.select(rows))
    events = source.slices(rows)
    return _of_particles(events) + (_of_counts(events) if events.detector.counts else _of_energies(events))


def _of_particles(primaries: Primaries) -> list[str]:
    doubts_of_particles = []
    for name, wrong in inconsistencies(primaries):
        if wrong.mean() > INCONSISTENT:
            doubts_of_particles.append(
                f"{100 * wrong.mean():.0f} % of the particles have {name}: are energies, momenta and masses in "
                f"{primaries.detector.conditions[0].unit}?"
            )
    return doubts_of_particles


def _of_counts(events: Events) -> list[str]:
    values = np.asarray(events.responses, np.float64)
    lit = values[values > 0]
    if not lit.size or (lit == np.rint(lit)).all():
        return []
    if _near_whole(np.expm1(lit)):
        return ["the responses look like ln(1 + n) and not like counts n: apply exp(x) - 1 to them"]
    if _near_whole(np.exp2(lit) - 1) or _near_whole(10**lit - 1):
        return ["the responses look like logarithms of counts and not like counts"]
    return [f"the responses are counts of {events.detector.unit} and hold numbers that are not whole"]


def _near_whole(values: NDArray[np.float64]) -> bool:
    """Whether values are whole but for the rounding of float32 in their logarithm; no other numbers all are."""
    small = values[(values > 0.5) & (values < 200)]
    return bool(small.size and (np.abs(small - np.rint(small)) < 1e-3).mean() > 0.99)


def _of_energies(events: Events) -> list[str]:
    detector = events.detector
    feature = detector.energy
    if feature is None or detector.unit not in MEV or feature.unit not in MEV:
        return []
    energy = events.feature(feature.name).astype(np.float64) * MEV[feature.unit]
    sums = np.asarray(events.responses, np.float64).reshape(len(events), -1).sum(1) * MEV[detector.unit]
    ratio = float(np.median(sums / energy))
    if LEAST <= ratio <= MOST:
        return []
    if ratio > MOST:
        reason = f"are the incident energies in {feature.unit}"
    else:
        reason = "are they in GeV, or logarithms" if detector.unit == "MeV" else "are they logarithms"
    return [
        f"the responses, taken for {detector.unit}, hold {ratio:.2g} times the incident energy (median): {reason}?"
    ]
